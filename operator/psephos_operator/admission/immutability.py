"""CEL rules, checked by the API server itself, for what may not change in a session and from when on. Pure.

A session is prepared ten minutes before it opens (at once without `opensAt`). Genesis then fixes the rules of
counting, and `status.epoch` shows it. The reconcile pass compares with the genesis as well: a rule that is not
enforced (because the status was lost) still changes no count.
"""

from typing import Any

_PREPARED = "!has(oldSelf.status) || !has(oldSelf.status.epoch)"
_CLOSED = "['Closing', 'Recounting', 'Final', 'Disputed', 'Void']"
_OPENED = "['Open', 'Paused', 'Closing', 'Recounting', 'Final', 'Disputed', 'Void']"

_FIXED = (
    "ballot.type",
    "ballot.min",
    "ballot.max",
    "ballot.scale",
    "ballot.method",
    "ballot.elimination",
    "ballot.stop",
    "ballot.tieBreak",
    "voters.eligibility",
    "voters.revote",
    "voters.votesPerVoter",
    "voters.segments",
    "voters.tokens.weightClaim",
    "voters.tokens.segmentClaim",
    "capacity.partitions",
    "closeGrace",
)
"""Paths below spec that are fixed once the session is prepared, in addition to the options' ids in their order."""


def rules() -> list[dict[str, Any]]:
    """Returns `x-kubernetes-validations` of the whole object: transition rules, which do not apply to creation."""
    return [
        *(
            _rule(path, f"{_PREPARED} || {_same(path)}", "is fixed since the session was prepared")
            for path in _FIXED
        ),
        _rule(
            "ballot.options",
            f"{_PREPARED} || self.spec.ballot.options.map(o, o.id) == oldSelf.spec.ballot.options.map(o, o.id)",
            "ids and their order are fixed since the session was prepared; labels may change",
        ),
        _rule(
            "results.visibility",
            f"{_PREPARED} || self.spec.results.visibility == 'afterClose'"
            " || oldSelf.spec.results.visibility == 'live'",
            "an embargo can't be loosened",
        ),
        _rule("opensAt", f"{_before(_OPENED)} || {_same('opensAt')}", "is fixed: the session has opened"),
        _rule("closesAt", f"{_before(_CLOSED)} || {_same('closesAt')}", "is fixed: closing has begun"),
        _rule(
            "closesAt",
            f"{_before(_OPENED)} || !has(oldSelf.spec.closesAt) || !has(self.spec.closesAt)"
            " || self.spec.closesAt >= oldSelf.spec.closesAt",
            "can only be moved to later while the session is open",
        ),
    ]


def _before(phases: str) -> str:
    return f"!has(oldSelf.status) || !has(oldSelf.status.phase) || !(oldSelf.status.phase in {phases})"


def _same(path: str) -> str:
    """Returns the condition that both have the field and it is equal, or that neither has it."""
    new, old = _guarded("self", path), _guarded("oldSelf", path)
    return f"({new} == {old} && (!{new} || self.spec.{path} == oldSelf.spec.{path}))"


def _guarded(root: str, path: str) -> str:
    """Returns the condition that the field and all its parents are there."""
    parts = path.split(".")
    tests = [f"has({root}.spec.{'.'.join(parts[: count + 1])})" for count in range(len(parts))]
    return f"({' && '.join(tests)})"


def _rule(path: str, rule: str, message: str) -> dict[str, Any]:
    return {"rule": rule, "message": f"spec.{path}: {message}", "fieldPath": f".spec.{path}"}
