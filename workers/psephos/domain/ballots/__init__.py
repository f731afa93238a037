"""What a ballot is: its one canonical form and the rules that it must keep. Pure; shared by all roles."""

from psephos.domain.ballots.rules import BallotRules, InvalidBallot

MAX_REVOTES = 100
"""Accepted ballots a voter under `revote: last`; what tally and recount remember of a voter stays bounded."""

__all__ = ["MAX_REVOTES", "BallotRules", "InvalidBallot"]
