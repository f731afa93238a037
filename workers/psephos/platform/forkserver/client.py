"""A fork server and its children, as their parent sees them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from psephos.platform.child_process import DEFAULT_GRACE, POLL_INTERVAL, Child, ChildProcess, ProcessError, spawn
from psephos.platform.forkserver.messages import Channel, Ended, Failed, Reply, Request, Signal, Start, Started

REPLY_TIMEOUT_S = 180.0  # the first reply waits for the imports, on a busy machine
ORPHANS_TIMEOUT_S = 5.0  # for the kernel to end the children of a fork server that has ended
KILLED = -int(signal.SIGKILL)
# Variables that the interpreter, its allocator and its imports read at their start. All others are only for the
# children: the fork server must not have what only a role may know.
_INTERPRETERS_OWN = frozenset({"PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "GLIBC_TUNABLES"})
_INTERPRETERS_PREFIXES = ("PYTHON", "LC_", "LD_", "MALLOC_")


def can_fork() -> bool:
    """Returns whether the system has a parent-death signal: without it, children would outlive a killed parent."""
    return sys.platform.startswith("linux")


class ForkServer:
    """A process with these modules imported, and the children that it forks. Threads may share it.

    It is executed at the first start of a child, and again at a later one if it has ended. All of its children end
    with it.
    """

    def __init__(self, modules: Sequence[str], allocator: Mapping[str, str] = MappingProxyType({})) -> None:
        """`allocator`: variables that the C library reads when a program is executed, unless our environment sets
        them. They also apply to the children."""
        self._modules = tuple(modules)
        self._allocator = allocator
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._alive: dict[int, int] = {}  # process ids of children that have not ended, by number
        self._exit_codes: dict[int, int] = {}  # of those that have, by number
        self._last_number = 0
        self.deaths = 0
        """Number of times that a fork server has ended without being asked to."""

    @property
    def pid(self) -> int | None:
        """The process id of the fork server; None if it does not run."""
        with self._lock:
            self._collect()
            return None if self._channel is None or self._process is None else self._process.pid

    def start(
        self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path | None
    ) -> tuple[int, int]:
        """Forks a child that runs `python -m module arguments` in exactly this environment.

        Returns its number, which identifies it from now on, and its process id. Raises ProcessError.
        """
        with self._lock:
            self._last_number = number = self._last_number + 1
            path = None if log is None else str(log.absolute())
            reply = self._ask(Start(number, name, module, tuple(arguments), dict(environment), path))
            if not isinstance(reply, Started):
                raise ProcessError(reply.why if isinstance(reply, Failed) else f"{name} can't start")
            self._alive[number] = reply.pid
            return number, reply.pid

    def exit_code(self, number: int) -> int | None:
        """The child's exit code; None while it runs."""
        with self._lock:
            if number in self._alive:
                self._collect()
            return self._exit_codes.get(number)

    def signal(self, number: int, signal_number: signal.Signals, *, group: bool = False) -> None:
        """Sends a signal to the child or to its process group. Does nothing if it has ended."""
        with self._lock:
            if number in self._alive:
                with suppress(ProcessError):  # all children have ended with the fork server
                    self._ask(Signal(number, signal_number, group))

    def close(self) -> None:
        """Ends the fork server, and with it every child that still runs."""
        with self._lock:
            if self._channel is not None:
                self._abandon()

    def _ask(self, request: Request) -> Reply:
        """Sends a request. Raises ProcessError if the fork server can't be started, or ends before it replies."""
        if self._channel is None:
            self._execute()
        assert self._channel is not None
        try:
            self._channel.send(request)
            deadline = time.monotonic() + REPLY_TIMEOUT_S
            while (message := self._channel.receive(max(0.0, deadline - time.monotonic()))) is not None:
                if not isinstance(message, Ended):
                    assert not isinstance(message, Start | Signal)
                    return message
                self._note(message)
            why = f"did not reply within {REPLY_TIMEOUT_S:.0f} s"
        except EOFError:
            why = "ended"
        self.deaths += 1
        self._abandon()
        raise ProcessError(f"the fork server {why}; it says above why, if it could")

    def _execute(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "psephos.platform.forkserver", str(theirs.fileno()), str(os.getpid())]
        with theirs:
            try:
                self._process = spawn(
                    [*command, *self._modules],
                    stdin=subprocess.DEVNULL,
                    stdout=sys.stderr.fileno(),
                    stderr=sys.stderr.fileno(),
                    env={**self._allocator, **interpreters_own(os.environ)},
                    pass_fds=[theirs.fileno()],
                    process_group=0,
                )
            except OSError as error:
                ours.close()
                raise ProcessError(f"the fork server can't start: {error}") from error
        self._channel = Channel(ours)

    def _collect(self) -> None:
        """Notes everything that the fork server has reported, or that it has ended."""
        try:
            while self._channel is not None and (message := self._channel.receive(0)) is not None:
                if isinstance(message, Ended):
                    self._note(message)
        except EOFError:
            self.deaths += 1
            self._abandon()

    def _note(self, ended: Ended) -> None:
        self._alive.pop(ended.number, None)
        self._exit_codes[ended.number] = ended.exit_code

    def _abandon(self) -> None:
        """Ends what is left of the fork server; its children are dead when this returns."""
        assert self._channel is not None
        assert self._process is not None
        self._channel.close()
        self._channel = None
        self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + ORPHANS_TIMEOUT_S
        for number, pid in self._alive.items():
            while not _gone(pid) and time.monotonic() < deadline:
                time.sleep(POLL_INTERVAL / 10)
            self._exit_codes[number] = KILLED
        self._alive.clear()


@dataclass
class ForkedProcess(Child):
    """`python -m module arguments`, forked."""

    server: ForkServer
    name: str
    module: str
    arguments: Sequence[str]
    log: Path | None
    env: Mapping[str, str] = field(default_factory=dict)
    grace: float = DEFAULT_GRACE
    _number: int | None = field(default=None, init=False, repr=False)
    _pid: int | None = field(default=None, init=False, repr=False)
    _log_start: int = field(default=0, init=False, repr=False)

    def start(self) -> None:
        """Forks it; returns as soon as it runs, ready or not. Raises ProcessError."""
        if self.running:
            raise ProcessError(f"{self.name} is already running (process {self.pid})")
        self._begin_log()
        environment = {**os.environ, **self.env}
        self._number, self._pid = self.server.start(self.name, self.module, self.arguments, environment, self.log)

    @property
    def pid(self) -> int | None:
        return self._pid

    @property
    def exit_code(self) -> int | None:
        return None if self._number is None else self.server.exit_code(self._number)

    def _signal(self, number: signal.Signals) -> None:
        if self._number is not None:
            self.server.signal(self._number, number)

    def _signal_group(self, number: signal.Signals) -> None:
        if self._number is not None:
            self.server.signal(self._number, number, group=True)


def python_program(
    server: ForkServer | None,
    name: str,
    module: str,
    arguments: Sequence[str],
    log: Path | None,
    env: Mapping[str, str],
) -> Child:
    """`python -m module arguments`, not started: to be forked by this server, or executed if there is none."""
    if server is None:
        return ChildProcess(name, (sys.executable, "-m", module, *arguments), log, env)
    return ForkedProcess(server, name, module, arguments, log, env)


def interpreters_own(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of this environment that a fork server may have."""
    return {
        name: value
        for name, value in environment.items()
        if name in _INTERPRETERS_OWN or name.startswith(_INTERPRETERS_PREFIXES)
    }


def _gone(pid: int) -> bool:
    """Returns whether an orphan of the fork server has ended. Process 1 of a container adopts and must reap it."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
