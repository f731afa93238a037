"""How tests wait for something that happens elsewhere: poll with a deadline, never sleep and hope.

A question costs milliseconds of CPU here and in a server, which are missing then where something is to happen.
So it is asked the less often the longer it takes; a wait becomes longer by a tenth at most.
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 120.0  # it only ends a hang: what has a time of its own is asserted by that time, not by this limit
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.25
READY_S = 180.0  # for servers that start while the machine is busy with other tests


def wait_until(happened: Callable[[], T | None], what: str, timeout: float = PATIENCE_S) -> T:
    """The first true value of ``happened()``; fails with ``what`` after ``timeout`` seconds."""
    began = time.monotonic()
    while not (value := happened()):
        passed = time.monotonic() - began
        assert passed < timeout, f"not within {timeout:.0f} s: {what}"
        time.sleep(pause_s(passed))
    return value


def pause_s(passed: float) -> float:
    """Seconds until the next attempt, `passed` seconds after the first one."""
    return min(max(FIRST_PAUSE_S, passed / 10), LONGEST_PAUSE_S)
