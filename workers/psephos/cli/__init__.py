"""The command line, `psephos`: one module a family of commands.

What a command needs is imported when it runs: `--help` stays quick, and a command works without the extras of
the others. `errors.py` turns every foreseen failure into one line on standard error: exit code 2 for settings and
input, 1 for an outcome that failed.
"""

from psephos.cli.app import main

__all__ = ["main"]
