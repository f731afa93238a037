"""The base of every error of the product.

An error that a program may end with has an exit code, and its text is one line for a person: what was wrong,
where, and what to do. Any other error is handled by the code that calls: if it reaches a program's entry, that
is a bug.
"""

from typing import ClassVar

FAILED = 1  # the program did its work, and the outcome is not what was hoped for
BAD_INPUT = 2  # settings or input: the same program can only fail again


class PsephosError(Exception):
    """`exit_code`: of a program that this error ends; None where it may end none."""

    exit_code: ClassVar[int | None] = None

    @property
    def line(self) -> str:
        """The message as one line."""
        return one_line(str(self))


def one_line(text: str) -> str:
    """The lines that hold anything, joined."""
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
