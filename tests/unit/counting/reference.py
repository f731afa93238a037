"""The counting methods once more, as their textbooks say it: ballot by ballot, slow, sharing no code.

A ballot is what a voter wrote (a list of ids, or a mapping of scores) with its weight as a Fraction.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

Ballot = tuple[Any, Fraction]
Tally = dict[str, Fraction]


def named(options: Sequence[str], ballots: Sequence[Ballot]) -> Tally:
    tally = dict.fromkeys(options, Fraction(0))
    for choices, weight in ballots:
        for option in choices:
            tally[option] += weight
    return tally


def first_preferences(options: Sequence[str], ballots: Sequence[Ballot]) -> Tally:
    return named(options, [(choices[:1], weight) for choices, weight in ballots])


def borda(options: Sequence[str], ballots: Sequence[Ballot]) -> Tally:
    tally = dict.fromkeys(options, Fraction(0))
    for choices, weight in ballots:
        for points, option in zip(range(len(options) - 1, -1, -1), choices, strict=False):
            tally[option] += points * weight
    return tally


def score_sum(options: Sequence[str], ballots: Sequence[Ballot]) -> Tally:
    return {o: sum((s[o] * w for s, w in ballots if o in s), Fraction(0)) for o in options}


def score_mean(options: Sequence[str], ballots: Sequence[Ballot]) -> Tally:
    weights = {o: sum((w for s, w in ballots if o in s), Fraction(0)) for o in options}
    sums = score_sum(options, ballots)
    return {o: sums[o] / weights[o] for o in options if weights[o]}


def winner(tally: Mapping[str, Fraction], preferred: Sequence[str]) -> str:
    """The highest; of equal ones the first in the tie order."""
    return next(o for o in preferred if o in tally and tally[o] == max(tally.values()))


def irv(
    options: Sequence[str], ballots: Sequence[Ballot], preferred: Sequence[str], *, batch: bool, majority: bool
) -> list[tuple[Tally, set[str], Fraction]]:
    """(tally, eliminated, exhausted) of each round; every ballot is looked at anew in every round."""
    continuing, rounds = list(options), []
    while True:
        tally = dict.fromkeys(continuing, Fraction(0))
        exhausted = Fraction(0)
        for choices, weight in ballots:
            top = next((o for o in choices if o in continuing), None)
            if top is None:
                exhausted += weight
            else:
                tally[top] += weight
        votes = sum(tally.values())
        decided = len(continuing) <= 2 or votes == 0 or (majority and max(tally.values()) > votes / 2)
        out = set() if decided else losers(tally, preferred, batch=batch)
        rounds.append((tally, out, exhausted))
        if decided:
            return rounds
        continuing = [o for o in continuing if o not in out]


def losers(tally: Tally, preferred: Sequence[str], *, batch: bool) -> set[str]:
    if batch:
        # Every set that is closed downwards is the options below some other option's tally.
        for bar in sorted(set(tally.values()), reverse=True):
            lower = {o for o in tally if tally[o] < bar}
            if lower and len(tally) - len(lower) >= 2 and sum(tally[o] for o in lower) < bar:
                return lower
    last = [o for o in preferred if o in tally and tally[o] == min(tally.values())]
    return {last[-1]}
