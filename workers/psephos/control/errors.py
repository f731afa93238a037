"""Errors in the life of a session, other than unavailable servers."""

from psephos.platform.errors import FAILED, PsephosError


class LifecycleError(PsephosError):
    """The step is not allowed now. The message is one line: why, and what to do."""

    exit_code = FAILED
