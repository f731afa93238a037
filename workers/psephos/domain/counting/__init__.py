"""Counting methods: from aggregated ballots to an outcome with every round. Pure, exact, no float.

`Patterns` maps a ballot's canonical bytes to the summed weight of the voters who cast it, in millionths, so a
million equal ballots cost as much as one.
"""

from psephos.domain.counting.amounts import MILLION, amount
from psephos.domain.counting.count import CountingRules, count, totals
from psephos.domain.counting.outcome import Outcome, Patterns, Round, TieBreak, outcome_json

__all__ = [
    "MILLION",
    "CountingRules",
    "Outcome",
    "Patterns",
    "Round",
    "TieBreak",
    "amount",
    "count",
    "outcome_json",
    "totals",
]
