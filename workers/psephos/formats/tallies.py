"""Records of the tallies topic: the absolute state of one partition, keyed by its number (compacted)."""

import msgspec

from psephos.formats.blocks import State, decode_state, encode_state
from psephos.formats.errors import UNREADABLE, Malformed

VERSION = 1


class TallyRecord(msgspec.Struct, frozen=True):
    """State of a partition after the record at `end - 1`. received_at: of the newest vote in it, in ms."""

    partition: int
    base: int
    end: int
    received_at: int
    state: State


class _Packed(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    partition: int
    base: int
    end: int
    received_at: int
    state: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


def encode_tally(record: TallyRecord) -> bytes:
    """A tally record's value in the log."""
    return _encoder.encode(
        _Packed(VERSION, record.partition, record.base, record.end, record.received_at, encode_state(record.state))
    )


def decode_tally(value: bytes | None) -> TallyRecord:
    """The inverse of `encode_tally`. Raises Malformed."""
    try:
        packed = _decoder.decode(value or b"")
    except UNREADABLE as error:
        raise Malformed(f"not a tally record: {error}") from None
    if packed.version != VERSION:
        raise Malformed(f"tally record of version {packed.version}, known is {VERSION}")
    return TallyRecord(packed.partition, packed.base, packed.end, packed.received_at, decode_state(packed.state))


def tally_key(partition: int) -> bytes:
    """The key of a partition's tally record."""
    return partition.to_bytes(4, "big")
