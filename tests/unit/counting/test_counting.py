"""Counting on aggregated ballots finds what counting ballot by ballot finds."""

import hashlib
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.counting import reference

from psephos.domain.ballots import BallotRules, InvalidBallot
from psephos.domain.counting import MILLION, CountingRules, Outcome, count, outcome_json, totals

SEED = b"seed of the lot"


@st.composite
def elections(draw: st.DrawFn, method: str | None = None) -> tuple[CountingRules, list[tuple[Any, int]]]:
    """Counting rules, and ballots (as bodies' values) with their weights in millionths."""
    chosen = method or draw(st.sampled_from(["plurality", "approval", "irv", "borda", "sum", "mean"]))
    kind = {"approval": "approval", "sum": "score", "mean": "score"}.get(chosen, "ranked")
    if chosen == "plurality":
        kind = draw(st.sampled_from(["single", "ranked"]))
    ids = tuple(f"o{i}" for i in range(draw(st.integers(1, 6))))
    most = 1 if kind == "single" else len(ids)
    ballot = BallotRules(kind, ids, 0, most, (-3, 3) if kind == "score" else None)
    irv = (draw(st.sampled_from(["single", "batch"])), draw(st.sampled_from(["two", "majority"])))
    elimination, stop = irv if chosen == "irv" else (None, None)
    rules = CountingRules(ballot, chosen, elimination, stop, draw(st.sampled_from(["declared", "lot"])))
    named = st.lists(st.sampled_from(ids), max_size=most, unique=True)
    if kind == "score":
        named = named.flatmap(lambda some: st.fixed_dictionaries({o: st.integers(-3, 3) for o in some}))  # type: ignore[arg-type,return-value]
    weights = st.just(MILLION) | st.integers(1, 3 * MILLION)
    return rules, draw(st.lists(st.tuples(named, weights), max_size=25))


def patterns_of(rules: CountingRules, ballots: list[tuple[Any, int]]) -> dict[bytes, int]:
    member = "scores" if rules.ballot.type == "score" else "choices"
    patterns: Counter[bytes] = Counter()
    for value, weight in ballots:
        patterns[rules.ballot.encode({member: value})] += weight
    return dict(patterns)


def tie_order(rules: CountingRules) -> list[str]:
    ids = rules.ballot.option_ids
    if rules.tie_break == "declared":
        return list(ids)
    return sorted(ids, key=lambda option: hashlib.sha256(SEED + option.encode()).digest())


def votes(tally: Any, ids: tuple[str, ...]) -> dict[str, Fraction]:
    return {ids[index]: Fraction(millionths) / MILLION for index, millionths in tally.items()}


def fractions(ballots: list[tuple[Any, int]]) -> list[reference.Ballot]:
    return [(value, Fraction(weight, MILLION)) for value, weight in ballots]


REFERENCES = {
    "plurality": reference.first_preferences,
    "approval": reference.named,
    "borda": reference.borda,
    "sum": reference.score_sum,
    "mean": reference.score_mean,
}


@pytest.mark.parametrize("method", list(REFERENCES))
@given(st.data())
def test_a_method_of_one_round_agrees_with_its_textbook(method: str, data: st.DataObject) -> None:
    rules, ballots = data.draw(elections(method))
    ids = rules.ballot.option_ids
    outcome = count(rules, patterns_of(rules, ballots), lot_seed=SEED)
    expected = REFERENCES[method](ids, fractions(ballots))
    (only,) = outcome.rounds
    assert votes(only.tally, ids) == expected
    assert only.eliminated == ()
    assert only.exhausted == sum(weight for value, weight in ballots if not value)
    anybody = any(value for value, _ in ballots)
    winners = [reference.winner(expected, tie_order(rules))] if anybody else []
    assert [ids[index] for index in outcome.winners] == winners


@given(elections("irv"))
def test_instant_runoff_agrees_with_its_textbook_in_every_round(
    election: tuple[CountingRules, list[tuple[Any, int]]],
) -> None:
    rules, ballots = election
    ids = rules.ballot.option_ids
    outcome = count(rules, patterns_of(rules, ballots), lot_seed=SEED)
    expected = reference.irv(
        ids,
        fractions(ballots),
        tie_order(rules),
        batch=rules.elimination == "batch",
        majority=rules.stop == "majority",
    )
    found = [
        (votes(turn.tally, ids), {ids[i] for i in turn.eliminated}, Fraction(turn.exhausted, MILLION))
        for turn in outcome.rounds
    ]
    assert found == expected
    anybody = any(value for value, _ in ballots)
    winners = [reference.winner(expected[-1][0], tie_order(rules))] if anybody else []
    assert [ids[index] for index in outcome.winners] == winners


