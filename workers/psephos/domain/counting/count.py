"""The counting methods, each a reading of the same aggregated ballots.

========= ======================================================================================
plurality most votes; for ranked ballots, most first preferences
approval  named on most ballots
irv       see `psephos.domain.counting.irv`
borda     with n options, n-1 points for a first preference, n-2 for a second, and so on; options
          that a ballot does not rank get nothing from it, and its remaining points are not shared
sum       highest sum of scores
mean      highest mean of the scores it was given, weighted, compared as exact fractions; an option
          without any score has no mean, is not in the tally and ranks last
========= ======================================================================================

One option wins. If no ballot names any option, none wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from psephos.domain.ballots import BallotRules
from psephos.domain.counting.amounts import MILLION
from psephos.domain.counting.irv import instant_runoff
from psephos.domain.counting.outcome import Outcome, Patterns, Round, Tally
from psephos.domain.counting.ties import TieOrder
from psephos.domain.session import Session


@dataclass(frozen=True)
class CountingRules:
    """All that the outcome depends on, apart from the ballots."""

    ballot: BallotRules
    method: str
    elimination: str | None = None
    stop: str | None = None
    tie_break: str = "declared"

    @classmethod
    def of(cls, session: Session) -> CountingRules:
        ballot = session.spec.ballot
        return cls(BallotRules.of(session), ballot.method, ballot.elimination, ballot.stop, ballot.tie_break)


def totals(rules: CountingRules, patterns: Patterns) -> tuple[int, ...]:
    """Millionths by option index: votes (single, approval), first preferences (ranked), sums (score).

    Raises:
        InvalidBallot: for a pattern that the ballot rules do not allow.
    """
    sums = [0] * len(rules.ballot.option_ids)
    for raw, weight in patterns.items():
        for index, units in rules.ballot.contributions(raw):
            sums[index] += units * weight
    return tuple(sums)


def count(rules: CountingRules, patterns: Patterns, *, lot_seed: bytes | None = None) -> Outcome:
    """The outcome of these ballots; it does not depend on the order of `patterns`.

    Raises:
        InvalidBallot: for a pattern that the ballot rules do not allow.
        ValueError: if `tie_break` is lot and there is no `lot_seed`.
    """
    ties = TieOrder.of(rules.tie_break, rules.ballot.option_ids, lot_seed)
    blank = patterns.get(b"", 0)
    if rules.method == "irv":
        rounds = _instant_runoff(rules, patterns, blank, ties)
    else:
        rounds = (Round(_tally(rules, patterns), (), blank),)
    if sum(patterns.values()) == blank:
        return Outcome(rules.method, (), rounds, ())
    winner = ties.highest(rounds[-1].tally, len(rounds))
    return Outcome(rules.method, (winner,), rounds, tuple(ties.records))


def _instant_runoff(rules: CountingRules, patterns: Patterns, blank: int, ties: TieOrder) -> tuple[Round, ...]:
    preferences = {rules.ballot.preferences(raw): weight for raw, weight in patterns.items() if raw}
    return instant_runoff(
        len(rules.ballot.option_ids),
        preferences,
        blank,
        batch=rules.elimination == "batch",
        majority=rules.stop == "majority",
        ties=ties,
    )


def _tally(rules: CountingRules, patterns: Patterns) -> Tally:
    if rules.method == "borda":
        return _points(rules.ballot, patterns)
    if rules.method == "mean":
        return _means(rules.ballot, patterns)
    return dict(enumerate(totals(rules, patterns)))


def _points(ballot: BallotRules, patterns: Patterns) -> Mapping[int, int]:
    options = len(ballot.option_ids)
    points = dict.fromkeys(range(options), 0)
    for raw, weight in patterns.items():
        for place, index in enumerate(ballot.preferences(raw), start=1):
            points[index] += (options - place) * weight
    return points


def _means(ballot: BallotRules, patterns: Patterns) -> Mapping[int, Fraction]:
    """Mean scores in millionths: sum of score x weight, divided by the weight of the voters who gave a score."""
    options = range(len(ballot.option_ids))
    sums, weights = [0 for _ in options], [0 for _ in options]
    for raw, weight in patterns.items():
        for index, score in ballot.contributions(raw):
            sums[index] += score * weight
            weights[index] += weight
    return {index: Fraction(sums[index] * MILLION, weights[index]) for index in options if weights[index]}
