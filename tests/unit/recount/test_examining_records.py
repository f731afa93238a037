"""What becomes of each record, by the recount's own reading: compared with the reference, and with the tally."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.reference import Record, decide, make_session, patterns_of, state_of

from psephos.domain.ballots import MAX_REVOTES
from psephos.domain.session import Session
from psephos.formats.blocks import NOTHING, AcceptedVote, RecordClass, State
from psephos.formats.votes import MARKER_KEY, WEIGHT_ONE, encode_marker, encode_vote, nonce_of, partition_of
from psephos.roles.recount.examine import Examiner, RecordRules, merge_patterns
from psephos.roles.tally.decide import Head, Judge, Rules

PARTITIONS = 2
VOTERS = [number.to_bytes(8, "big") + b"voter-00" for number in range(0, 8, 2)]  # all of partition 0
ELSEWHERE = (1).to_bytes(8, "big") + b"voter-01"
ADA, BOB, BOTH, BLANK = b"\x00\x00", b"\x00\x01", b"\x00\x00\x00\x01", b""

SESSIONS = [
    make_session(),
    make_session(voters={"votesPerVoter": 3}),
    make_session(voters={"revote": "last"}),
    make_session(voters={"revote": "last"}, segments=("no", "se"), weighted=True),
    make_session(segments=("no", "se"), weighted=True),
]

votes = st.builds(
    lambda voter, ballot, weight, segment, key: (
        voter,
        encode_vote(ballot, 1_700_000_000_000, weight, segment, nonce_of(voter, key) if key else b""),
    ),
    st.sampled_from([*VOTERS, ELSEWHERE, b"short"]),
    st.sampled_from([ADA, BOB, BOTH, BLANK, b"\x00\x07", b"\x00", BOTH + ADA]),
    st.sampled_from([WEIGHT_ONE, WEIGHT_ONE, 2_500_000]),
    st.sampled_from([0, 0, 1, 2, 3]),
    st.sampled_from(["", "a", "b", "c", "d", "e"]),
)
poison = st.tuples(st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=40))
markers = st.sampled_from([(MARKER_KEY, encode_marker(1)), (MARKER_KEY, b"no marker"), (MARKER_KEY, None)])
logs = st.lists(votes | votes | votes | votes | poison | markers, max_size=60)


def examined(session: Session, records: Sequence[Record]) -> tuple[Examiner, list[Any]]:
    examiner = Examiner(RecordRules.of(session, PARTITIONS), 0)
    return examiner, [examiner.examine(offset, *record) for offset, record in enumerate(records)]


def classes(session: Session, *records: Record) -> list[str]:
    found = examined(session, records)[1]
    return [
        "accepted" if isinstance(entry, AcceptedVote) else entry.name.lower().replace("_", "-") for entry in found
    ]


def vote(ballot: bytes = ADA, voter: bytes = VOTERS[0], key: str = "", **fields: Any) -> Record:
    return voter, encode_vote(ballot, 1, nonce=nonce_of(voter, key) if key else b"", **fields)


@pytest.mark.parametrize("session", SESSIONS, ids=["first", "quota", "last", "last-weighted", "first-weighted"])
@given(records=logs)
def test_each_record_is_what_the_reference_says(session: Session, records: list[Record]) -> None:
    examiner, found = examined(session, records)
    entries = decide(session, PARTITIONS, 0, records)
    assert found == entries
    assert examiner.state() == state_of(session, entries)
    assert examiner.patterns == patterns_of(entries)


class _Voters(dict[bytes, bytes]):
    def put(self, voter: bytes, value: bytes, /) -> None:
        self[voter] = value

    def add(self, voter: bytes, value: bytes, /) -> bool:
        return self.setdefault(voter, value) is value

    def add_all(self, voters: Sequence[bytes], values: Iterable[bytes], /) -> list[bool]:
        return list(map(self.add, voters, values))

    def put_all(self, items: Sequence[tuple[bytes, bytes]], /) -> None:
        self.update(items)


@pytest.mark.parametrize("session", SESSIONS, ids=["first", "quota", "last", "last-weighted", "first-weighted"])
@given(records=logs.filter(bool))
def test_tally_and_recount_decide_alike(session: Session, records: list[Record]) -> None:
    rules = Rules.of(session, PARTITIONS)
    head = Head(b"g" * 32, 0, State.empty(rules.cells))
    block = Judge(rules, "uid", 0).block(head, records, _Voters())
    examiner, found = examined(session, records)
    assert block.accepted == [entry for entry in found if isinstance(entry, AcceptedVote)]
    assert dict(block.others) == {at: e for at, e in enumerate(found) if isinstance(e, RecordClass)}
    assert block.state == examiner.state()


def test_of_a_voter_who_may_vote_once_the_first_ballot_counts() -> None:
    assert classes(SESSIONS[0], vote(ADA), vote(BOB), vote(BOB, VOTERS[1])) == [
        "accepted",
        "duplicate",
        "accepted",
    ]


def test_a_retry_with_the_same_key_is_a_duplicate_and_not_a_further_vote() -> None:
    assert classes(SESSIONS[1], vote(key="a"), vote(key="a"), vote(key="b")) == [
        "accepted",
        "duplicate",
        "accepted",
    ]


def test_votes_beyond_the_quota_are_rejected_but_a_retry_stays_a_duplicate() -> None:
    records = [vote(key=key) for key in ("a", "b", "c", "d", "a")]
    assert classes(SESSIONS[1], *records) == ["accepted", "accepted", "accepted", "quota", "duplicate"]


def test_under_last_a_later_ballot_supersedes_and_only_it_counts() -> None:
    examiner, found = examined(SESSIONS[2], [vote(ADA, key="a"), vote(BOB, key="b")])
    assert [entry.supersedes for entry in found] == [NOTHING, 0]
    assert examiner.patterns == {BOB: WEIGHT_ONE}
    assert examiner.state().tallies == (0, WEIGHT_ONE, 0)
    assert examiner.state().voters == 1


def test_a_voter_may_change_their_mind_a_bounded_number_of_times() -> None:
    records = [vote(key=str(number)) for number in range(MAX_REVOTES + 1)]
    found = classes(SESSIONS[2], *records)
    assert found == ["accepted"] * MAX_REVOTES + ["quota"]


def test_a_nonce_of_a_rejected_vote_is_not_remembered() -> None:
    assert classes(SESSIONS[1], vote(b"\x00\x07", key="a"), vote(ADA, key="a")) == ["invalid-ballot", "accepted"]


def test_behind_the_first_marker_everything_without_a_markers_key_is_late() -> None:
    marker = (MARKER_KEY, encode_marker(5))
    records = [vote(), marker, vote(BOB, VOTERS[1]), (None, None), (MARKER_KEY, b""), marker]
    examiner, _ = examined(SESSIONS[0], records)
    assert classes(SESSIONS[0], *records) == ["accepted", "control", "late", "late", "malformed", "control"]
    assert examiner.closed_at == 1


@pytest.mark.parametrize(
    "record",
    [
        vote(voter=ELSEWHERE),
        vote(voter=b"fifteen bytes.."),
        vote(weight=2 * WEIGHT_ONE),
        vote(segment=1),
        (VOTERS[0], b"\x00"),
        (VOTERS[0], None),
        (None, vote()[1]),
        (MARKER_KEY, b"not a marker"),
    ],
    ids=["partition", "key", "weight", "segment", "bytes", "no value", "no key", "marker"],
)
def test_a_record_that_no_ingest_writes_is_malformed(record: Record) -> None:
    assert classes(SESSIONS[0], record) == ["malformed"]


def test_a_vote_without_nonce_is_malformed_where_one_is_needed() -> None:
    assert classes(SESSIONS[2], vote()) == ["malformed"]


def test_voters_stand_in_the_partition_that_the_tests_believe() -> None:
    assert {partition_of(voter, PARTITIONS) for voter in VOTERS} == {0}
    assert partition_of(ELSEWHERE, PARTITIONS) == 1


def test_ballots_of_several_partitions_add_up() -> None:
    assert merge_patterns([{ADA: 1, BOB: 2}, {}, {BOB: 3}]) == {ADA: 1, BOB: 5}
