"""Every format: what is written is read back, and bytes from outside never raise anything but Malformed."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.domain.genesis import Genesis, GenesisMismatch, decode_genesis, encode_genesis, require_match
from psephos.formats.blocks import (
    NOTHING,
    AcceptedVote,
    Block,
    RecordClass,
    State,
    block_hash,
    decode_block,
    decode_state,
    encode_block,
    encode_state,
)
from psephos.formats.columns import pack_big_ints, pack_ints, unpack_big_ints, unpack_ints
from psephos.formats.control import Control, Phase, decode_control, encode_control
from psephos.formats.errors import Malformed
from psephos.formats.frames import decode_frame
from psephos.formats.tallies import TallyRecord, decode_tally, encode_tally
from psephos.formats.votes import (
    decode_marker,
    decode_vote,
    encode_marker,
    encode_vote,
    partition_of,
    partitions_of,
    record_digest,
    record_digests,
    voter_key,
    with_nonce,
)

KEY = b"k" * 32
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
digests = st.binary(min_size=32, max_size=32)

states = st.builds(
    State,
    st.lists(st.integers(-(1 << 80), 1 << 80), max_size=20).map(tuple),
    st.lists(st.integers(0, 1 << 40), min_size=len(RecordClass), max_size=len(RecordClass)).map(tuple),
    st.integers(0, 1 << 40),
    st.integers(NOTHING, 1 << 60),
)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    base = draw(st.integers(0, 1 << 60))
    classes = draw(st.lists(st.sampled_from(list(RecordClass)), min_size=1, max_size=60))
    accepted = [
        AcceptedVote(
            base + at,
            draw(st.binary(min_size=16, max_size=16)),
            draw(st.binary(max_size=12)),
            draw(st.integers(0, (1 << 53) - 1)),
            draw(st.integers(1, 1 << 50)),
            draw(st.integers(0, 4000)),
            draw(st.sampled_from([b"", b"n" * 16])),
            draw(st.integers(NOTHING, 1 << 60)),
        )
        for at, code in enumerate(classes)
        if code is RecordClass.ACCEPTED
    ]
    others = [(base + at, int(code)) for at, code in enumerate(classes) if code is not RecordClass.ACCEPTED]
    return Block(
        draw(st.text(max_size=40)), draw(st.integers(0, 63)), draw(digests), base, base + len(classes),
        draw(digests), draw(digests), accepted, others, draw(states),
    )  # fmt: skip


@given(st.lists(int64, max_size=50))
def test_a_column_of_integers_is_read_back(values: list[int]) -> None:
    assert unpack_ints(pack_ints(values), len(values)) == values


@given(st.lists(st.integers(-(1 << 200), 1 << 200), max_size=50))
def test_big_integers_are_read_back(values: list[int]) -> None:
    assert unpack_big_ints(pack_big_ints(values)) == values


@given(blocks())
def test_a_block_is_read_back(block: Block) -> None:
    assert decode_block(encode_block(block)) == block


@given(blocks())
def test_a_block_encodes_in_one_way_only(block: Block) -> None:
    payload = encode_block(block)
    assert encode_block(decode_block(payload)) == payload


@given(blocks(), st.data())
def test_a_changed_byte_of_a_block_changes_its_hash_and_never_crashes_the_decoder(
    block: Block, data: st.DataObject
) -> None:
    payload = bytearray(encode_block(block))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    assert block_hash(bytes(payload)) != block_hash(encode_block(block))
    with suppress(Malformed):
        decode_block(bytes(payload))


@given(states)
def test_a_state_is_read_back(state: State) -> None:
    assert decode_state(encode_state(state)) == state


@given(
    st.binary(max_size=100),
    st.integers(0, (1 << 53) - 1),
    st.integers(1, 10**12),
    st.integers(0, 4000),
    st.sampled_from([b"", b"0123456789abcdef"]),
)
def test_a_vote_is_read_back(ballot: bytes, at: int, weight: int, segment: int, nonce: bytes) -> None:
    vote = decode_vote(encode_vote(ballot, at, weight, segment, nonce))
    assert (vote.ballot, vote.received_at, vote.weight, vote.segment, vote.nonce) == (
        ballot, at, weight, segment, nonce,
    )  # fmt: skip


def test_a_vote_that_is_not_in_canonical_form_is_malformed() -> None:
    value = encode_vote(b"\x00\x01", 5)
    loose = value.replace(b"\xc4\x02", b"\xc5\x00\x02")  # the ballot's length in two bytes
    with pytest.raises(Malformed, match="canonical"):
        decode_vote(loose)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "without a value"),
        (b"", "not a vote"),
        (encode_vote(b"", 5)[:-1], "not a vote"),
        (b"\x96\x02" + encode_vote(b"", 5)[2:], "version 2"),
        (encode_vote(b"", 5, nonce=b"short"), "nonce of 5 bytes"),
        (encode_vote(b"", 5, weight=0), "out of range"),
        (encode_vote(b"", -5), "out of range"),
        (encode_vote(b"", 5, segment=-1), "out of range"),
    ],
)
def test_a_value_that_is_no_vote_is_malformed_and_says_why(value: bytes | None, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        decode_vote(value)


def test_a_marker_is_read_back_and_nothing_else_is_a_marker() -> None:
    assert decode_marker(encode_marker(17)).closes_at == 17
    with pytest.raises(Malformed):
        decode_marker(encode_vote(b"", 5))


@pytest.mark.parametrize(
    "decode", [decode_vote, decode_marker, decode_block, decode_state, decode_tally, decode_control, decode_frame,
               decode_genesis, unpack_big_ints, lambda data: unpack_ints(data, 3)]
)  # fmt: skip
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_malformed_at_worst(decode: Callable[[bytes], object], data: bytes) -> None:
    with suppress(Malformed):
        decode(data)


@given(st.integers(0, 63), st.integers(0, 1 << 60), st.integers(0, 1 << 60), states)
def test_a_tally_record_is_read_back(partition: int, base: int, end: int, state: State) -> None:
    record = TallyRecord(partition, base, end, 12, state)
    assert decode_tally(encode_tally(record)) == record


def test_a_control_record_is_read_back_and_says_whether_votes_are_taken() -> None:
    control = decode_control(encode_control(Control(phase=Phase.OPEN, number=3, closes_at=1_000)))
    assert control.accepts_votes(999)
    assert not control.accepts_votes(1_000)
    assert not Control(phase=Phase.PAUSED, number=4).accepts_votes(0)


def test_a_voter_is_a_pseudonym_of_the_session_and_has_one_partition() -> None:
    ada = voter_key(KEY, "ada")
    assert len(ada) == 16
    assert ada == voter_key(KEY, "ada") != voter_key(b"another" * 5, "ada")
    assert partition_of(ada, 4) == int.from_bytes(ada[:8], "big") % 4


voters = st.binary(min_size=16, max_size=16)


@given(st.lists(st.tuples(voters, st.binary(min_size=1, max_size=80)), max_size=20), st.integers(1, 300))
def test_many_records_have_the_partitions_and_digests_that_each_one_has(
    records: list[tuple[bytes, bytes]], partitions: int
) -> None:
    keys, values = [key for key, _ in records], [value for _, value in records]
    assert partitions_of(keys, partitions) == [partition_of(key, partitions) for key in keys]
    assert record_digests(keys, values) == [record_digest(key, value) for key, value in records]


@given(st.binary(max_size=600), st.integers(0, 1 << 53), st.integers(1, 1 << 50), st.integers(0, 300), voters)
def test_a_nonce_that_is_put_into_a_vote_makes_the_bytes_of_a_vote_with_it(
    ballot: bytes, received_at: int, weight: int, segment: int, nonce: bytes
) -> None:
    vote = ballot, received_at, weight, segment
    assert with_nonce(encode_vote(*vote), nonce) == encode_vote(*vote, nonce)


def test_the_digest_of_a_record_tells_key_from_value_and_null_from_empty() -> None:
    digests = {record_digest(*record) for record in [(b"ab", b"c"), (b"a", b"bc"), (None, b"abc"), (b"", b"abc")]}
    assert len(digests) == 4


GENESIS = Genesis(
    session="uid", name="final", partitions=4, topic_id="t", key_fingerprint="f", rules_hash="r", public_key="p",
    receipt_key="q", lot_commitment="l",
)  # fmt: skip


def test_genesis_is_read_back_and_names_the_first_difference() -> None:
    assert decode_genesis(encode_genesis(GENESIS)) == GENESIS
    require_match(GENESIS, partitions=4)
    with pytest.raises(GenesisMismatch, match="partitions is 8 here, but the ledger's genesis fixed 4"):
        require_match(GENESIS, partitions=8)
