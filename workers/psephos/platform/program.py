"""Ends programs: after a foreseen error with one line on standard error and that error's exit code."""

import sys
from collections.abc import Callable

from psephos.platform.errors import PsephosError


def run_program(program: str, run: Callable[[], int | None]) -> int:
    """Runs a program; returns the exit code of `run` (None: 0), or of the foreseen error that ended it."""
    try:
        return run() or 0
    except PsephosError as error:
        if error.exit_code is None:
            raise
        sys.stderr.write(f"{program}: {error.line}\n")
        return error.exit_code
