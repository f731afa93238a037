"""What becomes of each record, compared with a reference model of a few lines."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.domain.ballots import MAX_REVOTES
from psephos.domain.session import Session, parse_session
from psephos.formats.blocks import (
    MAX_BYTES,
    MAX_RECORDS,
    NOTHING,
    Block,
    RecordClass,
    State,
    block_hash,
    decode_block,
    encode_block,
)
from psephos.formats.votes import (
    MARKER_KEY,
    NONCE_BYTES,
    WEIGHT_ONE,
    encode_marker,
    encode_vote,
    partition_of,
    record_digest,
    voter_key,
)
from psephos.roles.tally.decide import Head, Judge, Record, Rules

KEY = b"k" * 32
PARTITIONS = 2
GENESIS = b"g" * 32


class MemoryVoters(dict[bytes, bytes]):
    """The store's view of one transaction, in memory."""

    def put(self, voter: bytes, value: bytes, /) -> None:
        self[voter] = value

    def add(self, voter: bytes, value: bytes, /) -> bool:
        return self.setdefault(voter, value) is value

    def add_all(self, voters: Sequence[bytes], values: Iterable[bytes], /) -> list[bool]:
        return list(map(self.add, voters, values))

    def put_all(self, items: Sequence[tuple[bytes, bytes]], /) -> None:
        self.update(items)


def session(*, segments: Sequence[str] = (), options: int = 3, maximum: int = 2, **voters: Any) -> Session:
    tokens = {"issuer": "i", "audience": "a"}
    if segments:
        tokens["segmentClaim"] = "country"
    return parse_session(
        {
            "apiVersion": "psephos.dev/v1alpha1",
            "kind": "VotingSession",
            "metadata": {"name": "test"},
            "spec": {
                "ballot": {
                    "type": "approval", "min": 0, "max": maximum,
                    "options": [{"id": f"o{n}", "label": f"O{n}"} for n in range(options)],
                },
                "voters": {"tokens": tokens, "segments": list(segments), **voters},
            },
        }
    )  # fmt: skip


SUBJECTS = [
    name for name in (f"voter-{n}" for n in range(40)) if partition_of(voter_key(KEY, name), PARTITIONS) == 0
]
ELSEWHERE = next(
    voter_key(KEY, f"voter-{n}") for n in range(40) if partition_of(voter_key(KEY, f"voter-{n}"), PARTITIONS) == 1
)


def voter(number: int) -> bytes:
    return voter_key(KEY, SUBJECTS[number])


def ballot_of(*options: int) -> bytes:
    return b"".join(option.to_bytes(2, "big") for option in options)


def vote(number: int, *options: int, nonce: int = 0, segment: int = 0) -> Record:
    return voter(number), encode_vote(
        ballot_of(*options), 1_000, WEIGHT_ONE, segment, nonce.to_bytes(16, "big") if nonce else b""
    )


MARKER: Record = (MARKER_KEY, encode_marker(5))


def judge_all(
    judge: Judge, records: Sequence[Record], voters: MemoryVoters, cuts: Sequence[int] = ()
) -> list[Block]:
    """Blocks over all records, cut at these offsets."""
    head = Head(GENESIS, 0, State.empty(judge.rules.cells))
    blocks = []
    for start, end in pairwise([0, *cuts, len(records)]):
        while head.end < end:
            block = judge.block(head, records[head.end : end], voters)
            head = Head(block_hash(encode_block(block)), block.end, block.state)
            blocks.append(block)
        assert head.end == end >= start
    return blocks


def judge_of(a_session: Session) -> Judge:
    return Judge(Rules.of(a_session, PARTITIONS), "uid", 0)


def classes_of(blocks: Sequence[Block]) -> list[RecordClass | None]:
    return [block.class_at(offset) for block in blocks for offset in range(block.base, block.end)]


ONCE = session()
THRICE = session(votesPerVoter=3)
LAST = session(revote="last")


def test_the_first_ballot_of_a_voter_counts_and_later_ones_are_duplicates() -> None:
    blocks = judge_all(judge_of(ONCE), [vote(0, 1), vote(1, 1), vote(0, 2)], MemoryVoters())
    assert classes_of(blocks) == [RecordClass.ACCEPTED, RecordClass.ACCEPTED, RecordClass.DUPLICATE]
    assert blocks[-1].state.tallies == (0, 2 * WEIGHT_ONE, 0)
    assert blocks[-1].state.voters == 2


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ((None, vote(0, 1)[1]), RecordClass.MALFORMED),
        ((b"", vote(0, 1)[1]), RecordClass.MALFORMED),
        ((b"x" * 17, vote(0, 1)[1]), RecordClass.MALFORMED),
        ((ELSEWHERE, vote(0, 1)[1]), RecordClass.MALFORMED),
        ((voter(0), None), RecordClass.MALFORMED),
        ((voter(0), b"\xc1garbage"), RecordClass.MALFORMED),
        (vote(0, 1, segment=1), RecordClass.MALFORMED),
        ((voter(0), encode_vote(b"\x00\x01", 1, 2 * WEIGHT_ONE)), RecordClass.MALFORMED),
        ((MARKER_KEY, b"no marker"), RecordClass.MALFORMED),
        ((voter(0), encode_vote(b"\x00" * 900_000, 1)), RecordClass.INVALID_BALLOT),
        (vote(0, 7), RecordClass.INVALID_BALLOT),
        (vote(0, 0, 1, 2), RecordClass.INVALID_BALLOT),
        (vote(0, 1, 0), RecordClass.INVALID_BALLOT),
        (MARKER, RecordClass.CONTROL),
    ],
)
def test_a_poison_record_gets_its_class_and_the_next_vote_still_counts(
    record: Record, expected: RecordClass
) -> None:
    after = vote(1, 1)
    blocks = judge_all(judge_of(ONCE), [record, after], MemoryVoters())
    behind = RecordClass.LATE if expected is RecordClass.CONTROL else RecordClass.ACCEPTED
    assert classes_of(blocks) == [expected, behind]


