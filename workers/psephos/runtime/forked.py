"""What the processes of a session have in common: imported once, by the process that all of them are forked from.

Imports none of it itself: `psephos serve` reads this before it becomes that process.
"""

from contextlib import suppress

from psephos.platform.forkserver import can_fork
from psephos.platform.forkserver.host import become_fork_server, is_first, start_of_first

IMPORTED = (
    "psephos.adapters.dynamodb.described",  # first: what it reads and forgets leaves room for the others
    "psephos.cli.app",
    *(f"psephos.roles.{role}.main" for role in ("ingest", "gateway", "projector", "tally", "serve")),
    "encodings.idna",  # of every address that is looked up
)
# A dozen threads of a role's clients would get an arena each, as many as eight times the number of cores.
ALLOCATOR = {"MALLOC_ARENA_MAX": "2"}
COMMAND = "psephos.cli"


def share_memory(name: str, *arguments: str) -> None:
    """Makes this process a fork server, whose first child goes on as `python -m psephos.cli arguments`.

    Returns at once in that child, and where the system does not let us.
    """
    if can_fork() and not is_first():
        with suppress(OSError):
            become_fork_server(IMPORTED, ALLOCATOR, start_of_first(name, COMMAND, arguments))
