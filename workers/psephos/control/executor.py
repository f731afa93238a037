"""Takes the steps that `state_machine.decide` names, one after the other. Calls block.

Every step may be repeated, and may meet another controller at the same work: a conditional ledger item or the
control record's number decides between them.
"""

from collections.abc import Callable
from typing import NamedTuple

from psephos.adapters.dynamodb import Ledger
from psephos.control import closing_steps
from psephos.control.commands import Commands, apply_commands
from psephos.control.observed import ObservedState
from psephos.control.phases import change, set_phase
from psephos.control.state_machine import Action, Step, decide
from psephos.formats.control import Control, Phase
from psephos.platform.clock import now_ms
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings

MAX_STEPS = 8
_BROKERS_LATE_MS = 100  # at least: to ask them for the time costs them a record
CommandSource = Callable[[Control | None], Commands]
"""The commands for a session whose control record is this one."""
log = get_logger()


class Advanced(NamedTuple):
    """The session after every step that could be taken now, and the step that it waits for."""

    observed: ObservedState
    step: Step


class Executor(NamedTuple):
    """One session's steps. `require_lead` raises where another controller may act by now; it is called before each
    step.

    `observe` reads the observed state again.
    """

    settings: Settings
    ledger: Ledger
    observe: Callable[[], ObservedState]
    require_lead: Callable[[], None] = lambda: None

    def advance(self, commands: CommandSource, observed: ObservedState) -> Advanced:
        """Takes all steps that are due. PREPARE is left to the caller.

        Raises LifecycleError, LogUnavailable, LedgerUnavailable, and what `require_lead` raises; calling it again
        goes on.
        """
        for _ in range(MAX_STEPS):
            step = decide(commands(observed.control), observed, now_ms())
            if step.action in (Action.WAIT, Action.PREPARE):
                break
            self.require_lead()
            waiting = self.execute(step, commands, observed)
            if waiting is not None:
                return Advanced(observed, waiting)
            observed = self.observe()
        return Advanced(observed, step)

    def execute(self, step: Step, commands: CommandSource, observed: ObservedState) -> Step | None:
        """Takes one step. Returns another one if that has to be waited for first."""
        log.info("step", action=step.action.value, phase=step.phase.value)
        match step.action:
            case Action.APPLY_COMMANDS:
                self._apply(commands, closing=observed.closing is not None)
            case Action.FIX_CLOSING_TIME:
                closing_steps.fix_closing_time(self.settings, self.ledger, step.closes_at)
            case Action.ANNOUNCE_CLOSING_TIME:
                assert observed.closing is not None
                closing_steps.announce_closing_time(self.settings, observed.closing)
            case Action.BEGIN_CLOSING:
                set_phase(self.settings, Phase.CLOSING, grace_ms=step.grace_ms)
            case Action.SEAL:
                assert observed.closing is not None
                left = closing_steps.ms_by_brokers(
                    self.settings, observed.markers_at or 0, observed.closing.grace_ms
                )
                if left > 0:
                    return Step(Action.WAIT, step.phase, now_ms() + max(left, _BROKERS_LATE_MS))
                closing_steps.seal(self.settings, self.ledger, observed.closing)
            case Action.BEGIN_RECOUNT:
                set_phase(self.settings, Phase.RECOUNTING)
            case Action.CONCLUDE:
                assert step.conclusion is not None
                set_phase(self.settings, step.conclusion)
            case _:
                raise AssertionError(step)
        return None

    def _apply(self, commands: CommandSource, *, closing: bool) -> None:
        def applied(control: Control) -> Control:
            self.require_lead()  # NB: these commands may be old; reading the control record may have taken long
            return apply_commands(control, commands(control), now_ms(), closing=closing).control

        change(self.settings, applied)
