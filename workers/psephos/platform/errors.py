"""The base of every error of the product.

An error that a program may end with has an exit code, and its text is one line for a person: what was wrong,
where, and what to do. Any other error is handled by the calling code: if it reaches a program's entry point, that
is a bug.
"""

from typing import ClassVar

FAILED = 1  # the program did its work, but the outcome is not the desired one
BAD_INPUT = 2  # settings or input: another run can only fail again


class PsephosError(Exception):
    """The base class. `exit_code`: of a program that this error ends; None if it must not end one."""

    exit_code: ClassVar[int | None] = None

    @property
    def line(self) -> str:
        """The message as one line."""
        return one_line(str(self))


def one_line(text: str) -> str:
    """The non-empty lines, joined."""
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
