"""Decides each record again, in the order of judgement of docs/architecture.md, section 2.

Nothing here may be shared with the tally's decisions: two readers that agree are worth something only if they
do not read through the same eyes. Pure: from the records alone, in log order.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

from psephos.domain.ballots import MAX_REVOTES, BallotRules, InvalidBallot
from psephos.domain.ballots.rules import Contributions
from psephos.domain.session import Session
from psephos.formats.blocks import NOTHING, AcceptedVote, AcceptedVotes, RecordClass, State
from psephos.formats.errors import Malformed
from psephos.formats.votes import (
    MARKER_KEY,
    VOTER_BYTES,
    WEIGHT_ONE,
    Vote,
    VoteColumns,
    all_of_partition,
    decode_marker,
    decode_vote,
    decode_votes,
    partition_of,
)


@dataclass(frozen=True)
class RecordRules:
    """The rules on which a record's class depends besides the records. segments: at least 1."""

    ballots: BallotRules
    partitions: int
    options: int
    segments: int
    weighted: bool
    nonce_needed: bool
    revote: str
    allowance: int

    @classmethod
    def of(cls, session: Session, partitions: int) -> "RecordRules":
        voters = session.spec.voters
        return cls(
            ballots=BallotRules.of(session),
            partitions=partitions,
            options=len(session.option_ids),
            segments=len(session.segment_names) or 1,
            weighted=session.weighted,
            nonce_needed=session.needs_idempotency_key,
            revote=voters.revote,
            allowance=MAX_REVOTES if voters.revote == "last" else voters.votes_per_voter,
        )


class Examined(NamedTuple):
    """The decisions on consecutive records, as a block must list them."""

    accepted: Sequence[AcceptedVote]
    others: list[tuple[int, int]]


