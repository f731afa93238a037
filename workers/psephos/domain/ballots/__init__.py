"""Ballots: their canonical form, and the rules that they must obey. Pure; shared by all roles."""

from psephos.domain.ballots.rules import BallotRules, InvalidBallot

MAX_REVOTES = 100
"""Accepted ballots per voter under `revote: last`, so that what tally and recount keep per voter is bounded."""

__all__ = ["MAX_REVOTES", "BallotRules", "InvalidBallot"]
