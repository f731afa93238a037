"""The outcome of a count: winners, rounds, and the ties that a rule had to settle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from psephos.domain.counting.amounts import amount

Patterns = Mapping[bytes, int]
"""Maps each canonical ballot to its summed weight in millionths."""

Tally = Mapping[int, int | Fraction]
"""Maps option indexes to millionths; to a Fraction of them only if the method divides (mean)."""


@dataclass(frozen=True)
class Round:
    """One round. `tally` lists the continuing options in declared order; `eliminated` are those that go out after
    it, highest tally first; `exhausted` is the weight, in millionths, of ballots that name no continuing option,
    including blanks."""

    tally: Tally
    eliminated: tuple[int, ...]
    exhausted: int


@dataclass(frozen=True)
class TieBreak:
    """A tie that decided something in round `round` (from 1): of the options `tied`, all with the same tally,
    `chosen` was selected for `purpose`, by the rule `rule`."""

    round: int
    tied: tuple[int, ...]
    chosen: int
    purpose: str
    """win | elimination"""
    rule: str
    """declared | lot"""


@dataclass(frozen=True)
class Outcome:
    """The outcome. `winners` has one option, or none if no ballot names any."""

    method: str
    winners: tuple[int, ...]
    rounds: tuple[Round, ...]
    tie_breaks: tuple[TieBreak, ...]


def outcome_json(outcome: Outcome, option_ids: Sequence[str]) -> dict[str, Any]:
    """The outcome with ids and readable amounts, as published. Numbers are int or Decimal."""
    return {
        "method": outcome.method,
        "winners": [option_ids[index] for index in outcome.winners],
        "rounds": [_round_json(turn, option_ids) for turn in outcome.rounds],
        "tieBreaks": [_tie_break_json(tie, option_ids) for tie in outcome.tie_breaks],
    }


def _round_json(turn: Round, option_ids: Sequence[str]) -> dict[str, Any]:
    return {
        "tally": {option_ids[index]: _shown(votes) for index, votes in turn.tally.items()},
        "eliminated": [option_ids[index] for index in turn.eliminated],
        "exhausted": amount(turn.exhausted),
    }


def _tie_break_json(tie: TieBreak, option_ids: Sequence[str]) -> dict[str, Any]:
    return {
        "round": tie.round,
        "tied": [option_ids[index] for index in tie.tied],
        "chosen": option_ids[tie.chosen],
        "purpose": tie.purpose,
        "rule": tie.rule,
    }


def _shown(millionths: int | Fraction) -> int | Decimal:
    """Rounds to six places, half to even, for display only; ranking compares the exact fractions."""
    return amount(round(millionths))
