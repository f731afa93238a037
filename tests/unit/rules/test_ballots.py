"""One encoding a ballot, and a clear answer to each ballot that may not count."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.domain.ballots import BallotRules, InvalidBallot
from psephos.domain.session import parse_session

IDS = ("ada", "bob", "cy", "dee")
SINGLE = BallotRules("single", IDS, 1, 1)
APPROVAL = BallotRules("approval", IDS, 1, 3)
RANKED = BallotRules("ranked", IDS, 1, 3)
SCORE = BallotRules("score", IDS, 1, 3, (-2, 5))
KINDS = ("single", "approval", "ranked", "score")


@st.composite
def rules(draw: st.DrawFn) -> BallotRules:
    """Any ballot rules with up to 300 options, so that an index needs both of its bytes."""
    kind = draw(st.sampled_from(KINDS))
    ids = tuple(f"o{i}" for i in range(draw(st.integers(1, 5) | st.just(300))))
    most = 1 if kind == "single" else draw(st.integers(1, min(len(ids), 6)))
    scale = (draw(st.integers(-32768, 0)), draw(st.integers(1, 32767))) if kind == "score" else None
    return BallotRules(kind, ids, draw(st.integers(0, most)), most, scale)


@st.composite
def rules_and_body(draw: st.DrawFn) -> tuple[BallotRules, dict[str, Any]]:
    """Ballot rules, and a body that they allow."""
    found = draw(rules())
    named = draw(st.lists(st.sampled_from(found.option_ids), min_size=found.min, max_size=found.max, unique=True))
    if found.scale is None:
        return found, {"choices": named}
    return found, {"scores": {option: draw(st.integers(*found.scale)) for option in named}}


@given(rules_and_body())
def test_what_is_encoded_is_what_is_read(case: tuple[BallotRules, dict[str, Any]]) -> None:
    found, body = case
    raw = found.encode(body)
    found.check(raw)
    read = found.to_choices(raw)
    if found.type in ("single", "approval"):
        assert sorted(body["choices"]) == sorted(read["choices"])  # type: ignore[call-overload]
    else:
        assert read == body
    assert found.encode(read) == raw


@given(rules_and_body())
def test_contributions_are_those_of_the_body(case: tuple[BallotRules, dict[str, Any]]) -> None:
    found, body = case
    added = {found.option_ids[index]: units for index, units in found.contributions(found.encode(body))}
    if found.type == "score":
        assert added == body["scores"]
    elif found.type == "ranked":
        assert added == dict.fromkeys(body["choices"][:1], 1)
    else:
        assert added == dict.fromkeys(body["choices"], 1)


@given(rules_and_body(), st.randoms())
def test_equal_ballots_are_equal_bytes(case: tuple[BallotRules, dict[str, Any]], shuffled: Any) -> None:
    found, body = case
    if found.type == "ranked":
        return
    (member,) = body
    entries = list(body[member].items() if member == "scores" else body[member])
    shuffled.shuffle(entries)
    assert found.encode({member: dict(entries) if member == "scores" else entries}) == found.encode(body)


@given(rules(), st.binary(max_size=24))
def test_any_bytes_are_a_canonical_ballot_or_an_invalid_one(found: BallotRules, raw: bytes) -> None:
    try:
        contributions = found.contributions(raw)
    except InvalidBallot:
        with pytest.raises(InvalidBallot):
            found.check(raw)
        return
    assert all(0 <= index < len(found.option_ids) for index, _ in contributions)
    assert found.encode(found.to_choices(raw)) == raw


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(IDS) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(IDS) | st.text(), inner, max_size=4)
    ),
)


@given(
    st.sampled_from([SINGLE, APPROVAL, RANKED, SCORE]),
    st.dictionaries(st.sampled_from(["choices", "scores"]) | st.text(max_size=5), JSON, max_size=2),
)
def test_any_json_is_a_ballot_or_an_invalid_one_with_a_short_message(
    found: BallotRules, body: dict[str, Any]
) -> None:
    message = ""
    try:
        found.check(found.encode(body))
    except InvalidBallot as error:
        message = str(error)
    assert len(message) < 250


@given(st.sampled_from([SINGLE, APPROVAL, RANKED, SCORE]), st.text(max_size=20))
def test_any_cell_is_a_ballot_or_an_invalid_one(found: BallotRules, text: str) -> None:
    try:
        raw = found.encode(found.parse_cell(text))
    except InvalidBallot:
        return
    found.check(raw)


@pytest.mark.parametrize(
    ("found", "body", "raw"),
    [
        (SINGLE, {"choices": ["bob"]}, "0001"),
        (APPROVAL, {"choices": ["dee", "ada"]}, "0000 0003"),
        (RANKED, {"choices": ["dee", "ada"]}, "0003 0000"),
        (SCORE, {"scores": {"cy": -2, "bob": 5}}, "0001 0005 0002 fffe"),
    ],
)
def test_the_bytes_are_those_of_the_format(found: BallotRules, body: dict[str, Any], raw: str) -> None:
    assert found.encode(body) == bytes.fromhex(raw)


@pytest.mark.parametrize("kind", KINDS)
def test_a_blank_is_no_bytes_and_allowed_only_with_min_0(kind: str) -> None:
    scale = (0, 5) if kind == "score" else None
    blank: dict[str, Any] = {"scores": {}} if kind == "score" else {"choices": []}
    allowing, refusing = BallotRules(kind, IDS, 0, 1, scale), BallotRules(kind, IDS, 1, 1, scale)
    assert allowing.encode(blank) == b""
    assert allowing.contributions(b"") == ()
    assert allowing.to_choices(b"") == allowing.parse_cell("") == blank
    for refused in (lambda: refusing.encode(blank), lambda: refusing.check(b"")):
        with pytest.raises(InvalidBallot) as caught:
            refused()
        assert (caught.value.reason, str(caught.value)) == (
            "too-few",
            "the ballot names 0 options; allowed: 1",
        )


@pytest.mark.parametrize(
    ("found", "body", "reason", "message"),
    [
        (SINGLE, {"choices": ["ann"]}, "unknown-option", "found the option 'ann'; allowed: ada, bob, cy, dee"),
        (SINGLE, {"choices": ["ada", "bob"]}, "too-many", "the ballot names 2 options; allowed: 1"),
        (APPROVAL, {"choices": []}, "too-few", "the ballot names 0 options; allowed: 1 to 3"),
        (APPROVAL, {"choices": list(IDS)}, "too-many", "the ballot names 4 options; allowed: 1 to 3"),
        (RANKED, {"choices": ["ada", "bob", "ada"]}, "duplicate-option", "'ada' is named more than once"),
        (RANKED, {"choices": "ada"}, "malformed", "'choices' is a text; a list of option ids is needed"),
        (RANKED, {"choices": [1]}, "malformed", "found a number as option; a text, its id, is needed"),
        (RANKED, {"choices": [["ada"]]}, "malformed", "found a list as option; a text, its id, is needed"),
        (RANKED, {}, "wrong-member", "a ranked ballot needs the member 'choices'"),
        (
            RANKED,
            {"scores": {"ada": 1}},
            "wrong-member",
            "found the member 'scores'; a ranked ballot has 'choices' only",
        ),
        (
            RANKED,
            {"choices": ["ada"], "note": "hi"},
            "wrong-member",
            "found the member 'note'; a ranked ballot has 'choices' only",
        ),
        (
            SCORE,
            {"choices": ["ada"]},
            "wrong-member",
            "found the member 'choices'; a score ballot has 'scores' only",
        ),
        (SCORE, {"scores": ["ada"]}, "malformed", "'scores' is a list; an object of id: score is needed"),
        (SCORE, {"scores": {"ada": 6}}, "out-of-scale", "the score of 'ada' is 6; allowed: -2 to 5"),
        (
            SCORE,
            {"scores": {"ada": 10**99}},
            "out-of-scale",
            "the score of 'ada' is a very large number; allowed: -2 to 5",
        ),
        (SCORE, {"scores": {"ada": 1.5}}, "not-an-integer", "the score of 'ada' is 1.5; a whole number is needed"),
        (
            SCORE,
            {"scores": {"ada": True}},
            "not-an-integer",
            "the score of 'ada' is True; a whole number is needed",
        ),
        (
            SCORE,
            {"scores": {"ada": [1]}},
            "not-an-integer",
            "the score of 'ada' is a list; a whole number is needed",
        ),
        (SCORE, {"scores": {"ann": 1}}, "unknown-option", "found the option 'ann'; allowed: ada, bob, cy, dee"),
        (SCORE, {"scores": dict.fromkeys(IDS, 1)}, "too-many", "the ballot names 4 options; allowed: 1 to 3"),
    ],
)
def test_a_body_that_may_not_count_is_told_why(
    found: BallotRules, body: dict[str, Any], reason: str, message: str
) -> None:
    with pytest.raises(InvalidBallot) as caught:
        found.encode(body)
    assert (caught.value.reason, str(caught.value)) == (reason, message)


@pytest.mark.parametrize(
    ("found", "raw", "reason"),
    [
        (SINGLE, "00", "malformed"),
        (SINGLE, "0004", "unknown-option"),
        (SINGLE, "0000 0001", "too-many"),
        (APPROVAL, "0001 0000", "not-canonical"),
        (APPROVAL, "0001 0001", "not-canonical"),
        (APPROVAL, "0000 ffff", "unknown-option"),
        (APPROVAL, "0000 0001 02", "malformed"),
        (RANKED, "0001 0001", "duplicate-option"),
        (RANKED, "0003 0004", "unknown-option"),
        (SCORE, "0000", "malformed"),
        (SCORE, "0000 0006", "out-of-scale"),
        (SCORE, "0000 fffd", "out-of-scale"),
        (SCORE, "0004 0000", "unknown-option"),
        (SCORE, "0001 0000 0000 0000", "not-canonical"),
        (SCORE, "0001 0000 0001 0001", "not-canonical"),
    ],
)
def test_bytes_that_may_not_count_have_a_reason(found: BallotRules, raw: str, reason: str) -> None:
    with pytest.raises(InvalidBallot) as caught:
        found.contributions(bytes.fromhex(raw))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("found", "cell", "body"),
    [
        (SINGLE, "ada", {"choices": ["ada"]}),
        (APPROVAL, "ada+bob", {"choices": ["ada", "bob"]}),
        (RANKED, "cy>ada>bob", {"choices": ["cy", "ada", "bob"]}),
        (SCORE, "cy=3>ada=-2", {"scores": {"cy": 3, "ada": -2}}),
    ],
)
def test_cells_have_the_form_of_their_type(found: BallotRules, cell: str, body: dict[str, Any]) -> None:
    assert found.parse_cell(cell) == body


@pytest.mark.parametrize(
    ("cell", "reason", "message"),
    [
        ("cy", "malformed", "found 'cy'; a score is written option=number"),
        ("cy=x", "malformed", "found 'cy=x'; a score is written option=number"),
        ("cy=3>cy=2", "duplicate-option", "'cy' is named more than once"),
    ],
)
def test_score_cells_that_can_not_be_read(cell: str, reason: str, message: str) -> None:
    with pytest.raises(InvalidBallot) as caught:
        SCORE.parse_cell(cell)
    assert (caught.value.reason, str(caught.value)) == (reason, message)


def test_a_message_never_repeats_a_huge_value() -> None:
    for body in ({"choices": ["x" * 10_000_000]}, {"x" * 10_000_000: 1}):
        with pytest.raises(InvalidBallot) as caught:
            APPROVAL.encode(body)
        assert len(str(caught.value)) < 200


def test_the_largest_session_has_room_in_an_index() -> None:
    found = BallotRules("ranked", tuple(f"o{i}" for i in range(1000)), 0, 1000)
    raw = found.encode({"choices": [f"o{i}" for i in reversed(range(1000))]})
    assert raw == struct.pack(">1000H", *reversed(range(1000)))
    assert found.preferences(raw) == tuple(reversed(range(1000)))


def test_rules_come_from_the_session() -> None:
    session = parse_session(
        {
            "apiVersion": "psephos.dev/v1alpha1",
            "kind": "VotingSession",
            "metadata": {"name": "final"},
            "spec": {
                "ballot": {
                    "type": "score",
                    "options": [{"id": option} for option in IDS],
                    "min": 0,
                    "max": 2,
                    "scale": {"min": 1, "max": 5},
                },
                "voters": {"eligibility": "open"},
            },
        }
    )
    assert BallotRules.of(session) == BallotRules("score", IDS, 0, 2, (1, 5))
