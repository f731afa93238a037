"""Changes of a session's control record: read, change, write with the next number, read back.

There is one writer by design (the operator's leader, or the local controller). Reading back makes a second
one harmless: the writer whose record was overwritten writes it again with a higher number.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from psephos.adapters.kafka import read_control, write_control
from psephos.control.errors import LifecycleError
from psephos.formats.control import Control, Phase
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings

FOLLOWING: dict[Phase, frozenset[Phase]] = {
    Phase.PENDING: frozenset({Phase.OPEN, Phase.PAUSED, Phase.CLOSING, Phase.VOID}),
    Phase.OPEN: frozenset({Phase.PAUSED, Phase.CLOSING, Phase.VOID}),
    Phase.PAUSED: frozenset({Phase.OPEN, Phase.CLOSING, Phase.VOID}),
    Phase.CLOSING: frozenset({Phase.RECOUNTING, Phase.VOID}),
    Phase.RECOUNTING: frozenset({Phase.FINAL, Phase.DISPUTED, Phase.VOID}),
    Phase.DISPUTED: frozenset({Phase.FINAL, Phase.VOID}),  # a person decides, by the runbook
    Phase.FINAL: frozenset(),
    Phase.VOID: frozenset(),
}
_ATTEMPTS = 5
log = get_logger()


def set_phase(settings: Settings, phase: Phase, *, reason: str = "", **times: Any) -> Control:
    """Moves the session to `phase`; does nothing if it is there already. `times`: closes_at, grace_ms.

    Raises LifecycleError if the phase can't follow the present one, or the session was never prepared.
    """

    def move(control: Control) -> Control:
        if control.phase is phase:
            return control
        if phase not in FOLLOWING[control.phase]:
            raise LifecycleError(f"a session that is {control.phase} can't become {phase}")
        return msgspec.structs.replace(control, phase=phase, reason=reason, **times)

    return change(settings, move)


def current(settings: Settings) -> Control:
    """The state in the control topic. Raises LifecycleError if the session was never prepared."""
    control = read_control(settings)
    if control is None:
        raise LifecycleError(f"session {settings.session_uid} has no control record: prepare it first")
    return control


def change(settings: Settings, move: Callable[[Control], Control]) -> Control:
    """Applies `move` to the present state and writes what it returns, unless that is the same."""
    for _ in range(_ATTEMPTS):
        known = current(settings)
        wanted = move(known)
        if wanted == known:
            return known
        numbered = msgspec.structs.replace(wanted, number=known.number + 1)
        write_control(settings, numbered)
        if current(settings) == numbered:
            log.info("control record written", phase=numbered.phase, number=numbered.number)
            return numbered
    raise LifecycleError("somebody else keeps changing the control record: let one of you do it")
