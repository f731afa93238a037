"""Compares one partition, record by record: what the log says with what the ledger's blocks say. Pure.

A difference is reported once, where it is: the walk goes on after it, and what merely follows from it is not
reported again. So a deleted block is one `missing-block`, not thousands of unknown votes, and figures that are
wrong from some block on are reported at that block.

============================ ====================================================================
kind                         at this offset
============================ ====================================================================
`missing-block`              the chain has a hole that begins here (or ends here, before the log)
`overlap`                    a block begins inside the previous one
`extra-block`                a block begins after the end of the log
`malformed-block`            a block's bytes, partition, base or length make no sense
`chain-broken`               this block names another hash than that of the previous block
`accepted-differs`           this accepted vote is not the one in the log
`class-differs`              this record has another class than by the log, or not exactly one
`digest-differs`             the record digests of the block that begins here do not fit the log
`tallies-differ`, `classes-  the cumulative state of the block that begins here is wrong, although
differ`, `voters-differ`,    its records are right
`closed-differs`
`log-gap`, `log-truncated`   the log no longer holds this offset
`no-marker`                  the log ends here, sealed, without a close marker
============================ ====================================================================
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import NamedTuple

from psephos.formats.blocks import (
    MAX_RECORDS,
    NOTHING,
    AcceptedVote,
    Block,
    RecordClass,
    State,
    block_hash,
    decode_block,
)
from psephos.formats.errors import Malformed
from psephos.formats.votes import record_digest, records_digest
from psephos.roles.recount.examine import Examiner, RecordRules
from psephos.roles.recount.verdicts import MAX_DIFFERENCES, Difference, Verdict

Entry = AcceptedVote | int


class LogRecord(NamedTuple):
    """A raw record of the votes topic."""

    offset: int
    key: bytes | None
    value: bytes | None


class Chain(NamedTuple):
    """The start of a partition's chain: the session's uid, the partition, the hash of the genesis."""

    session: str
    partition: int
    genesis: bytes


class Found(NamedTuple):
    """The findings of a comparison: the verdict without its patterns' hash, and the counted ballots."""

    verdict: Verdict
    patterns: dict[bytes, int]


def compare(
    rules: RecordRules,
    chain: Chain,
    records: Iterable[LogRecord],
    blocks: Iterable[tuple[int, bytes]],
    end: int,
    *,
    closed: bool = True,
) -> Found:
    """Reads the records [0, end) and the partition's blocks as (base, bytes), both in order.

    `closed`: the session is sealed at `end`, so there must be a marker in the log.
    """
    comparison = _Comparison(rules, chain, iter(records), end)
    for base, payload in blocks:
        comparison.take(base, payload)
    return comparison.finish(closed)


class _Span(NamedTuple):
    """The records of one block as the log has them."""

    accepted: Sequence[AcceptedVote]
    others: list[tuple[int, int]]
    records_digest: bytes
    last_digest: bytes


class _Drift(NamedTuple):
    """The amount by which the ledger's cumulative state is off. While it stays the same, nothing new is wrong."""

    tallies: tuple[int, ...] | str
    classes: tuple[int, ...] | str
    voters: int
    closed: tuple[int, int] | None


_IN_STEP = _Drift((), (), 0, None)


