"""The order that settles ties: fixed before the count begins, and the same in every round."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from psephos.domain.counting.outcome import Tally, TieBreak


@dataclass
class TieOrder:
    """The preference among options with equal tallies, and a record of every time that it mattered.

    declared: the option that is declared earlier is preferred. lot: the one whose SHA-256(seed || id) is lower.
    The preferred one wins a tie at the top; the least preferred one is eliminated in a tie at the bottom.
    """

    rule: str
    places: Sequence[int]
    """Place of each option by index; lower is preferred."""
    records: list[TieBreak] = field(default_factory=list)

    @classmethod
    def of(cls, rule: str, option_ids: Sequence[str], lot_seed: bytes | None) -> "TieOrder":
        if rule != "lot":
            return cls(rule, range(len(option_ids)))
        if lot_seed is None:
            raise ValueError("tieBreak is lot: counting needs the lot's seed")
        drawn = [hashlib.sha256(lot_seed + option.encode()).digest() for option in option_ids]
        order = sorted(range(len(option_ids)), key=lambda index: drawn[index])
        places = {index: place for place, index in enumerate(order)}
        return cls(rule, [places[index] for index in range(len(option_ids))])

    def highest(self, tally: Tally, turn: int) -> int:
        """The option with the highest tally; `turn` is the round's number, from 1."""
        most = max(tally.values())
        tied = tuple(index for index, votes in tally.items() if votes == most)
        chosen = min(tied, key=lambda index: self.places[index])
        self._record(turn, tied, chosen, "win")
        return chosen

    def lowest(self, tally: Tally, turn: int) -> int:
        """The option with the lowest tally."""
        least = min(tally.values())
        tied = tuple(index for index, votes in tally.items() if votes == least)
        chosen = max(tied, key=lambda index: self.places[index])
        self._record(turn, tied, chosen, "elimination")
        return chosen

    def descending(self, tally: Tally, options: Iterable[int]) -> tuple[int, ...]:
        """Options by descending tally; among equals, the preferred one first."""
        return tuple(sorted(options, key=lambda index: (-tally[index], self.places[index])))

    def _record(self, turn: int, tied: tuple[int, ...], chosen: int, purpose: str) -> None:
        if len(tied) > 1:
            self.records.append(TieBreak(turn, tied, chosen, purpose, self.rule))
