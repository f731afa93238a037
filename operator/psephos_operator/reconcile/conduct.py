"""Takes the steps that `life.decide` names, one after the other, by means of `psephos.control`. Calls block."""

from collections.abc import Callable
from typing import NamedTuple

from psephos.adapters.kafka import broker_time_ms
from psephos.control import Orders, obey, set_phase
from psephos.control.closing import fix_closing, seal, tell
from psephos.control.phases import change
from psephos.formats.control import Control, Phase
from psephos.platform.clock import now_ms
from psephos.platform.logs import get_logger
from psephos_operator.reconcile.backends import Backends, Standing
from psephos_operator.reconcile.life import Do, Step, decide

MOST_STEPS = 8
_BROKERS_LATE_MS = 500
log = get_logger()


class Conducted(NamedTuple):
    """The observed state after all that could be done now, and the step that the session waits for."""

    standing: Standing
    step: Step


def conduct(
    backends: Backends,
    uid: str,
    orders: Orders,
    standing: Standing,
    look: Callable[[], Standing],
    leading: Callable[[], None],
) -> Conducted:
    """Takes all steps that are due. `look` reads the observed state again. PREPARE is left to the caller.

    `leading` raises NotLeading if another replica may be leading by now; it is called before each step.

    Raises LifecycleError, LogUnavailable, LedgerUnavailable, NotLeading; another call continues from there.
    """
    for _ in range(MOST_STEPS):
        step = decide(orders, standing, now_ms())
        if step.do in (Do.WAIT, Do.PREPARE):
            break
        leading()
        begun = _take(backends, uid, orders, standing, step, leading)
        if begun is not None:
            return Conducted(standing, begun)
        standing = look()
    return Conducted(standing, step)


def _take(
    backends: Backends, uid: str, orders: Orders, standing: Standing, step: Step, leading: Callable[[], None]
) -> Step | None:
    """Takes one step. Returns another one, to wait, if it can't be taken yet."""
    settings = backends.role_settings(uid)
    log.info("step", what=step.do.value, phase=step.phase.value)
    match step.do:
        case Do.OBEY:
            closing = standing.closing is not None

            def obeyed(control: Control) -> Control:
                leading()  # NB: these commands may be old; reading the control record may have taken long
                return obey(control, orders, now_ms(), closing=closing).control

            change(settings, obeyed)
        case Do.FIX_END:
            fix_closing(settings, backends.ledger(uid), step.closes_at)
        case Do.TELL_END:
            assert standing.closing is not None
            tell(settings, standing.closing)
        case Do.BEGIN_CLOSING:
            set_phase(settings, Phase.CLOSING)
        case Do.SEAL:
            assert standing.closing is not None
            late = standing.closing.markers_at - broker_time_ms(settings)
            if late > 0:  # the brokers' clock must have passed too, so that voting is never cut short
                return Step(Do.WAIT, step.phase, now_ms() + max(late, _BROKERS_LATE_MS))
            seal(settings, backends.ledger(uid), standing.closing)
        case Do.BEGIN_RECOUNT:
            set_phase(settings, Phase.RECOUNTING)
        case Do.CONCLUDE:
            assert step.conclusion is not None
            set_phase(settings, step.conclusion)
        case _:
            raise AssertionError(step)
    return None
