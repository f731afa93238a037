"""Decides each record from nothing but the records and the previous state. No clock, no I/O, no mutable spec.

The order of judgement is fixed (docs/architecture.md, section 2): control, late, malformed, invalid ballot,
then the voter's allowance. The recount judges in the same order with code of its own.
"""

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter, not_
from typing import NamedTuple, Protocol

import msgspec

from psephos.domain.ballots import MAX_REVOTES, BallotRules, InvalidBallot
from psephos.domain.session import MAX_OPTIONS, Session
from psephos.formats.blocks import (
    MAX_BYTES,
    MAX_RECORDS,
    NOTHING,
    AcceptedVote,
    AcceptedVotes,
    Block,
    RecordClass,
    State,
)
from psephos.formats.columns import split
from psephos.formats.errors import Malformed
from psephos.formats.votes import (
    MARKER_KEY,
    NONCE_BYTES,
    VOTER_BYTES,
    WEIGHT_ONE,
    Vote,
    VoteColumns,
    all_of_partition,
    decode_marker,
    decode_vote,
    decode_votes,
    partition_of,
    record_digest,
    records_digest,
)

Record = tuple[bytes | None, bytes | None]  # key, value
Contributions = tuple[tuple[int, int], ...]

# Upper bounds of what an accepted record adds to a block: offset 2, voter 16, ballot length 2, time 8, weight 8,
# segment 2, nonce length 1 and nonce 16, supersedes 8; another record: offset 2 and class 1. The rest is headroom.
_ACCEPTED_BYTES = 2 + VOTER_BYTES + 2 + 8 + 8 + 2 + 1 + NONCE_BYTES + 8
_OTHER_BYTES = 3
_HEAD_BYTES = 2048
_CELL_BYTES = 17
_BALLOT_BYTES = 4 * MAX_OPTIONS  # the longest valid ballot; longer values never enter a block
_MEMO = 100_000  # distinct ballots remembered with their contributions


class Voters(Protocol):
    """The dedup store as `Judge` needs it: voter to packed state. A dict-like view of one transaction."""

    def get(self, voter: bytes, /) -> bytes | None:
        """Returns what is known of a voter, None if nothing."""

    def put(self, voter: bytes, value: bytes, /) -> object:
        """Stores a voter's value."""

    def add(self, voter: bytes, value: bytes, /) -> bool:
        """Stores the value unless the voter is known already; returns whether it was new."""

    def add_all(self, voters: Sequence[bytes], values: Iterable[bytes], /) -> list[bool]:
        """Calls `add` for each, in this order."""

    def put_all(self, items: Sequence[tuple[bytes, bytes]], /) -> None:
        """Calls `put` for each, in this order; cheapest if they are sorted."""


class _Known(msgspec.Struct, array_like=True):
    """A voter's entry under `last` or a quota: the newest accepted vote, and all accepted nonces."""

    offset: int
    ballot: bytes
    weight: int
    segment: int
    nonces: bytes


_DUPLICATE = int(RecordClass.DUPLICATE)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Known).decode


@dataclass(frozen=True)
class Rules:
    """The parts of a session that deciding needs; equal for every worker by the genesis' rules hash."""

    ballots: BallotRules
    partitions: int
    options: int
    segments: int
    weighted: bool
    nonce_needed: bool
    last: bool
    quota: int

    @classmethod
    def of(cls, session: Session, partitions: int) -> "Rules":
        voters = session.spec.voters
        return cls(
            ballots=BallotRules.of(session),
            partitions=partitions,
            options=len(session.option_ids),
            segments=max(1, len(session.segment_names)),
            weighted=session.weighted,
            nonce_needed=session.needs_idempotency_key,
            last=voters.revote == "last",
            quota=voters.votes_per_voter,
        )

    @property
    def cells(self) -> int:
        """Number of cumulative tallies: options x segments."""
        return self.options * self.segments

    @property
    def once(self) -> bool:
        """True if each voter has one vote and the first counts: then only its offset is remembered."""
        return not self.last and self.quota == 1


