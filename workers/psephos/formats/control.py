"""Records of the control topic: the session's phase and times, as set by the operator (or the local stack).

Keyed by the session's uid, compacted: the last record is the state. `number` grows with every change, so the
versions of result frames, which add it, never go backwards.
"""

from enum import StrEnum

import msgspec

from psephos.formats.errors import UNREADABLE, Malformed

VERSION = 1


class Phase(StrEnum):
    """Phases of a session. Paused goes back to Open; Final, Disputed and Void end it."""

    PENDING = "Pending"
    OPEN = "Open"
    PAUSED = "Paused"
    CLOSING = "Closing"
    RECOUNTING = "Recounting"
    FINAL = "Final"
    DISPUTED = "Disputed"
    VOID = "Void"


ENDED = frozenset({Phase.FINAL, Phase.DISPUTED, Phase.VOID})


class Control(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """The session's state. Times in milliseconds since 1970, None if not set; grace in milliseconds."""

    version: int = VERSION
    phase: Phase
    number: int
    opens_at: int | None = None
    closes_at: int | None = None
    grace_ms: int = 10_000
    reason: str = ""

    def accepts_votes(self, now_ms: int) -> bool:
        """Returns whether a vote received now may count."""
        return self.phase is Phase.OPEN and not self.closed_by(now_ms)

    def closed_by(self, now_ms: int) -> bool:
        """Returns whether `closesAt` has passed."""
        return self.closes_at is not None and now_ms >= self.closes_at


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Control)


def encode_control(control: Control) -> bytes:
    """A control record's value: JSON, so that an SRE can read the topic."""
    return _encoder.encode(control)


def decode_control(value: bytes | None) -> Control:
    """The inverse of `encode_control`. Raises Malformed."""
    try:
        control = _decoder.decode(value or b"")
    except UNREADABLE as error:
        raise Malformed(f"not a control record: {error}") from None
    if control.version != VERSION:
        raise Malformed(f"control record of version {control.version}, known is {VERSION}")
    return control
