"""A wall clock that a file shifts, for processes with this folder on their PYTHONPATH.

`PSEPHOS_TEST_CLOCK` names the file; it holds seconds. The monotonic clock is left alone, as a step of a real
system clock leaves it.
"""

import os
import time

_FILE = os.environ["PSEPHOS_TEST_CLOCK"]
_real_ns = time.time_ns


def _shifted_ns() -> int:
    with open(_FILE) as file:
        return _real_ns() + int(float(file.read() or 0) * 1e9)


time.time_ns = _shifted_ns
time.time = lambda: _shifted_ns() / 1e9
