"""A controller in a test's hand: passes of the state machine until something holds."""

import time
from collections.abc import Callable

from tests.waiting import PATIENCE_S

from psephos.adapters.dynamodb import Ledger
from psephos.control import Action, Closing, Commands, DesiredState, Executor, ObservedState, Step, decide, observe
from psephos.control.closing_steps import ms_by_brokers
from psephos.control.desired_state import commands_of
from psephos.formats.control import Control, Phase
from psephos.platform.clock import now_ms
from psephos.platform.settings import Settings

_PAUSE_S = 0.1


def executor_of(settings: Settings) -> Executor:
    ledger = Ledger.of(settings)
    return Executor(settings, ledger, lambda: observe(settings, ledger))


def closing(control: Control | None) -> Commands:
    """The command to close: at `closesAt`, as soon as possible where there is none."""
    assert control is not None
    return commands_of(control, DesiredState(close_at=now_ms() if control.closes_at is None else None))


def close_until(
    settings: Settings, done: Callable[[ObservedState, Step], bool], timeout_s: float = PATIENCE_S
) -> ObservedState:
    """Closes the session, pass by pass, until `done` with what was observed and the step that is waited for."""
    executor, deadline = executor_of(settings), time.monotonic() + timeout_s
    while True:
        observed, step = executor.advance(closing, executor.observe())
        if done(observed, step):
            return observed
        assert time.monotonic() < deadline, (step, observed)
        time.sleep(_PAUSE_S)


def close_to_recounting(settings: Settings, timeout_s: float = PATIENCE_S) -> tuple[int, ...]:
    """Closes the session whole; returns its sealed ends."""
    observed = close_until(settings, lambda _, step: step.phase is Phase.RECOUNTING, timeout_s)
    return ends_of(observed)


def close_and_seal(settings: Settings) -> tuple[int, ...]:
    """Closes the session and seals its log, without waiting for a tally; returns its sealed ends."""
    return ends_of(close_until(settings, lambda observed, _: observed.sealed_whole))


def close_up_to_markers(settings: Settings) -> Closing:
    """Closes the session until the close markers are due by both clocks, and writes none."""
    executor = executor_of(settings)
    while True:
        observed = executor.observe()
        step = decide(closing(observed.control), observed, now_ms())
        if step.action is not Action.SEAL and step.action is not Action.WAIT:
            executor.execute(step, closing, observed)
            continue
        fixed, due = observed.closing, observed.markers_at
        if step.action is Action.SEAL and fixed and due and ms_by_brokers(settings, due, fixed.grace_ms) <= 0:
            return fixed
        time.sleep(_PAUSE_S)


def ends_of(observed: ObservedState) -> tuple[int, ...]:
    return tuple(observed.sealed[partition] for partition in range(observed.partitions))
