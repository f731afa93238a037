"""Crash points: where the fault suite kills or stops this process at a named step of a round.

When off, they cost a call to an empty function per round, not per vote. `PSEPHOS_TEST_CRASH_AT=after-put:3` ends
the process as SIGKILL would when it reaches the step `after-put` for the third time; `PSEPHOS_TEST_STOP_AT` stops
it there (SIGSTOP) until it is resumed, like a paused machine.
"""

import os
import signal
from collections.abc import Callable

CRASH, STOP = "PSEPHOS_TEST_CRASH_AT", "PSEPHOS_TEST_STOP_AT"
STEPS = (
    "recovering",  # a step of recovery was committed to the store
    "fetched",  # records are pending, nothing is decided
    "decided",  # the block is built, the store's transaction is open, nothing is put
    "after-put",  # the ledger holds the block, the store does not
    "committed",  # the store holds it too, nothing is published
    "publishing",  # the round's stores are committed, its transaction has not begun
    "in-transaction",  # tallies and offsets are sent, the transaction is open
    "published",  # the transaction is committed
)


def _armed(variable: str, number: signal.Signals) -> Callable[[str], None]:
    at = os.environ[variable]
    wanted, _, times = at.partition(":")
    if wanted not in STEPS or not (times or "1").isdigit():
        raise ValueError(f"{variable}={at!r}: allowed are {', '.join(STEPS)}, and :N for the Nth time")
    left = int(times or 1)

    def crash_point(step: str) -> None:
        nonlocal left
        if step == wanted:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)

    return crash_point


def _off(_step: str) -> None:
    """Injects no fault."""


def _crash_point() -> Callable[[str], None]:
    for variable, number in ((CRASH, signal.SIGKILL), (STOP, signal.SIGSTOP)):
        if variable in os.environ:
            return _armed(variable, number)
    return _off


crash_point: Callable[[str], None] = _crash_point()
