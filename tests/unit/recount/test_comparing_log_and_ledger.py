"""The comparison finds each tampering at its own offset, and nothing where nothing is wrong."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.reference import (
    Record,
    Stored,
    build,
    counted_twice,
    decide,
    make_session,
    patterns_of,
    rehash,
    state_of,
    stored,
    with_other_choice,
)

from psephos.domain.session import Session
from psephos.formats.blocks import Block, RecordClass, encode_block
from psephos.formats.votes import MARKER_KEY, encode_marker, encode_vote, nonce_of
from psephos.roles.recount.compare import Chain, Found, LogRecord, compare
from psephos.roles.recount.examine import RecordRules
from psephos.roles.recount.verdicts import MAX_DIFFERENCES

GENESIS = b"g" * 32
VOTERS = [number.to_bytes(8, "big") + b"voter-00" for number in range(12)]
ADA, BOB = b"\x00\x00", b"\x00\x01"
FIRST, LAST = make_session(), make_session(voters={"revote": "last"})
MARKER: Record = (MARKER_KEY, encode_marker(1))


def vote(voter: int, ballot: bytes = ADA, key: str = "k") -> Record:
    return VOTERS[voter], encode_vote(ballot, 1_700_000_000_000 + voter, nonce=nonce_of(VOTERS[voter], key))


votes = st.builds(vote, st.integers(0, 11), st.sampled_from([ADA, BOB, b"", b"\x00\x09"]), st.sampled_from("abc"))
poison = st.tuples(st.none() | st.binary(max_size=3), st.none() | st.binary(max_size=3))
logs = st.lists(votes | votes | votes | poison, min_size=1, max_size=40).map(lambda records: [*records, MARKER])
cuts = st.lists(st.integers(1, 39), max_size=6)


def chain(records: Sequence[Record], at: Sequence[int] = (), session: Session = FIRST) -> list[Block]:
    return build(session, "uid", GENESIS, 1, 0, records, [cut for cut in at if cut < len(records)])


def compared(
    records: Sequence[Record],
    blocks: Sequence[Stored],
    session: Session = FIRST,
    *,
    end: int | None = None,
    closed: bool = True,
) -> Found:
    log = [LogRecord(offset, *record) for offset, record in enumerate(records)]
    where = Chain("uid", 0, GENESIS)
    return compare(RecordRules.of(session, 1), where, log, blocks, end or len(log), closed=closed)


def told(
    records: Sequence[Record], blocks: Sequence[Stored], session: Session = FIRST
) -> list[tuple[str, int | None]]:
    return [(d.kind, d.offset) for d in compared(records, blocks, session).verdict.differences]


# --- Nothing is wrong


@pytest.mark.parametrize("session", [FIRST, LAST], ids=["first", "last"])
@given(records=logs, at=cuts)
def test_an_honest_chain_agrees_wherever_it_was_cut(
    session: Session, records: list[Record], at: list[int]
) -> None:
    found = compared(records, stored(chain(records, at, session)), session)
    entries = decide(session, 1, 0, records)
    assert found.verdict.differences == ()
    assert found.verdict.difference_count == 0
    assert found.verdict.state == state_of(session, entries)
    assert found.patterns == patterns_of(entries)
    assert found.verdict.records == found.verdict.log_end == len(records)


def test_an_empty_partition_agrees_with_an_empty_chain() -> None:
    found = compare(RecordRules.of(FIRST, 1), Chain("uid", 0, GENESIS), [], [], 0, closed=False)
    assert found.verdict.differences == ()
    assert found.verdict.head == GENESIS.hex()


def test_an_open_session_needs_no_marker() -> None:
    records = [vote(0), vote(1)]
    assert compared(records, stored(chain(records)), closed=False).verdict.differences == ()
    assert [d.kind for d in compared(records, stored(chain(records))).verdict.differences] == ["no-marker"]


# --- Each tampering, alone, at its exact offset


@given(records=logs, at=cuts, data=st.data())
def test_a_changed_choice_in_a_rehashed_chain_is_found_at_its_offset(
    records: list[Record], at: list[int], data: st.DataObject
) -> None:
    records = [vote(0), *records]
    blocks = chain(records, at)
    offsets = [accepted.offset for block in blocks for accepted in block.accepted]
    offset = data.draw(st.sampled_from(offsets))
    tampered = with_other_choice(FIRST, GENESIS, blocks, offset)
    assert told(records, stored(tampered)) == [("accepted-differs", offset)]


@given(records=logs, at=cuts, data=st.data())
def test_a_deleted_block_is_one_difference_at_its_base(
    records: list[Record], at: list[int], data: st.DataObject
) -> None:
    blocks = stored(chain(records, at))
    index = data.draw(st.integers(0, len(blocks) - 1))
    base = blocks[index][0]
    assert told(records, blocks[:index] + blocks[index + 1 :]) == [("missing-block", base)]


@given(records=logs, at=cuts, data=st.data())
def test_an_inserted_block_is_one_difference_at_its_base(
    records: list[Record], at: list[int], data: st.DataObject
) -> None:
    blocks = chain(records, at)
    bases = {block.base for block in blocks}
    base = data.draw(st.integers(1, len(records) + 3).filter(lambda offset: offset not in bases))
    extra = blocks[-1]._replace(base=base, end=base + 1, accepted=[], others=[(base, RecordClass.DUPLICATE)])
    tampered = sorted([*stored(blocks), (base, encode_block(extra))])
    kind = "overlap" if base < len(records) else "extra-block"
    assert told(records, tampered) == [(kind, base)]


@given(records=logs, at=cuts, data=st.data())
def test_a_voter_counted_twice_is_found_although_the_chain_is_consistent(
    records: list[Record], at: list[int], data: st.DataObject
) -> None:
    records = [vote(0, ADA, "d"), *records[:-1], vote(0, BOB, "e"), MARKER]
    blocks = chain(records, at)
    twice = [offset for block in blocks for offset, code in block.others if code == RecordClass.DUPLICATE]
    offset = data.draw(st.sampled_from(twice))
    tampered = counted_twice(FIRST, GENESIS, blocks, offset, records[offset])
    assert told(records, stored(tampered)) == [("class-differs", offset)]


@given(records=logs, at=cuts, data=st.data())
def test_a_record_changed_in_the_log_is_found_in_its_block(
    records: list[Record], at: list[int], data: st.DataObject
) -> None:
    blocks = chain(records, at)
    offset = data.draw(st.integers(0, len(records) - 2))
    changed = [*records[:offset], (records[offset][0], b"another value"), *records[offset + 1 :]]
    found = told(changed, stored(blocks))
    base = max(block.base for block in blocks if block.base <= offset)
    assert ("digest-differs", base) in found


@given(records=logs, at=cuts, data=st.data())
def test_no_byte_of_a_stored_block_can_be_changed_unseen(
    records: list[Record], at: list[int], data: st.DataObject
) -> None:
    blocks = stored(chain(records, at))
    index = data.draw(st.integers(0, len(blocks) - 1))
    base, payload = blocks[index]
    place = data.draw(st.integers(0, len(payload) - 1))
    flipped = payload[:place] + bytes([payload[place] ^ data.draw(st.integers(1, 255))]) + payload[place + 1 :]
    assert told(records, [*blocks[:index], (base, flipped), *blocks[index + 1 :]]) != []


def test_figures_that_are_wrong_from_a_block_on_are_told_at_that_block_only() -> None:
    records = [vote(number) for number in range(8)] + [MARKER]
    blocks = chain(records, [2, 4, 6])

    def inflated(block: Block) -> Block:
        more = tuple(tally + 5_000_000 for tally in block.state.tallies)
        return block._replace(state=block.state._replace(tallies=more, voters=block.state.voters + 5))

    tampered = rehash([*blocks[:2], *map(inflated, blocks[2:])], GENESIS)
    assert told(records, stored(tampered)) == [("tallies-differ", 4), ("voters-differ", 4)]


def test_a_block_that_names_another_past_breaks_the_chain_there() -> None:
    records = [vote(number) for number in range(4)] + [MARKER]
    blocks = chain(records, [2, 4])
    blocks[1] = blocks[1]._replace(previous=b"x" * 32)
    assert told(records, stored([blocks[0], *rehash(blocks[1:], b"x" * 32)])) == [("chain-broken", 2)]


def test_a_chain_of_another_genesis_is_broken_at_its_first_block() -> None:
    records = [vote(0), MARKER]
    assert told(records, stored(rehash(chain(records), b"h" * 32))) == [("chain-broken", 0)]


def test_an_unreadable_block_is_one_difference_and_the_walk_goes_on_behind_it() -> None:
    records = [vote(number) for number in range(6)] + [MARKER]
    blocks = stored(with_other_choice(FIRST, GENESIS, chain(records, [2, 4]), 5))
    blocks[1] = (2, b"rubbish")
    assert told(records, blocks) == [("malformed-block", 2), ("accepted-differs", 5)]


@pytest.mark.parametrize(
    "change",
    [{"session": "another"}, {"partition": 1}, {"base": 1}, {"end": 2}, {"end": 99_999}, {"end": 9}],
    ids=["session", "partition", "base", "empty", "too long", "beyond the log"],
)
def test_a_block_that_makes_no_sense_is_malformed(change: dict[str, Any]) -> None:
    records = [vote(number) for number in range(4)] + [MARKER]
    blocks = chain(records, [2])
    blocks[1] = blocks[1]._replace(**change)
    assert told(records, [(0, encode_block(blocks[0])), (2, encode_block(blocks[1]))]) == [("malformed-block", 2)]


def test_a_record_listed_twice_in_a_block_is_found() -> None:
    records = [vote(0), vote(1), MARKER]
    block = chain(records)[0]
    tampered = block._replace(accepted=[*block.accepted, block.accepted[1]])
    assert told(records, stored([tampered])) == [("class-differs", 1)]


def test_a_log_that_ends_too_early_is_truncated_at_its_end() -> None:
    records = [vote(number) for number in range(4)] + [MARKER]
    found = compared(records[:3], stored(chain(records, [2])), end=5, closed=False)
    assert [(d.kind, d.offset) for d in found.verdict.differences] == [("log-truncated", 3)]


def test_a_hole_in_the_log_is_told_where_it_begins() -> None:
    records = [vote(number) for number in range(4)] + [MARKER]
    log = [LogRecord(offset, *record) for offset, record in enumerate(records) if offset != 1]
    found = compare(RecordRules.of(FIRST, 1), Chain("uid", 0, GENESIS), log, stored(chain(records)), 5)
    assert ("log-gap", 1) in [(d.kind, d.offset) for d in found.verdict.differences]


def test_differences_are_all_counted_but_only_the_first_are_kept() -> None:
    records = [vote(0, ADA, str(number)) for number in range(300)] + [MARKER]
    empty = chain(records)[0]._replace(accepted=[], others=[])
    verdict = compared(records, stored([empty])).verdict
    assert len(verdict.differences) == MAX_DIFFERENCES
    assert verdict.difference_count == 301


def test_a_difference_never_tells_what_somebody_voted() -> None:
    records = [vote(number) for number in range(4)] + [MARKER]
    tampered = with_other_choice(FIRST, GENESIS, chain(records), 2)
    (difference,) = compared(records, stored(tampered)).verdict.differences
    assert difference.detail == "ballot"
