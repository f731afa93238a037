"""Keeps a session's role processes running: starts them, starts again what dies or hangs, stops them in order."""

import http.client
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from psephos.observability import get_logger
from psephos.process import POLL_INTERVAL, ChildProcess
from psephos.serve.layout import RoleProcess

LOOPBACK = "127.0.0.1"
CONFIGURATION_ERROR = 2  # the exit code of a role that can't run with its settings
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 10.0
DEATHS_AT_START = 5  # of a role that was never ready: then it is given up
STEADY_S = 20.0  # who ran so long starts again at once
DRAIN_S = 15.0
READY_TIMEOUT_S = 180.0  # of all roles, on a machine that has other things to do
HANG_S = 60.0  # who is silent for so long, or says itself that its loop stands still, is killed and started again
_SLOW_START = 2  # before its first answer it has so many times as long
_LOOKS = 6  # at each role's /livez, in that time
_PROBE_TIMEOUT_S = 2.0
_STACKS_S = 0.5  # for a role that hangs to write where
log = get_logger()


class RoleFailed(Exception):
    """A role can't start: another try would not help. One line: which, and why."""


@dataclass
class _Kept:
    """A process under care. `ready_once`: it has worked with these settings before.

    `alive_at`: when it last answered that it lives, None since its start; `looked_at`: when it was last asked.
    """

    role: RoleProcess
    child: ChildProcess
    ready_once: bool = False
    started_at: float = 0.0
    alive_at: float | None = None
    looked_at: float = 0.0
    deaths: int = 0
    pause_s: float = FIRST_PAUSE_S
    due_at: float | None = None


class Supervisor:
    """The role processes of one session. Its own thread looks after them from `start` to `stop`."""

    def __init__(
        self,
        roles: Sequence[RoleProcess],
        environment: Mapping[str, str],
        logs: Path | None,
        on_change: Callable[[Mapping[str, int]], None] = lambda _pids: None,
        hang_s: float = HANG_S,
    ) -> None:
        """`environment` is added to each child's. `logs`: a folder for a log file each; None: our standard
        error. `on_change` hears the process ids by name at every start, in the supervisor's thread. A role that
        does not answer its liveness probe for `hang_s` is killed and started again."""
        self._kept = [_Kept(role, _child(role, environment, logs)) for role in roles]
        self._logs = logs
        self._on_change = on_change
        self._hang_s = hang_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="supervisor", daemon=True)
        self._failure: str | None = None
        self.restarts = 0

    def start(self) -> None:
        """Starts all of them; returns as soon as they run, ready or not. Raises ProcessError."""
        for kept in self._kept:
            self._start(kept)
        self._on_change(self.pids)
        self._thread.start()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name, of those that run."""
        return {kept.role.name: kept.child.pid for kept in self._kept if kept.child.running and kept.child.pid}

    def check(self) -> None:
        """Raises RoleFailed if a role can't start."""
        if self._failure is not None:
            raise RoleFailed(self._failure)

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Whether all answered ready; False when `stopped` says so. Raises RoleFailed, also after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        waiting = list(self._kept)
        while waiting:
            self.check()
            if stopped():
                return False
            for kept in list(waiting):
                why = _not_ready(kept.role.admin_ports)
                if why is None:
                    kept.ready_once = True
                    waiting.remove(kept)
                elif time.monotonic() > deadline:
                    kept.child.ask_for_stacks()
                    raise RoleFailed(self._late(kept, timeout_s, why))
            time.sleep(POLL_INTERVAL)
        return True

    def stop(self) -> None:
        """Stops one after the other, each drained before the next is asked. Idempotent."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        for kept in self._kept:
            code = kept.child.stop(DRAIN_S)
            log.info("role stopped", name=kept.role.name, exit_code=code)

    def _late(self, kept: _Kept, timeout_s: float, why: str) -> str:
        where = "" if self._logs is None else f" (log: {self._logs / kept.role.name}.log)"
        return f"{kept.role.name} was not ready within {timeout_s:.0f} s: {why}{where}"

    def _tend(self) -> None:
        while not self._stopping.wait(POLL_INTERVAL):
            for kept in self._kept:
                if not kept.child.running:
                    self._restart(kept)
                elif time.monotonic() - kept.looked_at > self._hang_s / _LOOKS:
                    self._look_at(kept)

    def _look_at(self, kept: _Kept) -> None:
        """Kills a role that has hung for too long: that it has ended is seen next, as of any other."""
        kept.looked_at = time.monotonic()
        why = _probe_all(kept.role.admin_ports, "/livez")
        if why is None:
            kept.alive_at = kept.looked_at
            return
        if kept.alive_at is None:
            silent_s, limit_s = kept.looked_at - kept.started_at, _SLOW_START * self._hang_s
        else:
            silent_s, limit_s = kept.looked_at - kept.alive_at, self._hang_s
        if silent_s > limit_s:
            log.error("role hangs and is killed", name=kept.role.name, why=why, silent_s=round(silent_s, 1))
            kept.child.ask_for_stacks()
            self._stopping.wait(_STACKS_S)
            kept.child.kill()

    def _restart(self, kept: _Kept) -> None:
        now = time.monotonic()
        if kept.due_at is None:
            kept.deaths += 1
            hopeless = kept.child.exit_code == CONFIGURATION_ERROR or kept.deaths == DEATHS_AT_START
            if hopeless and not kept.ready_once:
                self._failure = self._failure or f"{kept.role.name}: {_last_words(kept.child)}"
                kept.due_at = float("inf")
                return
            steady = now - kept.started_at > STEADY_S
            kept.pause_s = FIRST_PAUSE_S if steady else min(2 * kept.pause_s, LONGEST_PAUSE_S)
            kept.due_at = now + kept.pause_s
            code, why = kept.child.exit_code, kept.child.last_words()
            log.warning("role ended", name=kept.role.name, exit_code=code, why=why, again_s=kept.pause_s)
        elif now >= kept.due_at:
            self._start(kept)
            self.restarts += 1
            self._on_change(self.pids)

    def _start(self, kept: _Kept) -> None:
        kept.child.start()
        kept.started_at = kept.looked_at = time.monotonic()
        kept.alive_at = kept.due_at = None


def _child(role: RoleProcess, environment: Mapping[str, str], logs: Path | None) -> ChildProcess:
    command = (sys.executable, "-m", "psephos.cli", role.role)
    log_file = None if logs is None else logs / f"{role.name}.log"
    return ChildProcess(role.name, command, log_file, env={**environment, **role.environment})


def _last_words(child: ChildProcess) -> str:
    """A role's one line about what is wrong with its settings."""
    return child.last_words().removeprefix("psephos: ") or "it can't run with these settings; see its lines above"


def _not_ready(ports: Iterable[int]) -> str | None:
    """Why a role is not ready, None if it is."""
    return _probe_all(ports, "/readyz")


def _probe_all(ports: Iterable[int], path: str) -> str | None:
    """What the first one says that does not answer well, None if all do."""
    return next((why for port in ports if (why := _probe(port, path)) is not None), None)


def _probe(port: int, path: str) -> str | None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(4096).decode(errors="replace").strip()
        return None if answer.status == http.HTTPStatus.OK else body
    except (OSError, http.client.HTTPException) as error:
        return f"no answer at {LOOPBACK}:{port} ({error})"
    finally:
        connection.close()
