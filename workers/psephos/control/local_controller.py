"""The local controller: takes one session on this machine through its life, as the operator does in a cluster."""

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext

from psephos.adapters.dynamodb import Ledger, LedgerMissing, LedgerUnavailable
from psephos.adapters.kafka import LogUnavailable
from psephos.control.command_file import CommandFile, PendingCommands
from psephos.control.commands import NO_MORE, Commands
from psephos.control.desired_state import DesiredState, commands_of
from psephos.control.errors import LifecycleError
from psephos.control.executor import Advanced, Executor
from psephos.control.observation import observe
from psephos.control.observed import ObservedState
from psephos.control.state_machine import recount_due
from psephos.formats.control import ENDED, Control, Phase
from psephos.platform.clock import now_ms, text_of
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings

DRAIN_TIMEOUT_S = 600.0
_POLL_S = 2.0  # how often a controller with nothing to do looks for changes that others made
_DRAIN_POLL_S = 0.2  # while the tally is on its last records
_LISTEN_S = 0.05  # for commands
_RETRY_S = 2.0
log = get_logger()

Recount = Callable[[], Phase]
"""Runs the final recount, which writes its result into the ledger; returns Final or Disputed."""


class LocalController:
    """Runs a session's life in a thread of its own until it has ended or `stop` is called.

    `recount` is how the final recount is run (in this process, or as a child); `commands` is where people say what
    they want, and while a session is Disputed it waits for their command. Servers that are unavailable for a while
    only delay it. Errors that a retry can't fix end the thread; `failure` keeps them.
    """

    def __init__(
        self,
        settings: Settings,
        recount: Recount,
        *,
        commands: CommandFile | None = None,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
        progress: Callable[[str], None] = lambda _what: None,
    ) -> None:
        ledger = Ledger.of(settings)
        self._executor = Executor(settings, ledger, lambda: observe(settings, ledger, live=False))
        self._recount, self._commands = recount, commands
        self._report = _Progress(progress, drain_timeout_s)
        self._own = DesiredState()
        self._wake, self._stop, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)
        self.control: Control | None = None
        self.failure: Exception | None = None

    def start(self) -> None:
        """Starts the thread. The session must have been prepared."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Asks the thread to stop and waits; a recount that runs is waited for no longer than that."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def close(self, closes_at: int | None = None) -> None:
        """Begins closing: at `closes_at` (ms since 1970), or now and a notice for ingest. Returns at once."""
        self._own = DesiredState(close_at=now_ms() if closes_at is None else closes_at)
        self._wake.set()

    def wait(self, timeout_s: float | None = None) -> Control | None:
        """The control record that ended the session; None if it has not ended by then.

        Raises the error that made the controller fail.
        """
        self._ended.wait(timeout_s)
        if self.failure is not None:
            raise self.failure
        return self.control if self.control is not None and self.control.phase in ENDED else None

    def _run(self) -> None:
        try:
            with self._commands.held() if self._commands is not None else nullcontext():
                while not self._stop.is_set() and not self._pass():
                    pass
        except Exception as error:
            log.error("controller failed", why=str(error))
            self.failure = error
        finally:
            self._ended.set()

    def _pass(self) -> bool:
        """One pass: observe, decide, execute. Returns whether there is nothing left to do."""
        try:
            advanced = self._advance()
        except (LogUnavailable, LedgerUnavailable, LedgerMissing) as error:
            log.warning("retrying", why=str(error))
            self._report.say(str(error))
            self._stop.wait(_RETRY_S)
            return False
        phase = advanced.step.phase
        if phase in ENDED:
            self._ended.set()
        if phase in NO_MORE or (phase in ENDED and self._commands is None):
            return True
        self._idle(advanced)
        return False

    def _advance(self) -> Advanced:
        pending = PendingCommands(0, DesiredState()) if self._commands is None else self._commands.pending()
        desired = pending.desired.merge(self._own) if self._own.close_at is not None else pending.desired

        def commands(control: Control | None) -> Commands:
            return Commands() if control is None else commands_of(control, desired)

        advanced = self._executor.advance(commands, self._executor.observe())
        if recount_due(advanced.observed):
            self._acknowledge(pending.number, advanced.observed)
            self._run_recount()
            advanced = self._executor.advance(commands, self._executor.observe())
        self._acknowledge(pending.number, advanced.observed)
        self._report.waiting_for(advanced.observed)
        return advanced

    def _acknowledge(self, number: int, observed: ObservedState) -> None:
        if observed.control is None:
            uid = self._executor.settings.session_uid
            raise LifecycleError(f"session {uid} has no control record: prepare it first")
        self.control = observed.control
        if self._commands is not None:
            self._commands.acknowledge(number, observed.control, closing=observed.closing is not None)

    def _run_recount(self) -> None:
        self._report.say("recounting")
        begun = time.monotonic()
        phase = self._recount()
        log.info("recount done", phase=phase, seconds=round(time.monotonic() - begun, 3))

    def _idle(self, advanced: Advanced) -> None:
        """Waits until a step is due, a command comes, or something may have changed."""
        observed, wake_at = advanced.observed, advanced.step.wake_at
        longest = _DRAIN_POLL_S if observed.sealed_whole and advanced.step.phase is Phase.CLOSING else _POLL_S
        left = longest if wake_at is None else min(max((wake_at - now_ms()) / 1000, 0.0), longest)
        until = time.monotonic() + left
        while (left := until - time.monotonic()) > 0 and not self._called():
            self._wake.wait(min(left, _LISTEN_S))
        self._wake.clear()

    def _called(self) -> bool:
        """Returns whether there is a command, or a reason to stop."""
        if self._wake.is_set() or self._stop.is_set():
            return True
        return self._commands is not None and self._commands.waiting()


class _Progress:
    """Says once what the session waits for, and again what changes every second at most."""

    def __init__(self, say: Callable[[str], None], drain_timeout_s: float) -> None:
        self._say, self._drain_timeout_s = say, drain_timeout_s
        self._said, self._said_at, self._sealed_at = "", 0.0, 0.0

    def say(self, what: str) -> None:
        if what and what != self._said:
            self._say(what)
            self._said, self._said_at = what, time.monotonic()

    def waiting_for(self, observed: ObservedState) -> None:
        """The end of voting, of the grace period, or the tally's last records."""
        control, closing = observed.control, observed.closing
        if control is None or closing is None:
            return
        if control.phase is Phase.CLOSING and observed.missing:
            self._drain(observed.missing)
        elif control.phase is Phase.CLOSING:
            self.say(f"the grace time ends at {text_of(observed.markers_at or 0)}")
        elif control.phase not in ENDED and control.phase is not Phase.RECOUNTING:
            self.say(f"voting closes at {text_of(closing.closes_at)}")

    def _drain(self, missing: dict[int, int]) -> None:
        now = time.monotonic()
        self._sealed_at = self._sealed_at or now
        if now - self._sealed_at > self._drain_timeout_s:
            places = ", ".join(f"{partition}: {records}" for partition, records in missing.items())
            why = f"the tally is behind the sealed ends (partition: records): {places}; is a worker running?"
            if why != self._said:
                log.warning("retrying", why=why)
            self.say(why)
        elif now - self._said_at > 1.0:
            self.say(f"the tally has {sum(missing.values())} records to go")
