"""Signals as flags: a request to stop, and a request for the stacks of all threads."""

import faulthandler
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

#: Asks a role for the stacks of its threads.
STACKS = signal.SIGUSR1


def write_stacks_when_asked() -> None:
    """From now on STACKS makes this process write the stacks of all its threads to its standard error."""
    with suppress(OSError, ValueError):  # standard error is not a file, as in a test
        faulthandler.register(STACKS, all_threads=True)


@dataclass
class StopRequest:
    """Whether somebody asked this process to stop. Its truth value is the answer."""

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextmanager
def stop_requests(
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
) -> Iterator[StopRequest]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into a flag for the time of the block.

    NB: a flag and not ``threading.Event``: setting an event in a handler deadlocks when the signal arrives
    while the same thread is inside ``Event.wait``. Main thread only, as Python demands of signal handlers.
    """
    request = StopRequest()

    def note(number: int, _frame: object) -> None:
        request.signal_number = number

    before = {number: signal.signal(number, note) for number in signals}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
