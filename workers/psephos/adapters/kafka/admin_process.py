"""Admin requests made by a child process, which librdkafka may abort.

The child runs `psephos.adapters.kafka.admin_child`.
There is one child per process, shared by its threads: started by the first request, ended when it has had none for
a while. If it ends by itself, each of its pending requests is made once more, in a new child.
"""

import itertools
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import IO, Any

import msgspec
from prometheus_client import Counter

from psephos.adapters.kafka import admin_child
from psephos.adapters.kafka.admin_child import (
    SLACK_S,
    Asked,
    Config,
    Request,
    RequestFailed,
    Said,
    frame,
    read_frame,
)
from psephos.adapters.kafka.client import LogUnavailable
from psephos.platform.backoff import Backoff
from psephos.platform.child_process import ProcessError, start_piped
from psephos.platform.errors import PsephosError
from psephos.platform.logs import get_logger

IDLE_S = 20.0  # a child without a request ends after this long: it holds some 30 MiB
HUNG_S = SLACK_S + 5.0  # if a request takes this much longer than its own time-out, the child hangs
_RESTS_S = (0.1, 5.0)  # first and longest pause before a new child; doubled after each that ended
ENDED = Counter(
    "psephos_admin_process_ended_total",
    "Child processes for Kafka's admin requests that died or hung.",
    ["how"],
    registry=None,
)
"""In no registry: each long-running process that makes requests adds it to its own."""
log = get_logger()


class AdminProcess:
    """Makes requests in a child process. Threads may share it."""

    def __init__(self, idle_s: float = IDLE_S, hung_s: float = HUNG_S) -> None:
        self._idle_s, self._hung_s = idle_s, hung_s
        self._starting = threading.Lock()
        self._child: _Child | None = None
        self._rests = Backoff(*_RESTS_S)
        self._not_before = 0.0

    @property
    def pid(self) -> int | None:
        """The process id of the running child; None without one."""
        child = self._child
        return None if child is None or child.over else child.pid

    def ask(self, config: Config, request: Request) -> Any:
        """The result of the request, made by a client with this configuration.

        Raises RequestFailed (by a broker, or for lack of one), LogUnavailable (the child hung, or died twice).
        """
        try:
            return self._ask(config, request)
        except _Ended:
            pass
        try:
            return self._ask(config, request)
        except _Ended as error:
            raise LogUnavailable(f"the process that asks Kafka ended: {error}") from None

    def end(self) -> None:
        """Ends the child, if there is one. The next request starts another."""
        with self._starting:
            if self._child is not None:
                self._child.end()
            self._child = None

    def let_go(self) -> None:
        """Closes the parent's pipes in a forked copy. NB: without the lock: another thread may have held it."""
        if self._child is not None:
            self._child.close()

    def _ask(self, config: Config, request: Request) -> Any:
        value = self._running().ask(config, request)
        self._rests.reset()
        return value

    def _running(self) -> "_Child":
        with self._starting:
            if self._child is None or self._child.over:
                time.sleep(max(0.0, self._not_before - time.monotonic()))
                self._child = _Child(self._idle_s, self._hung_s, self._died)
            return self._child

    def _died(self) -> None:
        self._not_before = time.monotonic() + self._rests.next_s()


class _Ended(PsephosError):
    """The child has ended, while it had this request or before it took it."""


