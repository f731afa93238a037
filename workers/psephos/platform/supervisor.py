"""Keeps processes running: starts them, restarts those that die or hang, stops them in order.

The only supervisor: for `psephos serve`, for the local stack and its servers, and for several ingest processes
behind one port.
"""

import http.client
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from psephos.platform.backoff import Backoff
from psephos.platform.child_process import POLL_INTERVAL, Child, ProcessError, stop_together
from psephos.platform.errors import BAD_INPUT, PsephosError
from psephos.platform.forkserver import ForkServer
from psephos.platform.logs import get_logger

LOOPBACK = "127.0.0.1"
CONFIGURATION_ERROR = 2  # the exit code of a role that can't run with its settings
DEATHS_AT_START = 5  # of a process that was never ready: then it is given up
READY_TIMEOUT_S = 180.0  # for all processes, on a busy machine
HANG_S = 60.0  # a process that is silent for this long, or reports that its own loop hangs, is killed
_SLOW_START = 2  # until its first response it has this many times as long
_PROBES = 6  # of each process's /livez, in that time
_PROBE_TIMEOUT_S = 2.0
_STACKS_S = 0.5  # for a hanging process to write its stacks
log = get_logger()


class RoleFailed(PsephosError):
    """A process can't start: another try would not help. The message is one line: which one, and why."""

    exit_code = BAD_INPUT


@dataclass
class Supervised:
    """A supervised process.

    `admin_ports`: one for each process that it stands for, with /livez and /readyz; without any it is not probed.
    `start`: starts the child, if more is to be done than that. `ready_once`: it has worked with these settings
    before, so a failed start is retried indefinitely.

    `alive_at`: when it last reported to be alive, None if not since its start; `probed_at`: when it was last
    probed; `due_at`: when it is to be started again, None while it runs.
    """

    name: str
    child: Child
    admin_ports: Sequence[int] = ()
    start: Callable[[], None] | None = None
    ready_once: bool = False
    backoff: Backoff = field(default_factory=Backoff)
    started_at: float = field(default=0.0, init=False)
    alive_at: float | None = field(default=None, init=False)
    probed_at: float = field(default=0.0, init=False)
    deaths: int = field(default=0, init=False)
    due_at: float | None = field(default=None, init=False)


