"""The modules that the processes of a session share: imported once, by the process from which all are forked.

This module imports none of them itself: `psephos serve` reads it before it becomes that process.
"""

from contextlib import suppress

from psephos.platform.forkserver import can_fork
from psephos.platform.forkserver.host import become_fork_server, is_first, start_of_first

IMPORTED = (
    "psephos.adapters.dynamodb.described",  # first: what it reads and drops leaves room for the others
    "psephos.cli.app",
    *(f"psephos.roles.{role}.main" for role in ("ingest", "gateway", "projector", "tally", "serve")),
    "encodings.idna",  # for every address that is looked up
)
# Otherwise a dozen threads of a role's clients would get one arena each, up to eight times the number of cores.
ALLOCATOR = {"MALLOC_ARENA_MAX": "2"}
COMMAND = "psephos.cli"


def share_memory(name: str, *arguments: str) -> None:
    """Makes this process a fork server, whose first child continues as `python -m psephos.cli arguments`.

    Returns at once in that child, and if the system does not allow it.
    """
    if can_fork() and not is_first():
        with suppress(OSError):
            become_fork_server(IMPORTED, ALLOCATOR, start_of_first(name, COMMAND, arguments))