class Examiner:
    """Reads one partition from offset 0 on; keeps what the log alone says about it.

    `patterns`: counted ballots, canonical bytes to summed weight in millionths, without superseded ones.
    """

    def __init__(self, rules: RecordRules, partition: int) -> None:
        self.patterns: dict[bytes, int] = {}
        self.closed_at = NOTHING
        self._rules = rules
        self._partition = partition
        self._tallies = [0] * (rules.options * rules.segments)
        self._classes = [0] * len(RecordClass)
        self._contributions: dict[bytes, Contributions] = {}
        self._once = rules.revote == "first" and rules.allowance == 1
        self._voted: set[bytes] = set()  # `_once` only: a second vote is a duplicate, whatever its nonce
        self._nonces: dict[bytes, tuple[bytes, ...]] = {}  # otherwise: nonces of accepted votes, by voter
        self._counted: dict[bytes, AcceptedVote] = {}  # `last` only: the vote that counts, by voter

    def examine(self, offset: int, key: bytes | None, value: bytes | None) -> AcceptedVote | RecordClass:
        """Returns the vote as a block must list it if it is accepted, otherwise the record's class."""
        found = self._decide(offset, key, value)
        self._classes[RecordClass.ACCEPTED if isinstance(found, AcceptedVote) else found] += 1
        return found

    def examine_run(self, offset: int, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Examined:
        """As `examine`, for consecutive records from `offset` on.

        If all of them are valid votes and each voter has one vote, by columns: a quarter of the cost.
        """
        voters, votes = self._only_votes(keys, values)
        if votes is not None:
            return self._admit_all(offset, voters, votes)
        accepted: list[AcceptedVote] = []
        others: list[tuple[int, int]] = []
        for at, (key, value) in enumerate(zip(keys, values, strict=True), offset):
            found = self.examine(at, key, value)
            if isinstance(found, AcceptedVote):
                accepted.append(found)
            else:
                others.append((at, int(found)))
        return Examined(accepted, others)

    def state(self) -> State:
        """Returns the cumulative state after the records read up to now."""
        voters = len(self._voted) if self._once else len(self._nonces)
        return State(tuple(self._tallies), tuple(self._classes), voters, self.closed_at)

    def _decide(self, offset: int, key: bytes | None, value: bytes | None) -> AcceptedVote | RecordClass:
        if key == MARKER_KEY:
            return self._control(offset) if _is_marker(value) else RecordClass.MALFORMED
        if self.closed_at != NOTHING:
            return RecordClass.LATE
        vote = self._well_formed(key, value)
        if vote is None or key is None:
            return RecordClass.MALFORMED
        if not self._is_allowed(vote.ballot):
            return RecordClass.INVALID_BALLOT
        return self._admit(offset, key, vote)

    def _control(self, offset: int) -> RecordClass:
        if self.closed_at == NOTHING:
            self.closed_at = offset
        return RecordClass.CONTROL

    def _well_formed(self, key: bytes | None, value: bytes | None) -> Vote | None:
        rules = self._rules
        if key is None or len(key) != VOTER_BYTES or partition_of(key, rules.partitions) != self._partition:
            return None
        try:
            vote = decode_vote(value)
        except Malformed:
            return None
        fits = (
            vote.segment < rules.segments
            and (rules.weighted or vote.weight == WEIGHT_ONE)
            and (vote.nonce != b"" or not rules.nonce_needed)
        )
        return vote if fits else None

    def _is_allowed(self, ballot: bytes) -> bool:
        if ballot in self._contributions:
            return True
        try:
            self._contributions[ballot] = self._rules.ballots.contributions(ballot)
        except InvalidBallot:
            return False
        return True

    def _only_votes(
        self, keys: Sequence[bytes | None], values: Sequence[bytes | None]
    ) -> tuple[Sequence[bytes], VoteColumns | None]:
        """Returns the voters and their votes; None for the votes if they must be decided one by one."""
        voters = [key for key in keys if key is not None]
        if not self._once or self.closed_at != NOTHING or len(voters) < len(keys):
            return voters, None
        votes = decode_votes(values)
        if votes is None or not all_of_partition(voters, self._rules.partitions, self._partition):
            return voters, None
        fit = (
            max(votes.segments) < self._rules.segments
            and (self._rules.weighted or {*votes.weights} == {WEIGHT_ONE})
            and not (self._rules.nonce_needed and b"" in votes.nonces)
            and all(map(self._is_allowed, {*votes.ballots}))
        )
        return voters, votes if fit else None

    def _admit_all(self, offset: int, voters: Sequence[bytes], votes: VoteColumns) -> Examined:
        """Accepts the first vote of each voter; the others are duplicates."""
        known, remember = self._voted, self._voted.add
        first = [voter not in known and remember(voter) is None for voter in voters]
        offsets = range(offset, offset + len(voters))
        columns = [[*compress(column, first)] for column in (offsets, voters, *votes)]
        accepted = AcceptedVotes(*columns, [NOTHING] * len(columns[0]))  # type: ignore[arg-type, call-arg]
        code = int(RecordClass.DUPLICATE)
        others = [(at, code) for at, is_first in zip(offsets, first, strict=True) if not is_first]
        self._classes[RecordClass.ACCEPTED] += len(accepted)
        self._classes[RecordClass.DUPLICATE] += len(others)
        _, _, ballots, _, weights, segments, _, _ = accepted.columns
        for (ballot, weight, segment), number in Counter(zip(ballots, weights, segments, strict=True)).items():
            self._add(ballot, number * weight, segment)
        return Examined(accepted, others)

    def _admit(self, offset: int, voter: bytes, vote: Vote) -> AcceptedVote | RecordClass:
        """Checks the voter's nonces first, then the remaining allowance, then which vote is replaced."""
        if self._once:
            return self._admit_once(offset, voter, vote)
        nonces = self._nonces.get(voter, ())
        if nonces and vote.nonce and vote.nonce in nonces:
            return RecordClass.DUPLICATE
        if len(nonces) >= self._rules.allowance:
            return RecordClass.DUPLICATE if self._rules.allowance == 1 else RecordClass.QUOTA
        old = self._counted.get(voter)
        supersedes = NOTHING if old is None else old.offset
        accepted = AcceptedVote(
            offset, voter, vote.ballot, vote.received_at, vote.weight, vote.segment, vote.nonce, supersedes
        )
        self._nonces[voter] = (*nonces, vote.nonce)
        if old is not None:
            self._classes[RecordClass.SUPERSEDED] += 1
            self._count(old, -1)
        if self._rules.revote == "last":
            self._counted[voter] = accepted
        self._count(accepted, 1)
        return accepted

    def _admit_once(self, offset: int, voter: bytes, vote: Vote) -> AcceptedVote | RecordClass:
        if voter in self._voted:
            return RecordClass.DUPLICATE
        self._voted.add(voter)
        self._add(vote.ballot, vote.weight, vote.segment)
        return AcceptedVote(
            offset, voter, vote.ballot, vote.received_at, vote.weight, vote.segment, vote.nonce, NOTHING
        )

    def _count(self, vote: AcceptedVote, times: int) -> None:
        self._add(vote.ballot, times * vote.weight, vote.segment)

    def _add(self, ballot: bytes, weight: int, segment: int) -> None:
        for option, units in self._contributions[ballot]:
            self._tallies[option * self._rules.segments + segment] += units * weight
        summed = self.patterns.get(ballot, 0) + weight
        if summed:
            self.patterns[ballot] = summed
        else:
            del self.patterns[ballot]


def _is_marker(value: bytes | None) -> bool:
    try:
        decode_marker(value)
    except Malformed:
        return False
    return True


def merge_patterns(parts: Iterable[dict[bytes, int]]) -> dict[bytes, int]:
    """Returns the counted ballots of several partitions, summed."""
    merged: dict[bytes, int] = {}
    for part in parts:
        for ballot, weight in part.items():
            merged[ballot] = merged.get(ballot, 0) + weight
    return merged