class Supervisor:
    """Supervises processes that belong together, in a thread of its own from `start` to `stop`."""

    def __init__(
        self,
        processes: Sequence[Supervised],
        *,
        fork_server: ForkServer | None = None,
        on_change: Callable[[Mapping[str, int]], None] = lambda _pids: None,
        hang_s: float = HANG_S,
        grace_s: float = 15.0,
    ) -> None:
        """`fork_server`: the parent of the processes, ended after them. `on_change` gets the process ids by name
        at every start, in the supervisor's thread. A process that does not respond to its liveness probe for
        `hang_s` is killed and started again. `grace_s`: between SIGTERM and SIGKILL."""
        self.processes = processes
        self._fork_server = fork_server
        self._fork_server_deaths = 0
        self._on_change = on_change
        self._hang_s = hang_s
        self._grace_s = grace_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._failure: str | None = None
        self.restarts = 0

    def start(self) -> None:
        """Starts all processes; returns as soon as they run, ready or not. Raises ProcessError."""
        for each in self.processes:
            if not each.child.running:
                _start(each)
        self._on_change(self.pids)
        self._thread.start()

    @property
    def pids(self) -> dict[str, int]:
        """The ids of the running processes, by name."""
        return {each.name: each.child.pid for each in self.processes if each.child.running and each.child.pid}

    def check(self) -> None:
        """Raises RoleFailed if a process can't start."""
        if self._failure is not None:
            raise RoleFailed(self._failure)

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Waits until all are ready; False if `stopped` says so. Raises RoleFailed, also after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        waiting = list(self.processes)
        while waiting:
            self.check()
            if stopped():
                return False
            for each in list(waiting):
                why = _not_ready(each.admin_ports)
                if why is None:
                    each.ready_once = True
                    waiting.remove(each)
                elif time.monotonic() > deadline:
                    each.child.ask_for_stacks()
                    raise RoleFailed(_late(each, timeout_s, why))
            time.sleep(POLL_INTERVAL)
        return True

    def release(self) -> None:
        """Stops supervising the processes; they keep running. Idempotent."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def stop(self, *, together: bool = False) -> None:
        """Stops one after another, each drained before the next is asked, or all together. Idempotent."""
        self.release()
        if together:
            stop_together([each.child for each in self.processes], self._grace_s)
        for each in self.processes:
            code = each.child.stop(self._grace_s)
            log.info("process stopped", name=each.name, exit_code=code)
        if self._fork_server is not None:
            self._fork_server.close()

    def _run(self) -> None:
        while not self._stopping.wait(POLL_INTERVAL):
            for each in self.processes:
                if not each.child.running:
                    self._note_fork_server()
                    self._restart(each)
                elif each.admin_ports and time.monotonic() - each.probed_at > self._hang_s / _PROBES:
                    self._check_liveness(each)

    def _note_fork_server(self) -> None:
        """Logs the fork server's death, which explains its children's: it is restarted with the first of them."""
        if self._fork_server is not None and self._fork_server.deaths > self._fork_server_deaths:
            self._fork_server_deaths = self._fork_server.deaths
            log.error("the fork server ended and every process with it: all are started again")

    def _check_liveness(self, each: Supervised) -> None:
        """Kills a process that has hung for too long; the loop then handles it like any other that has ended."""
        each.probed_at = time.monotonic()
        why = _probe_all(each.admin_ports, "/livez")
        if why is None:
            each.alive_at = each.probed_at
            return
        if each.alive_at is None:
            silent_s, limit_s = each.probed_at - each.started_at, _SLOW_START * self._hang_s
        else:
            silent_s, limit_s = each.probed_at - each.alive_at, self._hang_s
        if silent_s > limit_s:
            log.error("process hangs and is killed", name=each.name, why=why, silent_s=round(silent_s, 1))
            each.child.ask_for_stacks()
            self._stopping.wait(_STACKS_S)
            each.child.kill()

    def _restart(self, each: Supervised) -> None:
        if each.due_at is None:
            self._plan_restart(each)
        elif time.monotonic() >= each.due_at:
            try:
                _start(each)
            except ProcessError as error:
                again_s = each.backoff.after(0.0)
                each.due_at = time.monotonic() + again_s
                log.error("process can't start", name=each.name, why=str(error), again_s=again_s)
                return
            self.restarts += 1
            self._on_change(self.pids)

    def _plan_restart(self, each: Supervised) -> None:
        each.deaths += 1
        code, now = each.child.exit_code, time.monotonic()
        ran_s = now - each.started_at
        each.ready_once |= ran_s >= each.backoff.steady_s
        hopeless = code == CONFIGURATION_ERROR or each.deaths == DEATHS_AT_START
        if hopeless and not each.ready_once:
            self._failure = self._failure or f"{each.name}: {_last_words(each.child)}"
            each.due_at = float("inf")
            return
        each.ready_once |= not each.admin_ports  # it has no probes: only its first start is judged
        again_s = each.backoff.after(ran_s)
        each.due_at = now + again_s
        log.warning("process ended", name=each.name, exit_code=code, why=each.child.last_words(), again_s=again_s)


def _start(each: Supervised) -> None:
    (each.start or each.child.start)()
    each.started_at = each.probed_at = time.monotonic()
    each.alive_at = each.due_at = None


def _late(each: Supervised, timeout_s: float, why: str) -> str:
    where = "" if each.child.log is None else f" (log: {each.child.log})"
    return f"{each.name} was not ready within {timeout_s:.0f} s: {why}{where}"


def _last_words(child: Child) -> str:
    """The line in which a role reports what is wrong with its settings."""
    return child.last_words().removeprefix("psephos: ") or "it can't run with these settings; see its lines above"


def _not_ready(ports: Iterable[int]) -> str | None:
    """The reason why a process is not ready; None if it is."""
    return _probe_all(ports, "/readyz")


def _probe_all(ports: Iterable[int], path: str) -> str | None:
    """The response or error of the first port that does not respond well; None if all do."""
    return next((why for port in ports if (why := _probe(port, path)) is not None), None)


def _probe(port: int, path: str) -> str | None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(4096).decode(errors="replace").strip()
        return None if response.status == http.HTTPStatus.OK else body
    except (OSError, http.client.HTTPException) as error:
        return f"no answer at {LOOPBACK}:{port} ({error})"
    finally:
        connection.close()
