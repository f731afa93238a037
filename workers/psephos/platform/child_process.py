"""Child processes that never outlive their parent.

The local stack and ``psephos serve`` run other programs: brokers, databases, roles. Three things go wrong when
that is done naively, and this module prevents them: a killed parent leaves servers running that hold its ports;
Ctrl-C on a terminal hits every process at once, so nothing stops in order; and a program that is not installed is
reported as a traceback.

NB: Linux sends the parent-death signal when the *thread* that forked ends, not the process. So all children are
forked by one thread that lives as long as the process does.
NB: other systems have no parent-death signal; there, a parent killed with SIGKILL leaves its children running.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from psephos.platform.errors import BAD_INPUT, PsephosError
from psephos.platform.signals import STACKS, StopRequest

#: Seconds between SIGTERM and SIGKILL. Long enough for a Kafka broker to write its clean-shutdown marker.
DEFAULT_GRACE = 10.0

#: Seconds between two polls of a process. Short compared with every start and stop that people wait for.
POLL_INTERVAL = 0.05

#: Number of bytes at the end of a log file that are read to explain why a process stopped.
_TAIL_BYTES = 16_384

#: Ends at once if the parent died before the death signal was armed; then becomes the wanted program.
_ARMED = '[ "$PPID" = "$0" ] || exit 1; exec "$@"'


class ProcessError(PsephosError):
    """A child process could not be started. The message is one line for a person."""

    exit_code = BAD_INPUT


class CommandMissingError(ProcessError):
    """The program to run is not installed, or not on the PATH."""


class Child(ABC):
    """A child process; its output is appended to a log file (None: to our standard error).

    It may be started again after it has ended. ``env`` is added to the parent's environment.
    """

    name: str
    log: Path | None
    env: Mapping[str, str]
    grace: float
    _log_start: int

    @abstractmethod
    def start(self) -> None:
        """Starts the process; returns as soon as it runs, ready or not. Raises ProcessError."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The process id of the last start, or None before the first one."""

    @property
    @abstractmethod
    def exit_code(self) -> int | None:
        """Exit code of the last start, negative for a signal; None while it runs or before the first start."""

    @abstractmethod
    def _signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if it has not ended."""

    @abstractmethod
    def _signal_group(self, number: signal.Signals) -> None:
        """Sends a signal to the process and everything in its process group, if it has not ended."""

    def _begin_log(self) -> None:
        """Creates the log file if there is none, and notes where the lines of this start begin."""
        if self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as output:
                self._log_start = output.tell()

    @property
    def running(self) -> bool:
        """True if the process has been started and has not ended (a paused one is running)."""
        return self.pid is not None and self.exit_code is None

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until the process has ended; returns its exit code, or None after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.running and (deadline is None or time.monotonic() < deadline):
            time.sleep(POLL_INTERVAL)
        return self.exit_code

    def terminate(self) -> None:
        """Asks the process to end (SIGTERM) and returns at once. Does nothing if it does not run."""
        if self.running:
            self._signal(signal.SIGTERM)
            self._signal_group(signal.SIGCONT)  # a paused process would take the SIGTERM only when resumed

    def stop(self, grace: float | None = None) -> int | None:
        """Sends SIGTERM, then SIGKILL after ``grace`` seconds; returns the exit code, None if it never ran."""
        self.terminate()
        if self.wait(self.grace if grace is None else grace) is None:
            self.kill()
        return self.exit_code

    def kill(self) -> None:
        """Sends SIGKILL to the process and everything in its process group; returns when it is gone."""
        if self.running:
            self._signal_group(signal.SIGKILL)
            self.wait()

    def pause(self) -> None:
        """Sends SIGSTOP: the process keeps its ports and memory but does nothing until ``resume``."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Sends SIGCONT, after ``pause``."""
        self._signal_group(signal.SIGCONT)

    def ask_for_stacks(self) -> None:
        """Makes a role write the stack of each of its threads, even if it hangs (`write_stacks_when_asked`).

        NB: a program without a handler for this signal is ended by it.
        """
        if self.running:
            self._signal(STACKS)

    def last_words(self) -> str:
        """The line that best explains why the last start ended: its last error line, else its last line."""
        if self.log is None:
            return ""
        with suppress(OSError), self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - _TAIL_BYTES))
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
            errors = [
                line for line in lines if any(sign in line for sign in ("ERROR", "FATAL", "rror:", "Exception"))
            ]
            return (errors or lines or [""])[-1]
        return ""