class _Comparison:
    def __init__(self, rules: RecordRules, chain: Chain, records: Iterator[LogRecord], end: int) -> None:
        self._examiner = Examiner(rules, chain.partition)
        self._chain = chain
        self._records = records
        self._end = end
        self._ahead: list[LogRecord] = []  # read already, after a gap
        self._read = 0  # the next offset of the log
        self._covered = 0  # where the next block must begin
        self._hole_told = False  # the previous block exists, but can't be read: its end is unknown
        self._head = chain.genesis
        self._drift = _IN_STEP
        self._differences: list[Difference] = []
        self._count = 0

    # --- The walk

    def take(self, base: int, payload: bytes) -> None:
        """Takes the next block of the ledger, in order of base."""
        if base >= self._end:
            self._tell(base, "extra-block", "the log ends before")
            return
        if base < self._covered:
            self._tell(base, "overlap", f"the block before ends at {self._covered}")
            return
        follows = base == self._covered
        if not follows and not self._hole_told:
            self._tell(self._covered, "missing-block", f"the next block begins at {base}")
        block = self._decode(base, payload)
        self._span(base)  # records of a hole still count
        if block is None:
            self._head, self._covered, self._hole_told = block_hash(payload), base, True
            return
        if follows and block.previous != self._head:
            self._tell(base, "chain-broken", "another hash than that of the block before")
        self._head, self._covered, self._hole_told = block_hash(payload), block.end, False
        self._compare(block)

    def finish(self, closed: bool) -> Found:
        """Reads what no block covers, and returns the findings."""
        if self._covered < self._end and not self._hole_told:
            self._tell(self._covered, "missing-block", f"the ledger ends here, the log at {self._end}")
        self._span(self._end)
        if self._read < self._end:
            self._tell(self._read, "log-truncated", f"the log should go on to {self._end}")
        state = self._examiner.state()
        if closed and state.closed_at == NOTHING:
            self._tell(self._end, "no-marker", "sealed, but no close marker stands in the log")
        verdict = Verdict(
            partition=self._chain.partition,
            end=self._end,
            log_end=self._read,
            records=state.records,
            tallies=state.tallies,
            classes=state.classes,
            voters=state.voters,
            closed_at=state.closed_at,
            head=self._head.hex(),
            differences=tuple(self._differences),
            difference_count=self._count,
            patterns="",
        )
        return Found(verdict, self._examiner.patterns)

    def _decode(self, base: int, payload: bytes) -> Block | None:
        try:
            block = decode_block(payload)
        except Malformed as error:
            self._tell(base, "malformed-block", str(error))
            return None
        problem = self._problem(block, base)
        if problem is not None:
            self._tell(base, "malformed-block", problem)
            return None
        return block

    def _problem(self, block: Block, base: int) -> str | None:
        if (block.session, block.partition) != (self._chain.session, self._chain.partition):
            return f"belongs to session {block.session}, partition {block.partition}"
        if block.base != base:
            return f"says that it begins at {block.base}"
        if not 0 < block.end - base <= MAX_RECORDS:
            return f"covers {block.end - base} records; allowed are 1 to {MAX_RECORDS}"
        if block.end > self._end:
            return f"ends at {block.end}, the log at {self._end}"
        return None

    def _span(self, end: int) -> _Span:
        """Reads the log up to `end` and decides each record."""
        records = self._take(end)
        if not records:
            return _Span((), [], hashlib.sha256().digest(), b"")
        accepted: list[Sequence[AcceptedVote]] = []
        others: list[tuple[int, int]] = []
        for run in _runs(records):
            first = run[0].offset
            if first != self._read:
                self._tell(self._read, "log-gap", f"the next record is at {first}")
            found = self._examiner.examine_run(first, [key for _, key, _ in run], [value for *_, value in run])
            accepted.append(found.accepted)
            others += found.others
            self._read = first + len(run)
        _, key, value = records[-1]
        return _Span(
            accepted[0] if len(accepted) == 1 else [*chain.from_iterable(accepted)],
            others,
            records_digest([key for _, key, _ in records], [value for *_, value in records]),
            record_digest(key, value) if self._read == end else b"",
        )

    def _take(self, end: int) -> list[LogRecord]:
        """Takes the records below `end` that have not been taken yet."""
        wanted = max(0, end - self._read)  # there can't be more of them
        taken = self._ahead[:wanted]
        taken += islice(self._records, wanted - len(taken))
        self._ahead = self._ahead[wanted:]
        below = bisect_left(taken, end, key=_offset)
        self._ahead = taken[below:] + self._ahead
        return taken[:below]

    # --- One block

    def _compare(self, block: Block) -> None:
        span = self._span(block.end)
        if self._read < block.end:
            return  # the log is cut off here: reported once, by `finish`
        before = self._count
        if span.accepted != block.accepted or span.others != block.others:
            self._compare_entries(block, span)
        if (span.records_digest, span.last_digest) != (block.records_digest, block.last_record_digest):
            self._tell(block.base, "digest-differs", "of the records that this block covers")
        drift = _drift(self._examiner.state(), block.state)
        if self._count == before:
            self._compare_state(block.base, drift)
        self._drift = drift

    def _compare_entries(self, block: Block, span: _Span) -> None:
        ours = _by_offset(span.accepted, span.others)
        theirs = _by_offset(block.accepted, block.others)
        before = self._count
        for offset in sorted(ours.keys() | theirs.keys()):
            mine, found = ours.get(offset, []), theirs.get(offset, [])
            if mine != found:
                self._tell(offset, *_entry_difference(mine, found))
        if self._count == before:
            self._tell(block.base, "malformed-block", "its entries are not in the order of their offsets")

    def _compare_state(self, base: int, drift: _Drift) -> None:
        kinds = ("tallies-differ", "classes-differ", "voters-differ", "closed-differs")
        for kind, now, before in zip(kinds, drift, self._drift, strict=True):
            if now != before:
                self._tell(base, kind, "the cumulative state does not follow from the records")

    def _tell(self, offset: int, kind: str, detail: str) -> None:
        self._count += 1
        if len(self._differences) < MAX_DIFFERENCES:
            self._differences.append(Difference(self._chain.partition, offset, kind, detail))


