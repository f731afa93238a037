"""Result frames: the snapshot that Redis, WebSocket, SSE and GET all carry."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from psephos.formats.errors import UNREADABLE, Malformed

Amount = int | Decimal  # whole votes are integers; weighted ones decimals with at most six places


class Turnout(msgspec.Struct, frozen=True, rename="camel"):
    """Numbers of records so far, by class. rejected: by reason; voters: those with at least one counted vote."""

    received: int
    accepted: int
    duplicate: int
    superseded: int
    rejected: Mapping[str, int]
    voters: int


class Frame(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A full snapshot. (epoch, version) orders frames: another epoch means forget and resync.

    totals: by option id, None under embargo; segments: totals by segment if declared; as_of: milliseconds since
    1970; lag_ms: how long the oldest record not yet included had been waiting, 0 if there was none;
    closes_at: when voting closes, milliseconds since 1970, None if not set; outcome: winners and rounds in the
    final frame (the shape of `psephos.domain.counting.outcome_json`), else None.
    """

    session: str
    epoch: str
    version: int
    phase: str
    totals: Mapping[str, Amount] | None
    turnout: Turnout
    as_of: int
    lag_ms: int
    final: bool
    segments: Mapping[str, Mapping[str, Amount]] | None = None
    outcome: Any = None
    closes_at: int | None = None


_encoder = msgspec.json.Encoder(decimal_format="number")
_decoder = msgspec.json.Decoder(Frame)


def encode_frame(frame: Frame) -> bytes:
    """The frame's JSON, the same for every endpoint."""
    return _encoder.encode(frame)


def decode_frame(data: bytes) -> Frame:
    """The inverse of `encode_frame`. Raises Malformed."""
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise Malformed(f"not a result frame: {error}") from None
