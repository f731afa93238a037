"""Records of the votes topic: votes and close markers, and their digests.

A vote's key is the voter, a pseudonym of 16 bytes; its value is a versioned msgpack array
`[version, ballot, receivedAt, weight, segment, nonce]`. The encoding is canonical: a value that does not encode
back to the same bytes is malformed, so a ledger block can rebuild each record's bytes and digest.
"""

import hashlib
import hmac
import sys
from array import array
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import msgspec

from psephos.formats.errors import UNREADABLE, Malformed
from psephos.formats.short_hash import sha256

VERSION = 1
VOTER_BYTES = 16
NONCE_BYTES = 16
WEIGHT_ONE = 1_000_000  # weights are integers, in millionths
_NONCE_LENGTHS = frozenset({0, NONCE_BYTES})
_NONCE_LENGTH = bytes([NONCE_BYTES])
MARKER_KEY = b"psephos.control"  # 15 bytes: never a voter
MAX_WEIGHT = 1_000_000 * WEIGHT_ONE
MAX_TIME_MS = 1 << 53  # up to here JSON readers are exact


class Vote(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One vote as stored in the log.

    ballot: canonical ballot bytes (`psephos.domain.ballots.rules`); received_at: milliseconds since 1970 by the
    ingest's clock, informative; weight: millionths; segment: index of the declared segment, one past the last for
    "other", 0 if none are declared; nonce: 16 bytes from the Idempotency-Key, or empty.
    """

    version: int
    ballot: bytes
    received_at: int
    weight: int
    segment: int
    nonce: bytes


class CloseMarker(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The marker of a partition: every vote after this record is late. `closes_at`: milliseconds since 1970."""

    version: int
    kind: str
    closes_at: int


_encoder = msgspec.msgpack.Encoder()
_votes = msgspec.msgpack.Decoder(Vote)
_markers = msgspec.msgpack.Decoder(CloseMarker)


def encode_vote(
    ballot: bytes, received_at: int, weight: int = WEIGHT_ONE, segment: int = 0, nonce: bytes = b""
) -> bytes:
    """A vote's value in the log."""
    return _encoder.encode((VERSION, ballot, received_at, weight, segment, nonce))


def with_nonce(value: bytes, nonce: bytes) -> bytes:
    """The value of a vote with this nonce, 16 bytes, made from the value of the same vote without one.

    In msgpack the nonce comes last: after one byte for its kind and one for its length, which is 0 in `value`.
    """
    return value[:-1] + _NONCE_LENGTH + nonce


def decode_vote(value: bytes | None) -> Vote:
    """Strict inverse of `encode_vote`. Raises Malformed."""
    if value is None:
        raise Malformed("vote without a value")
    try:
        vote = _votes.decode(value)
    except UNREADABLE as error:
        raise Malformed(f"not a vote: {error}") from None
    if vote.version != VERSION:
        raise Malformed(f"vote of version {vote.version}, known is {VERSION}")
    if len(vote.nonce) not in _NONCE_LENGTHS:
        raise Malformed(f"nonce of {len(vote.nonce)} bytes, allowed are 0 and {NONCE_BYTES}")
    if not 0 < vote.weight <= MAX_WEIGHT or not 0 <= vote.received_at < MAX_TIME_MS or vote.segment < 0:
        raise Malformed("weight, time or segment out of range")
    if _encoder.encode(vote) != value:
        raise Malformed("vote is not in canonical form")
    return vote


class VoteColumns(NamedTuple):
    """Fields of many votes, one list per field."""

    ballots: list[bytes]
    received_at: list[int]
    weights: list[int]
    segments: list[int]
    nonces: list[bytes]


def decode_votes(values: Sequence[bytes | None]) -> VoteColumns | None:
    """The results of `decode_vote` for all of them, at a third of its cost.

    Returns None if any is malformed or there are none; decode them one by one to find out which.
    """
    if None in values:
        return None
    try:
        votes = list(map(_votes.decode, values))  # type: ignore[arg-type]
    except UNREADABLE:
        return None
    if not votes or list(map(_encoder.encode, votes)) != list(values):
        return None
    received, weights = [vote.received_at for vote in votes], [vote.weight for vote in votes]
    segments, nonces = [vote.segment for vote in votes], [vote.nonce for vote in votes]
    sound = (
        {vote.version for vote in votes} == {VERSION}
        and set(map(len, nonces)) <= _NONCE_LENGTHS
        and min(weights) > 0
        and max(weights) <= MAX_WEIGHT
        and min(received) >= 0
        and max(received) < MAX_TIME_MS
        and min(segments) >= 0
    )
    return VoteColumns([vote.ballot for vote in votes], received, weights, segments, nonces) if sound else None


def encode_marker(closes_at: int) -> bytes:
    """A close marker's value in the log; its key is `MARKER_KEY`."""
    return _encoder.encode((VERSION, "close", closes_at))


def decode_marker(value: bytes | None) -> CloseMarker:
    """Strict inverse of `encode_marker`. Raises Malformed."""
    try:
        marker = _markers.decode(value or b"")
    except UNREADABLE as error:
        raise Malformed(f"not a close marker: {error}") from None
    if marker.version != VERSION or marker.kind != "close" or _encoder.encode(marker) != value:
        raise Malformed("unknown control record")
    return marker


def voter_key(session_key: bytes, subject: str) -> bytes:
    """The pseudonym that stands for a subject in this session: HMAC-SHA256, first 16 bytes."""
    return hmac.digest(session_key, subject.encode(), "sha256")[:VOTER_BYTES]


def partition_of(voter: bytes, partitions: int) -> int:
    """The only partition that may hold a voter's records."""
    return int.from_bytes(voter[:8], "big") % partitions


def partitions_of(voters: Sequence[bytes], partitions: int) -> list[int]:
    """The results of `partition_of` for these voters (16 bytes each), at a quarter of its cost."""
    numbers = array("Q", b"".join(voters))
    if sys.byteorder == "little":
        numbers.byteswap()
    return [number % partitions for number in numbers[::2]]


def all_of_partition(keys: Sequence[bytes | None], partitions: int, partition: int) -> bool:
    """Returns whether all keys are voters, 16 bytes each, of this partition, according to `partition_of`."""
    if None in keys or set(map(len, keys)) != {VOTER_BYTES}:  # type: ignore[arg-type]
        return False
    return set(partitions_of(keys, partitions)) == {partition}  # type: ignore[arg-type]


def nonce_of(voter: bytes, idempotency_key: str) -> bytes:
    """The nonce that stands for an Idempotency-Key of this voter."""
    return sha256(voter + idempotency_key.encode()).digest()[:NONCE_BYTES]


def frame_record(key: bytes | None, value: bytes | None) -> bytes:
    """A raw record as digests cover it: length and bytes of key, then of value; a null has length 2^32-1."""
    return _sized(key) + _sized(value)


def records_digest(keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> bytes:
    """SHA-256 of all these framed records, one after another, 32 bytes."""
    if None in keys or None in values:
        framed = list(map(frame_record, keys, values))
    else:
        sizes = map(_size, map(len, keys)), map(_size, map(len, values))  # type: ignore[arg-type]
        framed = list(chain.from_iterable(zip(sizes[0], keys, sizes[1], values, strict=True)))  # type: ignore[arg-type]
    return hashlib.sha256(b"".join(framed)).digest()


def record_digest(key: bytes | None, value: bytes | None) -> bytes:
    """SHA-256 of one framed record, 32 bytes."""
    if key is not None and value is not None:  # the same bytes in one go: this is done for every vote
        return sha256(_size(len(key)) + key + _size(len(value)) + value).digest()
    return sha256(frame_record(key, value)).digest()


def record_digests(keys: Sequence[bytes], values: Sequence[bytes]) -> list[bytes]:
    """The results of `record_digest` for these voters' records."""
    size, key_size = _size, _size(VOTER_BYTES)
    return [
        sha256(key_size + key + size(len(value)) + value).digest() for key, value in zip(keys, values, strict=True)
    ]


def _sized(data: bytes | None) -> bytes:
    return b"\xff\xff\xff\xff" if data is None else len(data).to_bytes(4, "big") + data


@lru_cache(1024)
def _size(length: int) -> bytes:
    return length.to_bytes(4, "big")
