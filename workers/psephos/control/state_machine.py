"""The life of a session as one decision: the next step, from commands, observed state and time. Pure.

The ledger's item `closing` is the truth about the end, not the spec: a controller that was unavailable at
`closesAt` finds here exactly the step that the protocol waits for (docs/architecture.md, section 4):

1. The closing time is fixed in the ledger; whichever controller comes second adopts it.
2. The control record announces it, so that ingest refuses votes from then on; at that time its phase becomes
   Closing.
3. When the grace period is over by this machine's clock and by the brokers', counted from the announcement if that
   came late, a close marker goes into every partition, the topic is sealed, every leader is probed until it
   refuses, and each partition's end becomes a ledger item.
4. When the tally has reached each sealed end, the session is Recounting; the recount's result concludes it.

Operator and local controller are loops over `decide` and `executor`; nothing else knows the order of these steps.
"""

from dataclasses import dataclass
from enum import StrEnum

from psephos.control.commands import Commands, Voting, apply_commands
from psephos.control.observed import Closing, ObservedState
from psephos.formats.control import Control, Phase

PREPARE_AHEAD_MS = 600_000
"""How long before `opensAt` a session is prepared: until then its spec may change freely, and nothing runs."""

_COUNTING_MS = 1_000  # how often a controller that waits for the tally or the recount observes again
_RECOUNTING_MS = 2_000


class Action(StrEnum):
    """What a step does. Each can be repeated; after it the state is observed again."""

    WAIT = "wait"
    PREPARE = "prepare"
    APPLY_COMMANDS = "apply commands"
    FIX_CLOSING_TIME = "fix the closing time"
    ANNOUNCE_CLOSING_TIME = "announce the closing time"
    BEGIN_CLOSING = "begin closing"
    SEAL = "seal"
    BEGIN_RECOUNT = "begin the recount"
    CONCLUDE = "conclude"


@dataclass(frozen=True)
class Step:
    """What to do, and when to observe again at the latest (ms since 1970). `phase`: of the session now; `refused`:
    why a command can't be carried out; `closes_at`: with FIX_CLOSING_TIME, unless the control record's own time
    has come; `grace_ms`: with BEGIN_CLOSING, the grace period that counts.
    """

    action: Action
    phase: Phase
    wake_at: int | None = None
    refused: str = ""
    closes_at: int | None = None
    conclusion: Phase | None = None
    grace_ms: int | None = None


def decide(commands: Commands, observed: ObservedState, now: int) -> Step:
    """The next step at `now` (ms since 1970)."""
    control = observed.control
    if observed.genesis is None or control is None:
        return _unprepared(commands, now)
    if control.phase in (Phase.FINAL, Phase.VOID):
        return Step(Action.WAIT, control.phase)
    if commands.voting is Voting.VOID and not observed.result_sealed:  # a sealed result stands
        return Step(Action.APPLY_COMMANDS, control.phase)
    match control.phase:
        case Phase.CLOSING:
            return _closing(observed, now)
        case Phase.RECOUNTING:
            return _recounting(observed, now)
        case Phase.DISPUTED:
            return _disputed(observed, now)
        case _:
            return _voting(control, commands, observed, now)


def recount_due(observed: ObservedState) -> bool:
    """Whether a recount has work to do: the operator runs it as Jobs, the local controller as a child process."""
    if observed.control is None or observed.final is not None or observed.disputed is not None:
        return False
    return observed.control.phase in (Phase.RECOUNTING, Phase.DISPUTED)


def _unprepared(commands: Commands, now: int) -> Step:
    if commands.voting is Voting.VOID:
        return Step(Action.WAIT, Phase.VOID)
    prepare_at = (commands.opens_at or 0) - PREPARE_AHEAD_MS
    if now < prepare_at:
        return Step(Action.WAIT, Phase.PENDING, prepare_at)
    return Step(Action.PREPARE, Phase.PENDING)


def _voting(control: Control, commands: Commands, observed: ObservedState, now: int) -> Step:
    phase, closing = control.phase, observed.closing
    if closing is None and control.closed_by(now):
        return Step(Action.FIX_CLOSING_TIME, phase)
    close_at = now if commands.close_at is None and commands.voting is Voting.CLOSED else commands.close_at
    if closing is None and close_at is not None:
        return Step(Action.FIX_CLOSING_TIME, phase, closes_at=close_at)
    decision = apply_commands(control, commands, now, closing=closing is not None)
    if decision.control != control:
        return Step(Action.APPLY_COMMANDS, phase, refused=decision.refused)
    if closing is None:
        due = control.opens_at if phase is Phase.PENDING else control.closes_at
        return Step(Action.WAIT, phase, due, refused=decision.refused)
    if (control.closes_at, control.grace_ms) != (closing.closes_at, closing.grace_ms):
        return Step(Action.ANNOUNCE_CLOSING_TIME, phase, refused=decision.refused)
    if now < closing.closes_at:
        return Step(Action.WAIT, phase, closing.closes_at, refused=decision.refused)
    return Step(Action.BEGIN_CLOSING, phase, grace_ms=_grace_ms(closing, observed.control_at))


def _grace_ms(closing: Closing, announced_at: int | None) -> int:
    """The grace period, counted from the announcement where that came after the closing time.

    NB: a controller may die after it fixed the closing time and before it announced it. Ingest acknowledges votes
    until it learns of the end, for less than a grace period: markers that came sooner would make these votes late.
    """
    late = 0 if announced_at is None else max(0, announced_at - closing.closes_at)
    return closing.grace_ms + late


def _closing(observed: ObservedState, now: int) -> Step:
    if observed.markers_at is None:
        return Step(Action.FIX_CLOSING_TIME, Phase.CLOSING)
    if now < observed.markers_at:
        return Step(Action.WAIT, Phase.CLOSING, observed.markers_at)
    if not observed.sealed_whole:
        return Step(Action.SEAL, Phase.CLOSING)
    if not observed.counted:
        return Step(Action.WAIT, Phase.CLOSING, now + _COUNTING_MS)
    return Step(Action.BEGIN_RECOUNT, Phase.CLOSING)


def _recounting(observed: ObservedState, now: int) -> Step:
    if observed.final is not None:
        return Step(Action.CONCLUDE, Phase.RECOUNTING, conclusion=Phase.FINAL)
    if observed.disputed is not None:
        return Step(Action.CONCLUDE, Phase.RECOUNTING, conclusion=Phase.DISPUTED)
    return Step(Action.WAIT, Phase.RECOUNTING, now + _RECOUNTING_MS)


def _disputed(observed: ObservedState, now: int) -> Step:
    """A recount under a new name, after a repair, may still make it final."""
    if observed.final is not None:
        return Step(Action.CONCLUDE, Phase.DISPUTED, conclusion=Phase.FINAL)
    return Step(Action.WAIT, Phase.DISPUTED, now + _RECOUNTING_MS if recount_due(observed) else None)
