"""Audits of an open session at the times of its `recount.schedule`, each in a separate process.

They work like a CronJob with `concurrencyPolicy: Forbid` in a cluster: never two at once, a missed one is not made
up for, and one that takes too long is ended. An audit that finds a difference changes nothing in the session:
voting goes on, and people decide (docs/runbooks/disputed.md).
"""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from psephos.adapters.kafka import LogUnavailable
from psephos.control import LifecycleError
from psephos.control.phases import current
from psephos.formats.control import Phase
from psephos.platform.child_process import ChildProcess, ProcessError
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings
from psephos.roles.recount.report import DIFFERS
from psephos.roles.serve import metrics

LONGEST_S: Final = 900.0
_AUDITED: Final = frozenset({Phase.OPEN, Phase.PAUSED})
_LOOK_S: Final = 1.0  # the clock may be set while we wait
_POLL_S: Final = 0.1
AGREES, DIFFERENT, FAILED, TOO_LONG = "agrees", "differs", "failed", "too-long"
log = get_logger()

Due = Callable[[datetime], datetime | None]
"""Returns when, after the given time, an audit is to start; None for never: `control.next_due` of a schedule."""


class Auditor:
    """Runs audits from `start` to `stop`, or until voting is over, in a separate thread."""

    def __init__(
        self,
        settings: Settings,
        due: Due,
        *,
        environment: Mapping[str, str] | None = None,
        log_file: Path | None = None,
        longest_s: float = LONGEST_S,
        progress: Callable[[str], None] = lambda _what: None,
    ) -> None:
        """`environment` is added to our own; `log_file`: None for our standard error; `progress` is called with
        the outcome of each audit."""
        command = (sys.executable, "-m", "psephos.cli", "recount", "--audit")
        self._settings = settings
        self._due = due
        self._child = ChildProcess("audit", command, log_file, env=environment or {})
        self._longest_s = longest_s
        self._progress = progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="auditor", daemon=True)

    def start(self) -> None:
        """Starts the thread. The session must have been prepared."""
        self._thread.start()

    def stop(self) -> None:
        """Stops, and ends an audit in progress. Idempotent."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def running(self) -> bool:
        """True if more audits may come."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while (due := self._due(datetime.now(UTC))) is not None:
            while (left := (due - datetime.now(UTC)).total_seconds()) > 0:
                if self._stop.wait(min(left, _LOOK_S)):
                    return
            if self._stop.is_set() or not self._audit_if_open():
                return

    def _audit_if_open(self) -> bool:
        """Audits if voting is open or paused; returns whether later audits are possible."""
        try:
            phase = current(self._settings).phase
        except (LogUnavailable, LifecycleError) as error:
            self._tell(FAILED, f"not done: {error}")
            return True
        if phase in _AUDITED:
            self._audit()
        return phase in _AUDITED or phase is Phase.PENDING

    def _audit(self) -> None:
        begun = time.monotonic()
        try:
            self._child.start()
        except ProcessError as error:
            self._tell(FAILED, f"not done: {error}")
            return
        while self._child.running and time.monotonic() - begun < self._longest_s:
            if self._stop.wait(_POLL_S):
                self._child.stop()
                return
        if self._child.running:
            self._child.stop()
            self._tell(TOO_LONG, f"ended after {self._longest_s:.0f} s, it was not done by then")
            return
        self._judge(self._child.exit_code, time.monotonic() - begun)

    def _judge(self, code: int | None, seconds: float) -> None:
        if code not in (0, DIFFERS):
            self._tell(FAILED, f"not done, exit code {code}: {self._child.last_words()}")
            return
        metrics.AUDIT_DIFFERS.set(code == DIFFERS)
        metrics.AUDITED_AT.set_to_current_time()
        if code == DIFFERS:
            where = "its lines above" if self._child.log is None else self._child.log
            self._tell(DIFFERENT, f"LOG AND LEDGER DIFFER; see {where} and docs/runbooks/disputed.md")
        else:
            self._tell(AGREES, f"log and ledger agree ({seconds:.1f} s)")

    def _tell(self, outcome: str, news: str) -> None:
        metrics.AUDITS.labels(outcome).inc()
        level = {AGREES: log.info, DIFFERENT: log.error}.get(outcome, log.warning)
        level("audit", outcome=outcome, what=news)
        self._progress(news)
