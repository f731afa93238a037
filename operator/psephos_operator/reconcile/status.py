"""The status of a session, from what was observed. Pure.

It holds no totals per option before the result is final, only the leader's name if results are live.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from psephos.control import ObservedState
from psephos.domain.results import cells_of, combine, embargoed, option_sums, turnout
from psephos.domain.session import Session
from psephos.formats.control import Phase
from psephos.platform.clock import text_of

SEALED, TIE = "sealed", "tie"
READY, PROGRESSING, DEGRADED, PAUSED, FINAL, DISPUTED = (
    "Ready",
    "Progressing",
    "Degraded",
    "Paused",
    "Final",
    "Disputed",
)
CONDITIONS = (READY, PROGRESSING, DEGRADED, PAUSED, FINAL, DISPUTED)
_LONGEST = 1024


@dataclass(frozen=True)
class Condition:
    """One condition as it is now. `state`: True, False, or None for unknown."""

    state: bool | None
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Report:
    """The content of a status. Conditions by type; `keep`: other members of the previous status are kept."""

    generation: int
    phase: Phase
    conditions: Mapping[str, Condition]
    members: Mapping[str, Any] = field(default_factory=dict)
    keep: bool = False


def status(report: Report, before: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Returns the status that replaces `before`. A condition's time is when its state last changed."""
    known = {condition["type"]: condition for condition in before.get("conditions", ())}
    kept = {name: value for name, value in before.items() if report.keep}
    return {
        **kept,
        **report.members,
        "observedGeneration": report.generation,
        "phase": report.phase.value,
        "conditions": [
            _condition(kind, report.conditions[kind], known.get(kind), report.generation, now)
            for kind in CONDITIONS
            if kind in report.conditions
        ],
    }


def _condition(
    kind: str, new: Condition, old: Mapping[str, Any] | None, generation: int, now: datetime
) -> dict[str, Any]:
    state = "Unknown" if new.state is None else str(new.state)
    same = old is not None and old["status"] == state
    moment = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": kind,
        "status": state,
        "reason": new.reason,
        "message": new.message[:_LONGEST],
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if same and old else moment,
    }


def figures(session: Session, observed: ObservedState) -> dict[str, Any]:
    """Returns what ledger and log say, for people: turnout, leader, partitions, result."""
    genesis, control = observed.genesis, observed.control
    if genesis is None or control is None:
        return {}
    state = combine(observed.states, cells_of(session))
    counted = turnout(state.classes, state.voters)
    members: dict[str, Any] = {
        "accepted": counted.accepted,
        "turnout": msgspec.to_builtins(counted),
        "leader": _leader(session, observed, control.phase),
        "partitions": _partitions(observed),
        "epoch": genesis.epoch,
        "publicKey": genesis.public_key,
        "receiptKey": genesis.receipt_key,
    }
    closes_at = observed.closing.closes_at if observed.closing else control.closes_at
    if closes_at is not None:
        members["closesAt"] = text_of(closes_at)
    if observed.final is not None and control.phase is Phase.FINAL:
        members["outcome"] = _outcome(observed.final)
    return members


def _partitions(observed: ObservedState) -> dict[str, int]:
    owned = {} if observed.owned is None else {"owned": observed.owned}
    sealed = {"sealed": len(observed.sealed)} if observed.sealed else {}
    verdicts = {"verdicts": len(observed.verdicts)} if observed.verdicts else {}
    return {"total": observed.partitions, **owned, **sealed, **verdicts}


def _leader(session: Session, observed: ObservedState, phase: Phase) -> str:
    """Returns the leading option; `sealed` if nobody may know it, `tie` if there is none, empty without votes."""
    if phase is Phase.FINAL and observed.final is not None:
        return ", ".join(observed.final["outcome"]["winners"])
    if embargoed(session, phase) or phase in (Phase.DISPUTED, Phase.VOID):
        return SEALED
    sums = option_sums(session, combine(observed.states, cells_of(session)).tallies)
    most = max(sums)
    leading = [option for option, total in zip(session.option_ids, sums, strict=True) if total == most]
    if not any(sums):
        return ""
    return leading[0] if len(leading) == 1 else TIE


def _outcome(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "winners": document["outcome"]["winners"],
        "totals": {option: _amount(total) for option, total in document["totals"].items()},
        "version": document["version"],
        "sealedAt": document["sealedAt"],
    }


def _amount(total: int | float | Decimal) -> int | str:
    """Returns whole votes as a number, weighted ones as exact text."""
    return total if isinstance(total, int) else str(total)
