"""Formats of verdicts and ballot patterns, and the signed result document."""

import csv
import hashlib
import io
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.reference import make_session

from psephos.domain.results import (
    cells_of,
    combine,
    decode_document,
    embargoed,
    encode_document,
    final_frame,
    option_sums,
    result_csv,
    segments_json,
    sign_result,
    totals_json,
    turnout,
    verify_result,
)
from psephos.formats.blocks import State
from psephos.formats.control import Phase
from psephos.formats.errors import Malformed
from psephos.roles.recount.errors import RecountError
from psephos.roles.recount.partitions import partitions_of
from psephos.roles.recount.sealing import mix_lot
from psephos.roles.recount.verdicts import (
    Difference,
    Verdict,
    decode_verdict,
    encode_verdict,
    pattern_chunks,
    patterns_hash,
    read_patterns,
)

KEY = Ed25519PrivateKey.generate()
DOCUMENT: dict[str, Any] = {
    "session": "test",
    "epoch": "00ff",
    "version": 12,
    "state": "Final",
    "totals": {"ada": 3, "bob": 1},
    "segments": {"no": {"ada": 2, "bob": 1, "cyd": 0}, "other": {"ada": 1, "bob": 0, "cyd": 0}},
    "outcome": {"method": "approval", "winners": ["ada"], "rounds": []},
    "turnout": {
        "received": 4,
        "accepted": 4,
        "duplicate": 0,
        "superseded": 0,
        "rejected": {"late": 0},
        "voters": 4,
    },
}


@given(
    st.dictionaries(st.binary(max_size=40), st.integers(1, 10**24), max_size=200),
    st.integers(8_300, 10_000),
)
def test_ballot_patterns_survive_the_ledger_in_any_number_of_chunks(
    patterns: dict[bytes, int], limit: int
) -> None:
    chunks = list(pattern_chunks(patterns, limit))
    assert read_patterns(chunks) == patterns
    assert all(len(chunk) <= limit for chunk in chunks)
    assert chunks == list(pattern_chunks(dict(sorted(patterns.items(), reverse=True)), limit))


@given(st.binary(max_size=60))
def test_rubbish_is_no_chunk_of_patterns(data: bytes) -> None:
    if data not in pattern_chunks({}):
        with pytest.raises(Malformed):
            read_patterns([data])


def test_the_hash_of_patterns_covers_each_chunk() -> None:
    assert patterns_hash([b"a", b"b"]) == hashlib.sha256(b"ab").hexdigest()
    assert patterns_hash([b"a"]) != patterns_hash([b"a", b"b"])


def test_a_verdict_survives_the_ledger_with_totals_of_any_size() -> None:
    verdict = Verdict(
        partition=3,
        end=10,
        log_end=11,
        records=10,
        tallies=(2**80, -(2**70)),
        classes=(7, 1, 1, 0, 0, 0, 0, 2),
        voters=6,
        closed_at=8,
        head="ab",
        differences=(Difference(3, 4, "class-differs", "why"), Difference(None, None, "signature-broken")),
        difference_count=2,
        patterns="cd",
    )
    assert decode_verdict(encode_verdict(verdict)) == verdict
    assert verdict.log_records == 9
    with pytest.raises(Malformed):
        decode_verdict(encode_verdict(verdict).replace(b'"version":1', b'"version":2'))
    with pytest.raises(Malformed):
        decode_verdict(b"{}")


@given(st.integers(1, 64), st.integers(1, 64))
def test_every_partition_belongs_to_exactly_one_index(partitions: int, parallelism: int) -> None:
    parts = [partitions_of(index, parallelism, partitions) for index in range(parallelism)]
    assert sorted(p for part in parts for p in part) == list(range(partitions))


def test_an_index_outside_is_refused() -> None:
    with pytest.raises(RecountError, match="allowed: 0 to 3"):
        partitions_of(4, 4, 8)


def test_the_lot_is_drawn_from_the_seed_and_all_chain_heads() -> None:
    heads = ["aa" * 32, "bb" * 32]
    assert mix_lot(b"seed", heads) == hashlib.sha256(b"seed" + b"\xaa" * 32 + b"\xbb" * 32).digest()


# --- The document


