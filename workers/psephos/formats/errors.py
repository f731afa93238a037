"""The one error that decoders raise, and the errors that it replaces."""

import msgspec

from psephos.platform.errors import PsephosError


class Malformed(PsephosError, ValueError):
    """Bytes that are not in the format they claim to be in. The message says what was wrong."""


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Errors of msgspec for bytes that it can't read. NB: for non-UTF-8 text, it is not a DecodeError of its own."""
