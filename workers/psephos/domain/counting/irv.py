"""Instant-runoff voting (the alternative vote, ranked choice) on aggregated ballots.

Each ballot counts for its highest option that is still continuing; when all its options are eliminated it is
exhausted, and a blank is exhausted from the start. A round ends the count if the stop rule is met; otherwise it
eliminates options and the next round continues the count:

- `single`: the one option with the lowest tally.
- `batch`: the largest set of lowest options whose tallies sum to less than the next higher one's, so that none of
  them could ever catch up, with at least two options left. Without such a set (a tie at the bottom), the lowest
  one.

A ballot is moved only when the option that holds it is eliminated, so the whole count is linear in the sum of the
ballots' lengths, however many rounds there are and however different the ballots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from psephos.domain.counting.outcome import Round
from psephos.domain.counting.ties import TieOrder

_FINALISTS = 2
"""With two options left, one has at least half of the votes: no further elimination is needed."""

Piled = tuple[tuple[int, ...], int, int]
"""A ballot's preferences, the position of the one that holds it, and its weight in millionths."""


@dataclass
class Piles:
    """The place of each ballot: with the continuing option that holds it, or exhausted."""

    held: dict[int, list[Piled]]
    tally: dict[int, int]
    exhausted: int = 0
    continuing: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, options: int, preferences: Mapping[tuple[int, ...], int], blank: int) -> "Piles":
        piles = cls({index: [] for index in range(options)}, dict.fromkeys(range(options), 0), blank)
        piles.continuing = set(range(options))
        for ranking, weight in preferences.items():
            piles._place(ranking, 0, weight)
        return piles

    def eliminate(self, losers: tuple[int, ...]) -> None:
        moving = [self.held.pop(index) for index in losers]
        for index in losers:
            del self.tally[index]
            self.continuing.remove(index)
        for pile in moving:
            for ranking, position, weight in pile:
                self._place(ranking, position + 1, weight)

    def _place(self, ranking: tuple[int, ...], start: int, weight: int) -> None:
        continuing = self.continuing
        for position in range(start, len(ranking)):
            option = ranking[position]
            if option in continuing:
                self.held[option].append((ranking, position, weight))
                self.tally[option] += weight
                return
        self.exhausted += weight


def instant_runoff(
    options: int,
    patterns: Mapping[tuple[int, ...], int],
    blank: int,
    *,
    batch: bool,
    majority: bool,
    ties: TieOrder,
) -> tuple[Round, ...]:
    """All rounds; the last one eliminates no option, and its highest option wins.

    `patterns`: preferences -> millionths, without blanks, whose weight is `blank`.
    """
    piles = Piles.of(options, patterns, blank)
    rounds: list[Round] = []
    while not _ends(piles.tally, majority=majority):
        losers = _losers(piles.tally, len(rounds) + 1, ties, batch=batch)
        rounds.append(Round(dict(piles.tally), losers, piles.exhausted))
        piles.eliminate(losers)
    rounds.append(Round(dict(piles.tally), (), piles.exhausted))
    return tuple(rounds)


def _ends(tally: Mapping[int, int], *, majority: bool) -> bool:
    votes = sum(tally.values())
    if len(tally) <= _FINALISTS or votes == 0:
        return True
    return majority and 2 * max(tally.values()) > votes


def _losers(tally: Mapping[int, int], turn: int, ties: TieOrder, *, batch: bool) -> tuple[int, ...]:
    hopeless = _hopeless(tally) if batch else ()
    return ties.descending(tally, hopeless) if hopeless else (ties.lowest(tally, turn),)


def _hopeless(tally: Mapping[int, int]) -> tuple[int, ...]:
    """The largest set of lowest options that together stay below the next higher one."""
    ascending = sorted(tally, key=lambda index: tally[index])
    together, largest = 0, 0
    for number, index in enumerate(ascending[:-_FINALISTS], start=1):
        together += tally[index]
        if together < tally[ascending[number]]:
            largest = number
    return tuple(ascending[:largest])