@dataclass
class ChildProcess(Child):
    """A program that is executed."""

    name: str
    command: Sequence[str]
    log: Path | None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    grace: float = DEFAULT_GRACE
    _popen: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _log_start: int = field(default=0, init=False, repr=False)

    def start(self) -> None:
        """Starts the program; returns as soon as it runs, ready or not.

        Raises:
            CommandMissingError: if the program is not on the PATH.
            ProcessError: if it is already running, or can't be started.
        """
        if self.running:
            raise ProcessError(f"{self.name} is already running (process {self.pid})")
        environment = {**os.environ, **self.env}
        program = shutil.which(self.command[0], path=environment.get("PATH", ""))
        if program is None:
            raise CommandMissingError(
                f"{self.name} can't start: `{self.command[0]}` is not installed or not on the PATH"
            )
        with self._output() as output:
            try:
                self._popen = spawn(
                    _bound_to_this_process([program, *self.command[1:]]),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=self.cwd,
                    process_group=0,  # a terminal's Ctrl-C reaches only the parent, which then stops us in order
                )
            except OSError as error:
                raise ProcessError(f"{self.name} can't start: {error}") from error

    @property
    def pid(self) -> int | None:
        """The process id of the last start, or None before the first one."""
        return self._popen.pid if self._popen else None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the last start, negative for a signal; None while it runs or before the first start."""
        return self._popen.poll() if self._popen else None

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until the process has ended; returns its exit code, or None after ``timeout`` seconds."""
        if self._popen is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            return self._popen.wait(timeout)
        return None

    @contextmanager
    def _output(self) -> Iterator[int | IO[bytes]]:
        self._begin_log()
        if self.log is None:
            yield sys.stderr.fileno()
            return
        with self.log.open("ab") as output:
            yield output

    def _signal(self, number: signal.Signals) -> None:
        if self._popen is not None:
            self._popen.send_signal(number)

    def _signal_group(self, number: signal.Signals) -> None:
        if self._popen is not None and self.running:
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)


def start_piped(name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Starts a program with unbuffered pipes on its three standard streams. It ends with this process.

    Raises:
        CommandMissingError: if `setpriv` is not on the PATH.
        ProcessError: if it can't be started.
    """
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    try:
        return _spawner.popen(_bound_to_this_process(command), bufsize=0, process_group=0, **pipes)
    except OSError as error:
        raise ProcessError(f"{name} can't start: {error}") from error


def stop_in_order(children: Sequence[Child]) -> None:
    """Stops one after another, in the given order; each has its own grace."""
    for child in children:
        child.stop()


def stop_together(children: Sequence[Child], grace: float | None = None) -> None:
    """Asks all to end at once, then waits for each: takes as long as the slowest one."""
    for child in children:
        child.terminate()
    for child in children:
        child.stop(grace)


def first_to_end(
    children: Sequence[Child], stop: StopRequest, *, until: Callable[[], bool] = lambda: False
) -> Child | None:
    """Waits until a child ends by itself (returns it), or a stop is requested or ``until()`` is true (None)."""
    while not stop and not until():
        for child in children:
            if not child.running:
                return child
        time.sleep(POLL_INTERVAL)
    return None


def _bound_to_this_process(command: Sequence[str]) -> list[str]:
    """The command, wrapped so that the kernel kills it when this process ends. The process id stays the same."""
    if not sys.platform.startswith("linux"):
        return list(command)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise CommandMissingError("`setpriv` is not on the PATH: install the package util-linux")
    return [setpriv, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", _ARMED, str(os.getpid()), *command]


class _Spawner:
    """The one thread that forks: see the module's docstring."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="spawner", daemon=True)
        self._lock = threading.Lock()

    def popen(self, command: list[str], **options: object) -> subprocess.Popen[bytes]:
        answer: Future[subprocess.Popen[bytes]] = Future()

        def order() -> None:
            try:
                answer.set_result(subprocess.Popen(command, **options))  # type: ignore[call-overload]
            except BaseException as error:
                answer.set_exception(error)

        with self._lock:
            if self._thread.ident is None:
                self._thread.start()
        self._orders.put(order)
        return answer.result()

    def _work(self) -> None:
        while True:
            self._orders.get()()


_spawner = _Spawner()


def spawn(command: list[str], **options: object) -> subprocess.Popen[bytes]:
    """``subprocess.Popen``, forked by the one thread that ends only with this process."""
    return _spawner.popen(command, **options)


def _renew_spawner() -> None:
    """Gives a forked copy of this process, which has only its own thread, a spawner of its own."""
    global _spawner
    _spawner = _Spawner()


os.register_at_fork(after_in_child=_renew_spawner)