def _runs(records: list[LogRecord]) -> Iterator[list[LogRecord]]:
    """Yields the records in runs, split where offsets are missing between two of them."""
    first = records[0].offset
    if [record.offset for record in records] == list(range(first, first + len(records))):
        yield records
        return
    for _, run in groupby(enumerate(records), lambda placed: placed[1].offset - placed[0]):
        yield [record for _, record in run]


_offset = attrgetter("offset")


def _by_offset(accepted: Sequence[AcceptedVote], others: Sequence[tuple[int, int]]) -> dict[int, list[Entry]]:
    entries: dict[int, list[Entry]] = {}
    for vote in accepted:
        entries.setdefault(vote.offset, []).append(vote)
    for offset, code in others:
        entries.setdefault(offset, []).append(code)
    return entries


def _entry_difference(mine: list[Entry], found: list[Entry]) -> tuple[str, str]:
    """Returns kind and detail. They name fields, never their content."""
    if not mine:
        return "class-differs", "no record of this block"
    if len(found) != 1:
        return "class-differs", f"the ledger has {len(found)} entries for this record"
    ours, theirs = mine[0], found[0]
    if isinstance(ours, AcceptedVote) and isinstance(theirs, AcceptedVote):
        fields = zip(AcceptedVote._fields, ours, theirs, strict=True)
        return "accepted-differs", ", ".join(name for name, own, other in fields if own != other)
    return "class-differs", f"{_class_name(ours)} by the log, {_class_name(theirs)} in the ledger"


def _class_name(entry: Entry) -> str:
    code = RecordClass.ACCEPTED if isinstance(entry, AcceptedVote) else RecordClass(entry)
    return code.name.lower().replace("_", "-")


def _drift(ours: State, theirs: State) -> _Drift:
    closed = None if ours.closed_at == theirs.closed_at else (ours.closed_at, theirs.closed_at)
    return _Drift(
        _delta(ours.tallies, theirs.tallies),
        _delta(ours.classes, theirs.classes),
        theirs.voters - ours.voters,
        closed,
    )


def _delta(ours: Sequence[int], theirs: Sequence[int]) -> tuple[int, ...] | str:
    """Returns the differences value by value, empty if equal."""
    if tuple(ours) == tuple(theirs):
        return ()
    if len(ours) != len(theirs):
        return f"{len(theirs)} values instead of {len(ours)}"
    return tuple(other - own for own, other in zip(ours, theirs, strict=True))
