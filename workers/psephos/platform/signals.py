"""Signals as flags: a request to stop, and a request for the stacks of all threads."""

import faulthandler
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

#: The signal that asks a role for the stacks of its threads.
STACKS = signal.SIGUSR1


def write_stacks_when_asked() -> None:
    """Makes STACKS write the stacks of all threads of this process to its standard error, from now on."""
    with suppress(OSError, ValueError):  # standard error is not a file, as in tests
        faulthandler.register(STACKS, all_threads=True)


@dataclass
class StopRequest:
    """A flag: true once this process has been asked to stop."""

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextmanager
def stop_requests(
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
) -> Iterator[StopRequest]:
    """Turns Ctrl-C, SIGTERM and a closed terminal into a flag for the duration of the block.

    NB: a flag and not ``threading.Event``: setting an event in a handler deadlocks if the signal arrives while the
    same thread is inside ``Event.wait``. Main thread only, as Python requires for signal handlers.
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