@given(elections("irv"))
def test_no_vote_appears_or_disappears_between_rounds(
    election: tuple[CountingRules, list[tuple[Any, int]]],
) -> None:
    rules, ballots = election
    cast = sum(weight for _, weight in ballots)
    outcome = count(rules, patterns_of(rules, ballots), lot_seed=SEED)
    for turn, following in zip(outcome.rounds, outcome.rounds[1:], strict=False):
        assert set(following.tally) == set(turn.tally) - set(turn.eliminated)
        assert turn.eliminated
    for turn in outcome.rounds:
        assert sum(turn.tally.values()) + turn.exhausted == cast
    assert outcome.rounds[-1].eliminated == ()


@given(elections(), st.randoms())
def test_the_order_of_patterns_does_not_matter(
    election: tuple[CountingRules, list[tuple[Any, int]]], random: Any
) -> None:
    rules, ballots = election
    patterns = patterns_of(rules, ballots)
    shuffled = list(patterns.items())
    random.shuffle(shuffled)
    assert count(rules, dict(shuffled), lot_seed=SEED) == count(rules, patterns, lot_seed=SEED)


@given(elections(), st.data())
def test_totals_of_parts_add_up_to_the_totals(
    election: tuple[CountingRules, list[tuple[Any, int]]], data: st.DataObject
) -> None:
    rules, ballots = election
    cut = data.draw(st.integers(0, len(ballots)))
    parts = [totals(rules, patterns_of(rules, part)) for part in (ballots[:cut], ballots[cut:])]
    assert tuple(map(sum, zip(*parts, strict=True))) == totals(rules, patterns_of(rules, ballots))


@given(elections("sum"))
def test_totals_are_the_sums_of_scores(election: tuple[CountingRules, list[tuple[Any, int]]]) -> None:
    rules, ballots = election
    expected = reference.score_sum(rules.ballot.option_ids, fractions(ballots))
    assert [Fraction(t, MILLION) for t in totals(rules, patterns_of(rules, ballots))] == list(expected.values())


# --- By hand


def ranked(cells: dict[str, int], ids: str = "abcd", **rules: Any) -> tuple[CountingRules, dict[bytes, int]]:
    """Ranked ballots such as {"a>b": 3}, each option a letter."""
    ballot = BallotRules("ranked", tuple(ids), 0, len(ids))
    found = CountingRules(ballot, **({"method": "irv", "elimination": "single", "stop": "two"} | rules))
    return found, {ballot.encode(ballot.parse_cell(cell)): n * MILLION for cell, n in cells.items()}


def played(cells: dict[str, int], ids: str = "abcd", seed: bytes | None = None, **rules: Any) -> dict[str, Any]:
    found, patterns = ranked(cells, ids, **rules)
    return outcome_json(count(found, patterns, lot_seed=seed), found.ballot.option_ids)


def test_two_remain_even_when_one_has_a_majority_from_the_start() -> None:
    cells = {"a": 6, "b": 2, "c>b": 1}
    assert played(cells, "abc")["rounds"] == [
        {"tally": {"a": 6, "b": 2, "c": 1}, "eliminated": ["c"], "exhausted": 0},
        {"tally": {"a": 6, "b": 3}, "eliminated": [], "exhausted": 0},
    ]
    assert played(cells, "abc", stop="majority")["rounds"] == [
        {"tally": {"a": 6, "b": 2, "c": 1}, "eliminated": [], "exhausted": 0}
    ]


def test_half_of_the_votes_is_no_majority_but_exhausted_votes_do_not_count() -> None:
    found = played({"a": 4, "b": 3, "c": 1, "": 9}, "abc", stop="majority")
    assert found["rounds"] == [
        {"tally": {"a": 4, "b": 3, "c": 1}, "eliminated": ["c"], "exhausted": 9},
        {"tally": {"a": 4, "b": 3}, "eliminated": [], "exhausted": 10},
    ]


def test_a_tie_at_the_bottom_eliminates_the_option_that_is_declared_later() -> None:
    found = played({"a": 3, "b": 1, "c>b": 1}, "abc")
    assert found["rounds"][0]["eliminated"] == ["c"]
    assert found["tieBreaks"] == [
        {"round": 1, "tied": ["b", "c"], "chosen": "c", "purpose": "elimination", "rule": "declared"}
    ]


def test_a_tie_at_the_top_is_won_by_the_option_that_is_declared_earlier() -> None:
    found = played({"a": 2, "b": 2, "c": 1}, "abc")
    assert found["winners"] == ["a"]
    assert found["tieBreaks"] == [
        {"round": 2, "tied": ["a", "b"], "chosen": "a", "purpose": "win", "rule": "declared"}
    ]


def test_a_lot_settles_ties_by_the_hash_of_seed_and_id() -> None:
    winners = set()
    for number in range(20):
        seed = bytes([number])
        found = played({"a": 2, "b": 2}, "ab", seed, tie_break="lot")
        lower = min("ab", key=lambda option: hashlib.sha256(seed + option.encode()).digest())
        assert found["winners"] == [lower]
        assert found["tieBreaks"][0]["rule"] == "lot"
        winners.add(lower)
    assert winners == {"a", "b"}


