"""Decides the next step in a session's life, from people's commands and from what ledger and log say. Pure.

The ledger's item `closing`, not the spec, is the truth about the end: an operator that was down at `closesAt`
finds here exactly the step that the protocol waits for (docs/architecture.md, section 4).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from psephos.control import Orders, Voting, obey
from psephos.control.orders import BEFORE_CLOSING
from psephos.domain.session import Session
from psephos.formats.control import Control, Phase
from psephos.platform.clock import ms_of, text_of
from psephos_operator.reconcile.backends import Standing

VOTING, REASON = "psephos.dev/voting", "psephos.dev/reason"
RECONCILE, RECOUNT = "psephos.dev/reconcile", "psephos.dev/recount"
PAUSED = "paused"
FINAL_RUN = "final"
_RUN = re.compile(r"final(-[1-9][0-9]{0,3})?")

PREPARE_AHEAD_MS = 600_000
"""How long before `opensAt` a session is prepared: until then its spec may change freely, and nothing runs."""

_COUNTING_MS = 1_000  # how often an operator polls while it waits for tally or recount
_RECOUNTING_MS = 2_000


class Do(StrEnum):
    """A step. Each can be repeated; after each one everything is observed again."""

    WAIT = "wait"
    PREPARE = "prepare"
    OBEY = "obey"
    FIX_END = "fix the end"
    TELL_END = "tell the end"
    BEGIN_CLOSING = "begin closing"
    SEAL = "seal"
    BEGIN_RECOUNT = "begin the recount"
    CONCLUDE = "conclude"


@dataclass(frozen=True)
class Step:
    """The action, and when the next pass is due at the latest (ms since 1970). `phase`: of the session now;
    `refused`: why a command can't be obeyed; `closes_at`: with FIX_END, unless the control record's own time has
    come."""

    do: Do
    phase: Phase
    wake_at: int | None = None
    refused: str = ""
    closes_at: int | None = None
    conclusion: Phase | None = None


def orders_of(session: Session) -> tuple[Orders, str]:
    """Returns the commands in spec and annotations, and what is wrong with them."""
    annotations, wrong = session.metadata.annotations, ""
    try:
        voting = Voting(annotations.get(VOTING, ""))
    except ValueError:
        allowed = ", ".join(each.value for each in Voting if each.value)
        voting, wrong = Voting.GOES_ON, f"annotation {VOTING}: found {annotations[VOTING]!r}; allowed: {allowed}"
    spec = session.spec
    return Orders(voting, annotations.get(REASON, ""), ms_of(spec.opens_at), ms_of(spec.closes_at)), wrong


def orders_of_control(control: Control | None, annotations: Mapping[str, str]) -> Orders:
    """Returns the commands of a session whose spec can't be read, with its last known times."""
    words = annotations.get(VOTING, "")
    voting = Voting(words) if words in list(Voting) else Voting.GOES_ON
    times = (None, None) if control is None else (control.opens_at, control.closes_at)
    return Orders(voting, annotations.get(REASON, ""), *times)


def run_of(annotations: Mapping[str, str]) -> str:
    """Returns the name of the final recount: `final`, or another one that an annotation gives after a repair."""
    wanted = annotations.get(RECOUNT, FINAL_RUN)
    return wanted if _RUN.fullmatch(wanted) else FINAL_RUN


def reconcile_paused(annotations: Mapping[str, str]) -> bool:
    """Returns whether an annotation asks the operator to leave this session alone."""
    return annotations.get(RECONCILE) == PAUSED


def recounting(standing: Standing) -> bool:
    """Returns whether the Jobs of this run have work to do."""
    if standing.control is None or standing.final is not None or standing.disputed is not None:
        return False
    return standing.control.phase in (Phase.RECOUNTING, Phase.DISPUTED)