def test_a_signed_result_verifies_also_after_it_was_written_and_read() -> None:
    signed = sign_result(
        {**DOCUMENT, "title": "Ærø", "totals": totals_json(make_session(), (1_500_000, 0, 1))}, KEY
    )
    assert verify_result(signed)
    assert verify_result(encode_document(signed), signed["publicKey"])
    assert verify_result(decode_document(encode_document(signed)))


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every leaf."""
    if isinstance(value, dict):
        return [place for name in value for place in _places(value[name], (*path, name))]
    if isinstance(value, list):
        return [place for index, part in enumerate(value) for place in _places(part, (*path, index))]
    return [path]


@pytest.mark.parametrize("place", _places(DOCUMENT), ids=str)
def test_no_member_of_a_result_can_be_changed_unseen(place: tuple[Any, ...]) -> None:
    document = decode_document(encode_document(sign_result(DOCUMENT, KEY)))
    target = document
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = "something else"
    assert not verify_result(document)


def test_an_unsigned_result_does_not_verify() -> None:
    signed = sign_result(DOCUMENT, KEY)
    assert not verify_result(DOCUMENT)
    assert not verify_result({**signed, "signature": ""})
    assert not verify_result({**signed, "signature": 7})
    assert not verify_result({**signed, "extra": 1})
    assert not verify_result({name: value for name, value in signed.items() if name != "totals"})
    assert not verify_result(b"no json")
    assert not verify_result(b"[]")


def test_a_result_that_somebody_else_signed_does_not_verify_against_the_genesis() -> None:
    forged = sign_result({**DOCUMENT, "totals": {"ada": 0, "bob": 9}}, Ed25519PrivateKey.generate())
    assert verify_result(forged)
    assert not verify_result(forged, sign_result(DOCUMENT, KEY)["publicKey"])


# --- Figures


def test_totals_and_segments_are_read_option_by_option() -> None:
    session = make_session(segments=("no",))
    tallies = (1_000_000, 2_500_000, 0, 3_000_000, 0, 0)
    assert cells_of(session) == 6
    assert option_sums(session, tallies) == (3_500_000, 3_000_000, 0)
    assert {name: float(value) for name, value in totals_json(session, tallies).items()} == {
        "ada": 3.5,
        "bob": 3,
        "cyd": 0,
    }
    segments = segments_json(session, tallies)
    assert segments is not None
    assert list(segments) == ["no", "other"]
    assert segments["other"]["bob"] == 3
    assert segments_json(make_session(), (0, 0, 0)) is None


def test_states_of_partitions_add_up() -> None:
    one, two = State((1, 2), (1, 0, 0, 0, 0, 0, 0, 1), 1, 1), State((3, 4), (0, 0, 2, 0, 0, 0, 0, 1), 0, 0)
    together = combine([one, two], 2)
    assert (together.tallies, together.classes, together.voters) == ((4, 6), (1, 0, 2, 0, 0, 0, 0, 2), 1)


def test_received_are_all_records_but_control_records() -> None:
    shown = turnout((5, 2, 3, 1, 1, 1, 1, 4), 3)
    assert shown.received == 12
    assert (shown.accepted, shown.superseded, shown.duplicate) == (5, 2, 3)
    assert shown.rejected == {"malformed": 1, "invalid-ballot": 1, "quota": 1, "late": 1}


def test_the_last_frame_says_what_the_document_says() -> None:
    frame = final_frame(DOCUMENT, 99)
    assert (frame.version, frame.final, frame.phase, frame.as_of) == (12, True, "Final", 99)
    assert frame.totals == DOCUMENT["totals"]
    assert frame.outcome == DOCUMENT["outcome"]
    assert not final_frame({**DOCUMENT, "state": "Disputed"}, 99).final


def test_under_embargo_only_a_final_result_may_be_seen() -> None:
    hidden = make_session(results={"visibility": "afterClose"})
    assert [phase for phase in Phase if not embargoed(hidden, phase)] == [Phase.FINAL]
    assert not any(embargoed(make_session(), phase) for phase in Phase)


def test_the_csv_has_a_line_an_option_and_a_column_a_segment() -> None:
    rows = list(csv.DictReader(io.StringIO(result_csv(make_session(segments=("no",)), DOCUMENT))))
    assert [row["option"] for row in rows] == ["ada", "bob", "cyd"]
    assert rows[0] == {"option": "ada", "label": "Ada", "total": "3", "no": "2", "other": "1", "winner": "yes"}
    assert rows[1]["winner"] == "no"