def test_a_lot_without_a_seed_is_refused_whether_or_not_there_is_a_tie() -> None:
    rules, patterns = ranked({"a": 2}, tie_break="lot")
    with pytest.raises(ValueError, match="counting needs the lot's seed"):
        count(rules, patterns)


def test_no_tie_is_recorded_where_none_decided_anything() -> None:
    assert played({"a": 4, "b": 3, "c": 2, "d": 1})["tieBreaks"] == []


def test_a_batch_goes_as_far_as_nobody_in_it_could_catch_up() -> None:
    found = played({"a": 9, "b": 8, "c": 4, "d": 2, "e": 1}, "abcde", elimination="batch")
    assert [turn["eliminated"] for turn in found["rounds"]] == [["c", "d", "e"], []]


def test_a_batch_skips_a_tie_inside_it_and_stops_before_one_at_its_edge() -> None:
    inside = played({"a": 9, "b": 8, "c": 1, "d": 1}, elimination="batch")
    assert [turn["eliminated"] for turn in inside["rounds"]] == [["c", "d"], []]
    assert inside["tieBreaks"] == []
    edge = played({"a": 9, "b": 8, "c": 5, "d": 5}, elimination="batch")
    assert [turn["eliminated"] for turn in edge["rounds"]] == [["d"], ["c"], []]


def test_a_batch_leaves_two_options() -> None:
    found = played({"a": 9, "b": 1, "c": 0, "d": 0}, elimination="batch")
    assert [turn["eliminated"] for turn in found["rounds"]] == [["c", "d"], []]


def test_unranked_options_get_no_borda_points_and_share_nothing() -> None:
    found = played({"a>b": 1, "c": 2, "": 5}, method="borda", elimination=None, stop=None)
    assert found == {
        "method": "borda",
        "winners": ["c"],
        "rounds": [{"tally": {"a": 3, "b": 2, "c": 6, "d": 0}, "eliminated": [], "exhausted": 5}],
        "tieBreaks": [],
    }


def test_means_are_ranked_exactly_and_shown_with_six_places() -> None:
    ballot = BallotRules("score", ("a", "b", "c"), 0, 3, (-5, 5))
    rules = CountingRules(ballot, "mean")
    third, near = [1, 0, 0], [333_333, 1_000_000]  # 1/3 against 0.333333: equal as shown
    patterns = {ballot.encode({"scores": {"b": score}}): third.count(score) * MILLION for score in third}
    patterns[ballot.encode({"scores": {"a": 1}})] = near[0]
    patterns[ballot.encode({"scores": {"a": 0}})] = near[1] - near[0]
    outcome = count(rules, patterns)
    shown = outcome_json(outcome, ballot.option_ids)
    assert {option: str(mean) for option, mean in shown["rounds"][0]["tally"].items()} == {
        "a": "0.333333",
        "b": "0.333333",
    }
    assert shown["winners"] == ["b"]


def test_an_option_that_nobody_scored_ranks_below_a_negative_mean() -> None:
    ballot = BallotRules("score", ("a", "b"), 0, 2, (-5, 5))
    outcome = count(CountingRules(ballot, "mean"), {ballot.encode({"scores": {"b": -5}}): MILLION})
    assert outcome.winners == (1,)


@pytest.mark.parametrize(
    ("kind", "method"),
    [("single", "plurality"), ("approval", "approval"), ("ranked", "irv"), ("ranked", "borda"), ("score", "mean")],
)
@pytest.mark.parametrize("patterns", [{}, {b"": 3 * MILLION}])
def test_nobody_wins_when_no_ballot_names_anybody(kind: str, method: str, patterns: dict[bytes, int]) -> None:
    ballot = BallotRules(kind, ("a", "b", "c"), 0, 1, (0, 5) if kind == "score" else None)
    outcome = count(CountingRules(ballot, method, "single", "two"), patterns)
    assert outcome.winners == ()
    assert outcome.tie_breaks == ()
    assert [(turn.eliminated, turn.exhausted) for turn in outcome.rounds] == [((), sum(patterns.values()))]


def test_a_ballot_that_is_not_allowed_is_never_counted() -> None:
    for method in ("irv", "borda", "plurality"):
        rules, _ = ranked({}, method=method)
        with pytest.raises(InvalidBallot):
            count(rules, {b"\x00\x09": MILLION})


def test_weights_are_shown_as_people_write_them() -> None:
    rules, patterns = ranked({"a": 1, "b": 1})
    patterns = {raw: weight * 3 // 2 for raw, weight in patterns.items()} | {b"": 250_000}
    outcome = count(rules, patterns)
    assert isinstance(outcome, Outcome)
    turn = outcome_json(outcome, rules.ballot.option_ids)["rounds"][0]
    assert (str(turn["tally"]["a"]), str(turn["exhausted"])) == ("1.5", "0.25")