def decide(orders: Orders, standing: Standing, now: int) -> Step:
    """Returns the next step at `now` (ms since 1970)."""
    control = standing.control
    if standing.genesis is None or control is None:
        return _before(orders, now)
    if control.phase in (Phase.FINAL, Phase.VOID):
        return Step(Do.WAIT, control.phase)
    if orders.voting is Voting.VOID and standing.final is None:  # a sealed result stands
        return Step(Do.OBEY, control.phase)
    match control.phase:
        case Phase.CLOSING:
            return _closing(standing, now)
        case Phase.RECOUNTING:
            return _recounting(standing, now)
        case Phase.DISPUTED:
            return _disputed(standing, now)
        case _:
            return _voting(control, orders, standing, now)


def _before(orders: Orders, now: int) -> Step:
    if orders.voting is Voting.VOID:
        return Step(Do.WAIT, Phase.VOID)
    prepare_at = (orders.opens_at or 0) - PREPARE_AHEAD_MS
    if now < prepare_at:
        return Step(Do.WAIT, Phase.PENDING, prepare_at)
    return Step(Do.PREPARE, Phase.PENDING)


def _voting(control: Control, orders: Orders, standing: Standing, now: int) -> Step:
    phase, closing = control.phase, standing.closing
    if closing is None and (control.closed_by(now) or orders.voting is Voting.CLOSED):
        return Step(Do.FIX_END, phase, closes_at=None if control.closed_by(now) else now)
    obeyed = obey(control, orders, now, closing=closing is not None)
    if obeyed.control != control:
        return Step(Do.OBEY, phase, refused=obeyed.refused)
    if closing is None:
        due = control.opens_at if phase is Phase.PENDING else control.closes_at
        return Step(Do.WAIT, phase, due, refused=obeyed.refused)
    if (control.closes_at, control.grace_ms) != (closing.closes_at, closing.grace_ms):
        return Step(Do.TELL_END, phase, refused=obeyed.refused)
    if now < closing.closes_at:
        return Step(Do.WAIT, phase, closing.closes_at, refused=obeyed.refused)
    return Step(Do.BEGIN_CLOSING, phase)


def _closing(standing: Standing, now: int) -> Step:
    closing = standing.closing
    if closing is None:
        return Step(Do.FIX_END, Phase.CLOSING)
    if now < closing.markers_at:
        return Step(Do.WAIT, Phase.CLOSING, closing.markers_at)
    if not standing.sealed_whole:
        return Step(Do.SEAL, Phase.CLOSING)
    if not standing.counted:
        return Step(Do.WAIT, Phase.CLOSING, now + _COUNTING_MS)
    return Step(Do.BEGIN_RECOUNT, Phase.CLOSING)


def _recounting(standing: Standing, now: int) -> Step:
    if standing.final is not None:
        return Step(Do.CONCLUDE, Phase.RECOUNTING, conclusion=Phase.FINAL)
    if standing.disputed is not None:
        return Step(Do.CONCLUDE, Phase.RECOUNTING, conclusion=Phase.DISPUTED)
    return Step(Do.WAIT, Phase.RECOUNTING, now + _RECOUNTING_MS)


def _disputed(standing: Standing, now: int) -> Step:
    """Next step of a disputed session: a recount under a new name, after a repair, may still make it final."""
    if standing.final is not None:
        return Step(Do.CONCLUDE, Phase.DISPUTED, conclusion=Phase.FINAL)
    return Step(Do.WAIT, Phase.DISPUTED, now + _RECOUNTING_MS if recounting(standing) else None)


def transition_at(session: Session, standing: Standing) -> int | None:
    """Returns when the clock opens or closes the session (ms since 1970), None if nothing is due by the clock."""
    control = standing.control
    if control is None:
        return ms_of(session.spec.opens_at)
    if control.phase is Phase.PENDING:
        return control.opens_at
    return control.closes_at if control.phase in BEFORE_CLOSING else None


def told(at: int | None) -> str:
    """Returns a time as text for people, empty if there is none."""
    return "" if at is None else text_of(at)
