"""Several ingest processes behind one port: the kernel spreads connections over their sockets (SO_REUSEPORT).

A crashed one is started again, with back-off; none outlives this process.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from psephos.ingest.listener import bind
from psephos.observability import get_logger
from psephos.process import POLL_INTERVAL, ChildProcess, StopRequest, stop_requests, stop_together
from psephos.settings import Settings, SettingsError, environment

GRACE_S = 25.0  # above the time that a process takes to drain
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 30.0
SOUND_AFTER_S = 60.0  # a process that ran so long starts with the first delay again
CONFIGURATION_ERROR = 2  # exit code
log = get_logger()


def run(settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT. Raises SettingsError when a process can't start at all."""
    with stop_requests() as stop, _reserved(settings) as port:
        members = [Member(index, port, settings) for index in range(settings.ingest_processes)]
        try:
            _look_after(members, stop)
        finally:
            stop_together([member.process for member in members])
    log.info("stopped")


class Member:
    """One process, and when it is to be started next."""

    def __init__(self, index: int, port: int, settings: Settings) -> None:
        self.index = index
        command = [sys.executable, "-m", "psephos.ingest", "--index", str(index)]
        env = environment(settings, ingest_port=port, ingest_processes=1)
        self.process = ChildProcess(f"ingest process {index}", command, None, env, grace=GRACE_S)
        self._starts = 0
        self._delay_s = 0.0
        self._due = self._started = time.monotonic()
        self._seen_running = False

    def look_after(self, now: float) -> None:
        """Starts the process when it is due, and sets the time for it when it has ended. Raises SettingsError."""
        if self.process.running:
            return
        if self._seen_running:
            self._seen_running = False
            self._ended(now)
        if now >= self._due:
            self.process.start()
            self._starts, self._started, self._seen_running = self._starts + 1, now, True

    def _ended(self, now: float) -> None:
        code = self.process.exit_code
        if code == CONFIGURATION_ERROR and self._starts == 1:
            raise SettingsError(f"{self.process.name} could not start; it says why above")
        sound = now - self._started >= SOUND_AFTER_S
        self._delay_s = FIRST_DELAY_S if sound else next_delay_s(self._delay_s)
        self._due = now + self._delay_s
        log.warning("process ended", process=self.index, exit_code=code, again_in_s=self._delay_s)


def next_delay_s(delay_s: float) -> float:
    """Twice the delay before, within limits."""
    return min(max(FIRST_DELAY_S, 2 * delay_s), LONGEST_DELAY_S)


def _look_after(members: list[Member], stop: StopRequest) -> None:
    while not stop:
        for member in members:
            member.look_after(time.monotonic())
        time.sleep(POLL_INTERVAL)


@contextmanager
def _reserved(settings: Settings) -> Iterator[int]:
    """The port, held for our processes: nobody else's socket is on it, and port 0 becomes the same for all."""
    with bind(settings, shared=False) as alone:
        port = alone.getsockname()[1]
    with bind(settings.model_copy(update={"ingest_port": port}), shared=True):
        yield port
