"""How tests wait for something that happens elsewhere: poll with a deadline, never sleep and hope."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 120.0  # it only ends a hang: what has a time of its own is asserted by that time, not by this limit
READY_S = 180.0  # for servers that start while the machine is busy with other tests


def wait_until(happened: Callable[[], T | None], what: str, timeout: float = PATIENCE_S) -> T:
    """The first true value of ``happened()``; fails with ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := happened()):
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.02)
    return value
