"""Ledger blocks: the commit point of a batch of records, one immutable item each.

A block holds the previous block's hash, the offsets and digest of the records it covers, the decision about each
record, and the cumulative state after them. Blocks of a partition form a chain that starts at offset 0 with the
hash of the session's genesis. The block's hash covers the stored bytes.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple, overload

import msgspec

from psephos.formats.columns import (
    pack_big_ints,
    pack_chunks,
    pack_ints,
    split,
    unpack_big_ints,
    unpack_chunks,
    unpack_ints,
)
from psephos.formats.errors import UNREADABLE, Malformed
from psephos.formats.votes import NONCE_BYTES, VOTER_BYTES

VERSION = 1
MAX_RECORDS = 8_192
MAX_BYTES = 256 * 1024
NOTHING = -1  # no offset: supersedes nothing, not closed


class RecordClass(IntEnum):
    """The decision about a record. SUPERSEDED is counted in addition to the others: it marks accepted votes."""

    ACCEPTED = 0
    SUPERSEDED = 1
    DUPLICATE = 2
    MALFORMED = 3
    INVALID_BALLOT = 4
    QUOTA = 5
    LATE = 6
    CONTROL = 7


REJECTED = {
    RecordClass.MALFORMED: "malformed",
    RecordClass.INVALID_BALLOT: "invalid-ballot",
    RecordClass.QUOTA: "quota",
    RecordClass.LATE: "late",
}


class AcceptedVote(NamedTuple):
    """An accepted vote as a block stores it. `supersedes` is the offset it replaces, or NOTHING."""

    offset: int
    voter: bytes
    ballot: bytes
    received_at: int
    weight: int
    segment: int
    nonce: bytes
    supersedes: int


class AcceptedVotes(Sequence[AcceptedVote]):
    """Accepted votes by columns: a sequence of AcceptedVote that creates each one only on access.

    Each column is a sequence of the field's values; all have one length.
    """

    __slots__ = ("columns",)

    def __init__(
        self,
        offset: Sequence[int],
        voter: Sequence[bytes],
        ballot: Sequence[bytes],
        received_at: Sequence[int],
        weight: Sequence[int],
        segment: Sequence[int],
        nonce: Sequence[bytes],
        supersedes: Sequence[int],
    ) -> None:
        self.columns = (offset, voter, ballot, received_at, weight, segment, nonce, supersedes)

    @classmethod
    def of(cls, votes: Iterable[AcceptedVote]) -> "AcceptedVotes":
        """These votes by columns."""
        if isinstance(votes, cls):
            return votes
        return cls(*(list(zip(*votes, strict=True)) or [()] * len(AcceptedVote._fields)))

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[AcceptedVote]:
        return map(AcceptedVote, *self.columns)

    @overload
    def __getitem__(self, index: int) -> AcceptedVote: ...
    @overload
    def __getitem__(self, index: slice) -> "AcceptedVotes": ...
    def __getitem__(self, index: int | slice) -> "AcceptedVote | AcceptedVotes":
        found = [column[index] for column in self.columns]
        return AcceptedVotes(*found) if isinstance(index, slice) else AcceptedVote(*found)  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AcceptedVotes):
            return len(self) == len(other) and all(map(_same, self.columns, other.columns))
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"AcceptedVotes.of({list(self)})"


def _same(one: Sequence[object], other: Sequence[object]) -> bool:
    return list(one) == list(other)


class State(NamedTuple):
    """Cumulative state after a block.

    tallies: millionths, option-major: `tallies[option * segments + segment]`; classes: records so far by
    RecordClass; voters: voters with at least one counted vote; closed_at: offset of the first close marker,
    or NOTHING.
    """

    tallies: tuple[int, ...]
    classes: tuple[int, ...]
    voters: int
    closed_at: int

    @classmethod
    def empty(cls, cells: int) -> "State":
        """The state before the first record; `cells` = options x segments."""
        return cls((0,) * cells, (0,) * len(RecordClass), 0, NOTHING)

    @property
    def records(self) -> int:
        """Number of records so far, by the identity accepted + duplicate + rejected + control."""
        return sum(self.classes) - self.classes[RecordClass.SUPERSEDED]


class Block(NamedTuple):
    """One block, decoded. `accepted` in offset order, `others` as (offset, class) in offset order."""

    session: str
    partition: int
    previous: bytes
    base: int
    end: int
    records_digest: bytes
    last_record_digest: bytes
    accepted: Sequence[AcceptedVote]
    others: Sequence[tuple[int, int]]
    state: State

    def class_at(self, offset: int) -> RecordClass | None:
        """The class of a record of this block; None if the block does not contain it."""
        if any(vote.offset == offset for vote in self.accepted):
            return RecordClass.ACCEPTED
        return next((RecordClass(code) for at, code in self.others if at == offset), None)


class _Packed(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    session: str
    partition: int
    previous: bytes
    base: int
    end: int
    records_digest: bytes
    last_record_digest: bytes
    accepted: int
    offsets: bytes
    voters: bytes
    ballot_lengths: bytes
    ballots: bytes
    received: bytes
    weights: bytes
    segments: bytes
    nonce_lengths: bytes
    nonces: bytes
    supersedes: bytes
    others: int
    other_offsets: bytes
    other_classes: bytes
    state: bytes


class _PackedState(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    tallies: bytes
    classes: list[int]
    voters: int
    closed_at: int


_encoder = msgspec.msgpack.Encoder()
_blocks = msgspec.msgpack.Decoder(_Packed)
_states = msgspec.msgpack.Decoder(_PackedState)


def encode_state(state: State) -> bytes:
    """Cumulative state as blocks and tally records carry it."""
    return _encoder.encode(
        _PackedState(pack_big_ints(state.tallies), list(state.classes), state.voters, state.closed_at)
    )


def decode_state(data: bytes) -> State:
    """The inverse of `encode_state`. Raises Malformed."""
    try:
        packed = _states.decode(data)
    except UNREADABLE as error:
        raise Malformed(f"not a cumulative state: {error}") from None
    if len(packed.classes) != len(RecordClass):
        raise Malformed(f"{len(packed.classes)} record classes, known are {len(RecordClass)}")
    return State(tuple(unpack_big_ints(packed.tallies)), tuple(packed.classes), packed.voters, packed.closed_at)


def encode_block(block: Block) -> bytes:
    """The bytes that the ledger stores."""
    base = block.base
    offsets, voters, ballots, received, weights, segments, nonces, supersedes = AcceptedVotes.of(
        block.accepted
    ).columns
    ballot_lengths, ballot_bytes = pack_chunks(ballots)
    nonce_lengths, nonce_bytes = pack_chunks(nonces)
    return _encoder.encode(
        _Packed(
            VERSION,
            block.session,
            block.partition,
            block.previous,
            base,
            block.end,
            block.records_digest,
            block.last_record_digest,
            len(block.accepted),
            pack_ints([offset - base for offset in offsets]),
            b"".join(voters),
            ballot_lengths,
            ballot_bytes,
            _pack_relative(received),
            pack_ints(weights),
            pack_ints(segments),
            nonce_lengths,
            nonce_bytes,
            pack_ints(supersedes),
            len(block.others),
            pack_ints([offset - base for offset, _ in block.others]),
            bytes(code for _, code in block.others),
            encode_state(block.state),
        )
    )


def decode_block(data: bytes) -> Block:
    """The inverse of `encode_block`. Raises Malformed."""
    try:
        packed = _blocks.decode(data)
    except UNREADABLE as error:
        raise Malformed(f"not a ledger block: {error}") from None
    if packed.version != VERSION:
        raise Malformed(f"block of version {packed.version}, known is {VERSION}")
    try:
        return Block(
            packed.session,
            packed.partition,
            packed.previous,
            packed.base,
            packed.end,
            packed.records_digest,
            packed.last_record_digest,
            _unpack_accepted(packed),
            _unpack_others(packed),
            decode_state(packed.state),
        )
    except ValueError as error:
        raise Malformed(f"not a ledger block: {error}") from None


def block_hash(payload: bytes) -> bytes:
    """SHA-256 of the stored bytes, 32 bytes: what the next block names as its `previous`."""
    return hashlib.sha256(payload).digest()


def _unpack_accepted(packed: _Packed) -> AcceptedVotes:
    count, base = packed.accepted, packed.base
    if not 0 <= count <= MAX_RECORDS:
        raise Malformed(f"{count} accepted votes in a block")
    nonces = unpack_chunks(packed.nonce_lengths, packed.nonces, count)
    if not set(map(len, nonces)) <= {0, NONCE_BYTES}:
        raise Malformed("a nonce of a wrong length")
    return AcceptedVotes(
        [base + delta for delta in unpack_ints(packed.offsets, count)],
        split(packed.voters, VOTER_BYTES, count),
        unpack_chunks(packed.ballot_lengths, packed.ballots, count),
        _unpack_relative(packed.received, count),
        unpack_ints(packed.weights, count),
        unpack_ints(packed.segments, count),
        nonces,
        unpack_ints(packed.supersedes, count),
    )


def _unpack_others(packed: _Packed) -> list[tuple[int, int]]:
    if not 0 <= packed.others <= MAX_RECORDS or len(packed.other_classes) != packed.others:
        raise Malformed("the classes of other records do not fit their number")
    if any(code >= len(RecordClass) for code in packed.other_classes):
        raise Malformed("unknown record class")
    deltas = unpack_ints(packed.other_offsets, packed.others)
    return [(packed.base + delta, code) for delta, code in zip(deltas, packed.other_classes, strict=True)]


def _pack_relative(times: Sequence[int]) -> bytes:
    """Packs times, which are close together: the first as it is, then all of them relative to it."""
    if not times:
        return b""
    first = times[0]
    return first.to_bytes(8, "big", signed=True) + pack_ints([time - first for time in times])


def _unpack_relative(data: bytes, count: int) -> list[int]:
    if not count:
        return unpack_ints(data, 0)
    first = int.from_bytes(data[:8], "big", signed=True)
    return [first + delta for delta in unpack_ints(data[8:], count)]
