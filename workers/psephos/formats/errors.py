"""The one error that decoders raise, and those that it stands for."""

import msgspec

from psephos.platform.errors import PsephosError


class Malformed(PsephosError, ValueError):
    """Bytes that are not of the format they claim to be. The message says what was wrong."""


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that it can't read. NB: text that is not UTF-8 is no DecodeError of its own."""