class _Child:
    """One child, from its start to its end. Raises LogUnavailable if it can't be started."""

    def __init__(self, idle_s: float, hung_s: float, died: Callable[[], None]) -> None:
        try:
            self._process = start_piped(
                "the process that asks Kafka", [sys.executable, "-P", admin_child.__file__]
            )
        except ProcessError as error:
            raise LogUnavailable(str(error)) from None
        self._idle_s, self._hung_s = idle_s, hung_s
        self._died = died
        self._lock = threading.Lock()  # guards all below
        self._waiting: dict[int, Future[Said]] = {}
        self._numbers = itertools.count()
        self._used = time.monotonic()
        self._wanted = False  # whether its end is intended
        self._how = "died"
        self.over = False
        self._writing = threading.Lock()
        self._last_line = ""
        os.set_blocking(_pipe(self._process.stdin), False)
        self._listener = threading.Thread(target=self._listen, name="admin-stderr", daemon=True)
        self._listener.start()
        threading.Thread(target=self._receive, name="admin-replies", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, config: Config, request: Request) -> Any:
        """The request's result. Raises RequestFailed; LogUnavailable if the child hangs, and kills it; _Ended."""
        limit_s = request.timeout_s + self._hung_s
        deadline = time.monotonic() + limit_s
        reply: Future[Said] = Future()
        with self._lock:
            if self.over:
                raise _Ended("before it took the request")
            number = next(self._numbers)
            self._waiting[number] = reply
            self._used = time.monotonic()
        try:
            self._write(frame(Asked(number, dict(config), request)), deadline)
            said = reply.result(deadline - time.monotonic())
        except TimeoutError:
            self._how = "hung"
            self._process.kill()
            raise LogUnavailable(f"the process that asks Kafka stood still for {limit_s:.0f} s: ended") from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        if said.reason is not None:
            raise RequestFailed(said.code, said.reason)
        return said.value

    def end(self) -> None:
        """Kills the child; waiting requests raise _Ended."""
        with self._lock:
            self.over = self._wanted = True
        self._process.kill()

    def close(self) -> None:
        """Closes the pipes."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def _write(self, message: bytes, deadline: float) -> None:
        """Writes to the child. Raises TimeoutError: if the child hangs, the pipe fills up."""
        with self._writing:
            try:
                pipe = _pipe(self._process.stdin)
                while message:
                    _wait_for(pipe, select.POLLOUT, deadline - time.monotonic())
                    message = message[os.write(pipe, message) :]
            except (BrokenPipeError, ValueError):
                return  # the child has ended; `_receive` fails all waiting requests

    def _receive(self) -> None:
        decoder = msgspec.msgpack.Decoder(Said)
        pipe = _pipe(self._process.stdout)
        while True:
            try:
                _wait_for(pipe, select.POLLIN, self._idle_s)
            except TimeoutError:
                self._end_if_idle()
                continue
            if (message := read_frame(pipe)) is None:
                break
            said = decoder.decode(message)
            with self._lock:
                reply = self._waiting.pop(said.number, None)
            if reply is not None:
                reply.set_result(said)
        self._finish()

    def _end_if_idle(self) -> None:
        with self._lock:
            if self._waiting or time.monotonic() - self._used < self._idle_s:
                return
            self.over = self._wanted = True
        self._process.kill()

    def _finish(self) -> None:
        code = self._process.wait()
        self._listener.join()
        why = f"exit code {code}" + (f": {self._last_line}" if self._last_line else "")
        if not self._wanted:
            self._died()
        with self._lock:
            self.over = True
            waiting = list(self._waiting.values())
        if not self._wanted:
            ENDED.labels(self._how).inc()
            log.error("process that asks kafka ended", how=self._how, why=why, requests=len(waiting))
        for reply in waiting:
            reply.set_exception(_Ended(why))
        with self._writing:
            self.close()

    def _listen(self) -> None:
        """Keeps the child's last line: if librdkafka aborts, the assertion that failed."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._last_line = line.decode(errors="replace").strip() or self._last_line


def _pipe(pipe: IO[bytes] | None) -> int:
    assert pipe is not None
    return pipe.fileno()


def _wait_for(pipe: int, event: int, timeout_s: float) -> None:
    """Waits for the event. Raises TimeoutError."""
    poll = select.poll()
    poll.register(pipe, event)
    if not poll.poll(max(0.0, timeout_s) * 1000):
        raise TimeoutError


shared = AdminProcess()
"""The one of this process."""


def _renew() -> None:
    global shared
    shared.let_go()
    shared = AdminProcess()


os.register_at_fork(after_in_child=_renew)
