"""Errors that prevent a recount altogether; differences are findings, not errors."""

from psephos.platform.errors import BAD_INPUT, PsephosError


class RecountError(PsephosError):
    """The recount can't be done or sealed. The message is one line: why, and what to do."""

    exit_code = BAD_INPUT