class Head(NamedTuple):
    """Position of a partition: hash of its last block (or of the genesis), next offset, state up to there."""

    hash: bytes
    end: int
    state: State


class Judge:
    """Turns records of one partition into blocks. Keeps only a memo of what ballots contribute."""

    def __init__(self, rules: Rules, session_uid: str, partition: int) -> None:
        self.rules = rules
        self._session = session_uid
        self._partition = partition
        self._memo: dict[bytes, Contributions | None] = {}

    def block(self, head: Head, records: Sequence[Record], voters: Voters) -> Block:
        """Returns the block that follows `head`: as many of `records` (the first has offset `head.end`) as fit.

        Changes `voters`; the owner of its transaction commits it once the ledger has accepted the block.
        """
        keys = [key for key, _ in records[:MAX_RECORDS]]
        values = [value for _, value in records[:MAX_RECORDS]]
        votes = self._plain(head, keys, values)
        if votes is None:
            decided = self._one_by_one(head, keys, values, voters)
        else:
            decided = self._all_at_once(head, votes, voters)
        taken = decided.end - head.end
        return Block(
            session=self._session,
            partition=self._partition,
            previous=head.hash,
            base=head.end,
            end=decided.end,
            records_digest=records_digest(keys[:taken], values[:taken]),
            last_record_digest=record_digest(keys[taken - 1], values[taken - 1]),
            accepted=decided.accepted,
            others=decided.others,
            state=decided.state,
        )

    def apply(self, blocks: Sequence[Block], voters: Voters) -> None:
        """Applies consecutive stored blocks to the store, as recovery and adoption do."""
        if self.rules.once:
            items = [pair for block in blocks for pair in _first_offsets(block)]
            items.sort(key=itemgetter(0))  # neighbours are on one page of the store: half the work
            voters.put_all(items)
            return
        for block in blocks:
            for vote in block.accepted:
                self._remember(vote, voters)

    # If every record is a valid vote and only a voter's first one counts: by columns, at a third of the cost.

    def _plain(self, head: Head, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> "_Plain | None":
        """Returns the votes if it only remains to judge who has voted already; else None: judge each by itself."""
        rules = self.rules
        if not rules.once or head.state.closed_at != NOTHING:
            return None
        if not all_of_partition(keys, rules.partitions, self._partition):
            return None
        votes = decode_votes(values)
        if votes is None or max(votes.segments) >= rules.segments or (rules.nonce_needed and b"" in votes.nonces):
            return None
        if not rules.weighted and set(votes.weights) != {WEIGHT_ONE}:
            return None
        if any(self._contributions(ballot) is None for ballot in set(votes.ballots)):
            return None
        return _Plain(keys, votes)  # type: ignore[arg-type]  # all of them are voter ids

    def _all_at_once(self, head: Head, plain: "_Plain", voters: Voters) -> "_Decided":
        keys, votes = plain
        number = _fitting(votes, MAX_BYTES - _HEAD_BYTES - _CELL_BYTES * self.rules.cells)
        offsets = range(head.end, head.end + number)
        new = voters.add_all(keys[:number], _packed(offsets))
        others = [(offset, _DUPLICATE) for offset in compress(offsets, map(not_, new))]
        accepted = AcceptedVotes(
            list(compress(offsets, new)),
            list(compress(keys, new)),
            list(compress(votes.ballots, new)),
            list(compress(votes.received_at, new)),
            list(compress(votes.weights, new)),
            list(compress(votes.segments, new)),
            list(compress(votes.nonces, new)),
            [NOTHING] * (number - len(others)),
        )
        return _Decided(offsets.stop, accepted, others, self._state_behind(head.state, accepted, len(others)))

    def _state_behind(self, state: State, accepted: AcceptedVotes, duplicates: int) -> State:
        tallies, classes = list(state.tallies), list(state.classes)
        classes[RecordClass.ACCEPTED] += len(accepted)
        classes[RecordClass.DUPLICATE] += duplicates
        _, _, ballots, _, weights, segments, _, _ = accepted.columns
        for (ballot, segment, weight), number in Counter(zip(ballots, segments, weights, strict=True)).items():
            for option, units in self._contributions(ballot) or ():
                tallies[option * self.rules.segments + segment] += number * units * weight
        return State(tuple(tallies), tuple(classes), state.voters + len(accepted), state.closed_at)

    # Any records, one at a time.

    def _one_by_one(
        self, head: Head, keys: Sequence[bytes | None], values: Sequence[bytes | None], voters: Voters
    ) -> "_Decided":
        batch = _Batch(head.state, head.end)
        budget = MAX_BYTES - _HEAD_BYTES - _CELL_BYTES * self.rules.cells
        for key, value in zip(keys, values, strict=True):
            if budget < _ACCEPTED_BYTES + min(len(value or b""), _BALLOT_BYTES):
                break
            verdict = self._judge(batch, key, value, voters)
            if isinstance(verdict, RecordClass):
                batch.other(verdict)
                budget -= _OTHER_BYTES
            else:
                batch.accepted.append(verdict)
                budget -= _ACCEPTED_BYTES + len(verdict.ballot)
            batch.end += 1
        return _Decided(batch.end, batch.accepted, batch.others, batch.state())

    def _judge(
        self, batch: "_Batch", key: bytes | None, value: bytes | None, voters: Voters
    ) -> AcceptedVote | RecordClass:
        if key == MARKER_KEY:
            return _judge_control(batch, value)
        if batch.closed_at != NOTHING:
            return RecordClass.LATE
        vote = self._read(key, value)
        if key is None or vote is None:
            return RecordClass.MALFORMED
        contributions = self._contributions(vote.ballot)
        if contributions is None:
            return RecordClass.INVALID_BALLOT
        return self._judge_voter(batch, key, vote, contributions, voters)

    def _read(self, key: bytes | None, value: bytes | None) -> Vote | None:
        """Returns the vote in a well-formed record, None for a malformed one."""
        rules = self.rules
        if key is None or len(key) != VOTER_BYTES or partition_of(key, rules.partitions) != self._partition:
            return None
        try:
            vote = decode_vote(value)
        except Malformed:
            return None
        if vote.segment >= rules.segments or (rules.nonce_needed and not vote.nonce):
            return None
        if not rules.weighted and vote.weight != WEIGHT_ONE:
            return None
        return vote

    def _contributions(self, ballot: bytes) -> Contributions | None:
        """Returns what a ballot adds to each option, None if it is invalid."""
        try:
            return self._memo[ballot]
        except KeyError:
            pass
        if len(self._memo) >= _MEMO:
            self._memo.clear()
        try:
            found: Contributions | None = tuple(self.rules.ballots.contributions(ballot))
        except InvalidBallot:
            found = None
        self._memo[ballot] = found
        return found

    def _judge_voter(
        self, batch: "_Batch", voter: bytes, vote: Vote, contributions: Contributions, voters: Voters
    ) -> AcceptedVote | RecordClass:
        rules = self.rules
        accepted = AcceptedVote(
            batch.end, voter, vote.ballot, vote.received_at, vote.weight, vote.segment, vote.nonce, NOTHING
        )
        if rules.once:
            if not voters.add(voter, batch.end.to_bytes(8, "big")):
                return RecordClass.DUPLICATE
            batch.count(accepted, contributions, rules, first=True)
            return accepted
        raw = voters.get(voter)
        if raw is None:
            self._remember(accepted, voters)
            batch.count(accepted, contributions, rules, first=True)
            return accepted
        known = _decode(raw)
        if _holds(known.nonces, vote.nonce):
            return RecordClass.DUPLICATE
        if len(known.nonces) // NONCE_BYTES >= (MAX_REVOTES if rules.last else rules.quota):
            return RecordClass.QUOTA
        if rules.last:
            accepted = accepted._replace(supersedes=known.offset)
            batch.withdraw(known.weight, known.segment, self._contributions(known.ballot) or (), rules)
        self._remember(accepted, voters, known)
        batch.count(accepted, contributions, rules, first=False)
        return accepted

    def _remember(self, vote: AcceptedVote, voters: Voters, known: _Known | None = None) -> None:
        if self.rules.once:
            voters.put(vote.voter, vote.offset.to_bytes(8, "big"))
            return
        if known is None and (raw := voters.get(vote.voter)) is not None:
            known = _decode(raw)
        nonces = (known.nonces if known else b"") + vote.nonce
        voters.put(vote.voter, _encode(_Known(vote.offset, vote.ballot, vote.weight, vote.segment, nonces)))


class _Plain(NamedTuple):
    """Votes for which it only remains to judge who has voted already, and their voters."""

    voters: Sequence[bytes]
    votes: VoteColumns


class _Decided(NamedTuple):
    """The decisions on the records up to `end`."""

    end: int
    accepted: Sequence[AcceptedVote]
    others: Sequence[tuple[int, int]]
    state: State


class _Batch:
    """The decisions on one block up to now."""

    def __init__(self, state: State, base: int) -> None:
        self.base = base
        self.end = base
        self.accepted: list[AcceptedVote] = []
        self.others: list[tuple[int, int]] = []
        self.closed_at = state.closed_at
        self._tallies = list(state.tallies)
        self._classes = list(state.classes)
        self._voters = state.voters

    def count(self, vote: AcceptedVote, contributions: Contributions, rules: Rules, *, first: bool) -> None:
        self._classes[RecordClass.ACCEPTED] += 1
        self._voters += first
        for option, units in contributions:
            self._tallies[option * rules.segments + vote.segment] += units * vote.weight

    def withdraw(self, weight: int, segment: int, contributions: Contributions, rules: Rules) -> None:
        self._classes[RecordClass.SUPERSEDED] += 1
        for option, units in contributions:
            self._tallies[option * rules.segments + segment] -= units * weight

    def other(self, code: RecordClass) -> None:
        self.others.append((self.end, code))
        self._classes[code] += 1

    def state(self) -> State:
        return State(tuple(self._tallies), tuple(self._classes), self._voters, self.closed_at)


def _packed(offsets: Sequence[int]) -> list[bytes]:
    """Returns the offsets in the form in which `once` remembers them."""
    packed = array("Q", offsets)
    if sys.byteorder == "little":
        packed.byteswap()
    return split(packed.tobytes(), 8, len(offsets))


def _first_offsets(block: Block) -> Iterable[tuple[bytes, bytes]]:
    """Returns what `once` remembers of this block's voters."""
    offsets, voters, *_ = AcceptedVotes.of(block.accepted).columns
    return zip(voters, _packed(offsets), strict=True)


def _fitting(votes: VoteColumns, budget: int) -> int:
    """Returns how many of these votes are sure to fit into a block of `budget` bytes; at least one.

    A column takes one value if all are the same, otherwise the width of its greatest value per vote; times are
    kept relative to one of them.
    """
    ballots, received, weights, segments, nonces = votes
    times = max(received) - min(received)
    fixed = 2 + VOTER_BYTES + (1 if times < 1 << 7 else 2 if times < 1 << 15 else 4 if times < 1 << 31 else 8)
    for column, width in ((map(len, ballots), 2), (weights, 8), (segments, 2), (map(len, nonces), 1)):
        fixed += width if len(set(column)) > 1 else 0
    if fixed * len(ballots) + sum(map(len, ballots)) + sum(map(len, nonces)) <= budget:
        return len(ballots)
    return max(1, budget // (fixed + max(map(len, ballots)) + max(map(len, nonces))))


def _judge_control(batch: _Batch, value: bytes | None) -> RecordClass:
    try:
        decode_marker(value)
    except Malformed:
        return RecordClass.MALFORMED
    if batch.closed_at == NOTHING:
        batch.closed_at = batch.end
    return RecordClass.CONTROL


def _holds(nonces: bytes, nonce: bytes) -> bool:
    """Returns whether this nonce is in the concatenation, on a boundary."""
    at = nonces.find(nonce)
    while at != -1 and at % NONCE_BYTES:
        at = nonces.find(nonce, at + 1)
    return at != -1
