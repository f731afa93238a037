"""The reference model of an election: small enough to be checked by reading these."""

from typing import Any

import pytest
from tests.reference import make_session

from psephos_lab.reference import (
    COUNTED,
    DUPLICATE,
    QUOTA,
    SUPERSEDED,
    Allowance,
    Vote,
    differences,
    fates,
    totals,
)

ONCE, THRICE, LAST = Allowance(1, last=False), Allowance(3, last=False), Allowance(100, last=True)


def votes(*keys: str) -> list[Vote]:
    """One vote a word: the voter's letter and the number of the Idempotency-Key."""
    return [Vote(key[0], key, {}) for key in keys]


@pytest.mark.parametrize(
    ("allowance", "keys", "expected"),
    [
        (ONCE, ["a1", "a2", "b1", "a1"], [COUNTED, DUPLICATE, COUNTED, DUPLICATE]),
        (THRICE, ["a1", "a2", "a1", "a3", "a4", "a2"], [COUNTED, COUNTED, DUPLICATE, COUNTED, QUOTA, DUPLICATE]),
        (THRICE, ["a1", "b1", "a2", "b2"], [COUNTED] * 4),
        (LAST, ["a1", "a2", "b1", "a3"], [SUPERSEDED, SUPERSEDED, COUNTED, COUNTED]),
        (LAST, ["a1", "a2", "a1"], [SUPERSEDED, COUNTED, DUPLICATE]),
    ],
)
def test_what_becomes_of_votes(allowance: Allowance, keys: list[str], expected: list[str]) -> None:
    assert fates(votes(*keys), allowance) == expected


def test_a_hundred_ballots_are_what_anyone_may_replace() -> None:
    found = fates(votes(*(f"a{number}" for number in range(101))), LAST)
    assert found == [SUPERSEDED] * 99 + [COUNTED, QUOTA]


@pytest.mark.parametrize(
    ("bodies", "ranked", "expected"),
    [
        ([{"choices": ["a", "b"]}, {"choices": ["b"]}, {"choices": []}], False, {"a": 1, "b": 2, "c": 0}),
        ([{"choices": ["a", "b"]}, {"choices": ["b"]}, {"choices": []}], True, {"a": 1, "b": 1, "c": 0}),
        ([{"scores": {"a": 3, "b": 0}}, {"scores": {"a": -1}}], False, {"a": 2, "b": 0, "c": 0}),
    ],
    ids=["choices", "ranked", "scores"],
)
def test_totals_of_ballots(bodies: list[Any], ranked: bool, expected: dict[str, int]) -> None:
    assert totals(bodies, ["a", "b", "c"], ranked=ranked) == expected


def result(**changes: Any) -> dict[str, Any]:
    """What a session with two votes for ada, one of them replaced by one for bob, comes to."""
    turnout = {"accepted": 2, "superseded": 1, "duplicate": 1, "rejected": {"quota": 0}}
    outcome = {
        "method": "approval",
        "winners": ["bob"],
        "rounds": [{"tally": {"ada": 0, "bob": 1, "cyd": 0}, "eliminated": [], "exhausted": 0}],
        "tieBreaks": [],
    }
    whole = {"turnout": turnout, "totals": {"ada": 0, "bob": 1, "cyd": 0}, "outcome": outcome}
    return {**whole, **changes}


NUMBERS = {COUNTED: 1, SUPERSEDED: 1, DUPLICATE: 1}


def found(document: dict[str, Any], unknown: int = 0) -> list[str]:
    session = make_session(voters={"revote": "last"})
    return list(differences(session, document, [{"choices": ["bob"]}], NUMBERS, unknown=unknown))


def test_a_result_that_is_right_has_no_differences() -> None:
    assert found(result()) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"totals": {"ada": 1, "bob": 0, "cyd": 0}}, "totals: "),
        ({"outcome": {**result()["outcome"], "winners": ["ada"]}}, "outcome: "),
        ({"turnout": {**result()["turnout"], "accepted": 3}}, "accepted: 3; the reference model says 2"),
        ({"turnout": {**result()["turnout"], "superseded": 0}}, "superseded: 0; the reference model says 1"),
        ({"turnout": {**result()["turnout"], "duplicate": 2}}, "duplicate: 2; the reference model says 1"),
        ({"turnout": {**result()["turnout"], "rejected": {"quota": 1}}}, "rejected quota: 1; the reference"),
    ],
)
def test_each_difference_is_told(changes: dict[str, Any], says: str) -> None:
    (line,) = found(result(**changes))
    assert line.startswith(says)


def test_records_that_no_journal_has_may_only_be_more_of_the_same() -> None:
    twice = result(turnout={**result()["turnout"], "duplicate": 2})
    assert found(twice, unknown=1) == []
    thrice = result(turnout={**result()["turnout"], "duplicate": 3})
    assert found(thrice, unknown=1) == ["duplicate: 3; the reference model says 2"]