def test_behind_the_first_marker_everything_is_late_but_further_markers() -> None:
    records = [vote(0, 1), MARKER, vote(1, 1), MARKER, (None, None), (MARKER_KEY, b"bad")]
    blocks = judge_all(judge_of(ONCE), records, MemoryVoters(), cuts=[2, 4])
    assert classes_of(blocks) == [
        RecordClass.ACCEPTED, RecordClass.CONTROL, RecordClass.LATE, RecordClass.CONTROL, RecordClass.LATE,
        RecordClass.MALFORMED,
    ]  # fmt: skip
    assert blocks[-1].state.closed_at == 1


def test_a_quota_counts_distinct_nonces_and_a_retry_is_a_duplicate() -> None:
    records = [vote(0, 1, nonce=n) for n in (1, 2, 1, 3, 4, 2)]
    blocks = judge_all(judge_of(THRICE), records, MemoryVoters())
    assert [code.name for code in classes_of(blocks) if code is not None] == [
        "ACCEPTED", "ACCEPTED", "DUPLICATE", "ACCEPTED", "QUOTA", "DUPLICATE",
    ]  # fmt: skip
    assert blocks[-1].state.tallies[1] == 3 * WEIGHT_ONE


def test_the_last_ballot_supersedes_and_a_late_retry_of_an_old_one_does_not() -> None:
    blocks = judge_all(
        judge_of(LAST), [vote(0, 1, nonce=1), vote(0, 2, nonce=2), vote(0, 1, nonce=1)], MemoryVoters()
    )
    assert blocks[-1].state.tallies == (0, 0, WEIGHT_ONE)
    assert [each.supersedes for each in blocks[0].accepted] == [NOTHING, 0]
    assert blocks[-1].state.classes[RecordClass.SUPERSEDED] == 1
    assert blocks[-1].state.voters == 1


def test_a_vote_without_a_nonce_is_malformed_where_one_is_needed() -> None:
    assert classes_of(judge_all(judge_of(LAST), [vote(0, 1)], MemoryVoters())) == [RecordClass.MALFORMED]


def test_revotes_are_bounded() -> None:
    records = [vote(0, 1, nonce=n) for n in range(1, MAX_REVOTES + 2)]
    assert classes_of(judge_all(judge_of(LAST), records, MemoryVoters()))[-1] is RecordClass.QUOTA


def test_segments_have_tallies_of_their_own() -> None:
    a_session = session(segments=["no", "se"])
    blocks = judge_all(judge_of(a_session), [vote(0, 0, segment=0), vote(1, 0, segment=2)], MemoryVoters())
    assert blocks[-1].state.tallies[:3] == (WEIGHT_ONE, 0, WEIGHT_ONE)


def test_a_block_is_cut_at_its_most_records_and_at_its_most_bytes() -> None:
    wide = session(options=1000, maximum=1000)
    everything = b"".join(n.to_bytes(2, "big") for n in range(1000))
    records = [(voter(n % 10), encode_vote(everything, 1_000)) for n in range(10)] * 100
    fat = judge_of(session(options=1000, maximum=1000, votesPerVoter=1000))
    nonced = [
        (key, encode_vote(everything, 1, nonce=n.to_bytes(16, "big"))) for n, (key, _) in enumerate(records, 1)
    ]
    blocks = judge_all(fat, nonced, MemoryVoters())
    assert len(blocks) > 1
    assert max(len(encode_block(block)) for block in blocks) <= MAX_BYTES
    many = judge_all(judge_of(wide), [vote(0)] * (MAX_RECORDS + 1), MemoryVoters())
    assert [block.end - block.base for block in many] == [MAX_RECORDS, 1]


voters_and_ballots = st.tuples(st.integers(0, 5), st.sets(st.integers(0, 3), max_size=3), st.integers(1, 4))


