"""Errors that keep the local stack from starting, as one line for a person."""

from psephos.platform.child_process import ProcessError


class StackError(ProcessError):
    """The local stack can't start or has broken; the message says what, where, and what to do about it."""
