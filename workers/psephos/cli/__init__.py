"""The command line, `psephos`: one module per family of commands.

A command's imports happen when it runs: `--help` stays fast, and a command works without the extras of the others.
`errors.py` turns every foreseen failure into one line on standard error: exit code 2 for settings and input, 1 for
a failed outcome.
"""

import sys
from typing import NoReturn

_HELP = {"-h", "--help"}


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs a command, by default the process's own, and ends the process."""
    own = sys.argv[1:]
    if arguments is None and own[:1] == ["serve"] and _HELP.isdisjoint(own):
        from psephos.runtime.forked import share_memory

        share_memory("serve", *own)  # first of all: any import before it is wasted

    from psephos.cli.app import main

    main(arguments)


__all__ = ["main"]