def reference(a_session: Session, votes: Sequence[tuple[int, set[int], int]]) -> tuple[Counter[int], int]:
    """Counted ballots of each voter by the plainest rules: (votes an option, accepted records)."""
    counted: dict[int, dict[int, set[int]]] = {}
    accepted = 0
    for who, options, nonce in votes:
        if len(options) > 2 or 3 in options:
            continue
        mine = counted.setdefault(who, {})
        limit = MAX_REVOTES if a_session.spec.voters.revote == "last" else a_session.spec.voters.votes_per_voter
        if nonce in mine or len(mine) >= limit:
            continue
        mine[nonce] = options
        accepted += 1
    tallies: Counter[int] = Counter()
    for mine in counted.values():
        ballots = list(mine.values())
        for options in ballots[-1:] if a_session.spec.voters.revote == "last" else ballots:
            tallies.update(options)
    return tallies, accepted


@pytest.mark.parametrize("a_session", [ONCE, THRICE, LAST], ids=["first", "quota", "last"])
@given(votes=st.lists(voters_and_ballots, max_size=60), cuts=st.sets(st.integers(0, 60), max_size=5))
def test_totals_equal_the_reference_however_the_log_is_cut(
    a_session: Session, votes: list[tuple[int, set[int], int]], cuts: set[int]
) -> None:
    records = [vote(who, *sorted(options), nonce=nonce) for who, options, nonce in votes]
    where = sorted(cut for cut in cuts if cut <= len(records))
    blocks = judge_all(judge_of(a_session), records, MemoryVoters(), where)
    state = blocks[-1].state if blocks else State.empty(3)
    tallies, accepted = reference(a_session, votes)
    assert state.tallies == tuple(tallies[option] * WEIGHT_ONE for option in range(3))
    assert state.classes[RecordClass.ACCEPTED] == accepted
    assert state.records == len(records)


@pytest.mark.parametrize("a_session", [ONCE, THRICE, LAST], ids=["first", "quota", "last"])
@given(votes=st.lists(voters_and_ballots, min_size=1, max_size=60), cut=st.integers(0, 60))
def test_a_store_built_from_blocks_equals_the_one_that_decided(
    a_session: Session, votes: list[tuple[int, set[int], int]], cut: int
) -> None:
    records = [vote(who, *sorted(options), nonce=nonce) for who, options, nonce in votes]
    live, rebuilt = MemoryVoters(), MemoryVoters()
    blocks = judge_all(judge_of(a_session), records, live, [min(cut, len(records))])
    judge_of(a_session).apply([decode_block(encode_block(block)) for block in blocks], rebuilt)
    assert rebuilt == live


sound_votes = st.tuples(
    st.integers(0, 9),
    st.sets(st.integers(0, 2), max_size=2),
    st.sampled_from([1_000, 1_001, 70_000]),
    st.sampled_from([WEIGHT_ONE, 3]),
    st.integers(0, 2),
    st.sampled_from([b"", b"n" * NONCE_BYTES]),
)


@given(votes=st.lists(sound_votes, min_size=1, max_size=60), cut=st.integers(0, 60))
def test_votes_judged_by_columns_give_the_block_that_they_give_one_by_one(votes: list[Any], cut: int) -> None:
    rules = replace(Rules.of(session(segments=["no", "se"]), PARTITIONS), weighted=True)
    records: list[Record] = [
        (voter(who), encode_vote(ballot_of(*sorted(options)), at, weight, segment, nonce))
        for who, options, at, weight, segment, nonce in votes
    ]
    by_columns, one_by_one = Judge(rules, "uid", 0), OneByOne(rules, "uid", 0)
    assert by_columns._plain(Head(GENESIS, 0, State.empty(rules.cells)), *map(list, zip(*records, strict=True)))
    stores = MemoryVoters(), MemoryVoters()
    cuts = [min(cut, len(records))]
    blocks = judge_all(by_columns, records, stores[0], cuts), judge_all(one_by_one, records, stores[1], cuts)
    assert list(map(encode_block, blocks[0])) == list(map(encode_block, blocks[1]))
    assert stores[0] == stores[1]


class OneByOne(Judge):
    """Judges no records by columns."""

    def _plain(self, *_: object) -> None:
        return None


def test_a_block_of_the_greatest_votes_stays_within_its_bounds() -> None:
    a_session = session(options=200, maximum=200)
    greatest = [
        (voter(number % 10), encode_vote(ballot_of(*range(200)), number << 30, nonce=bytes([number % 7]) * 16))
        for number in range(1_000)
    ]
    distinct = [(PARTITIONS * number).to_bytes(8, "big") + bytes(8) for number in range(1_000)]
    records: list[Record] = [(key, value) for key, (_, value) in zip(distinct, greatest, strict=True)]
    blocks = judge_all(judge_of(a_session), records, MemoryVoters())
    assert blocks[-1].state.classes[RecordClass.ACCEPTED] == len(records)
    assert all(len(encode_block(block)) <= MAX_BYTES for block in blocks)
    assert len(blocks) < 4


def test_a_block_covers_its_records_by_digest() -> None:
    records = [vote(0, 1), vote(1, 1)]
    block = judge_all(judge_of(ONCE), records, MemoryVoters())[0]
    other = judge_all(judge_of(ONCE), [vote(0, 2), vote(1, 1)], MemoryVoters())[0]
    assert block.last_record_digest == record_digest(*records[-1]) == other.last_record_digest
    assert block.records_digest != other.records_digest
