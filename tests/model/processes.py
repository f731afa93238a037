"""Simulated processes: the code under check runs as it is, and stops at each thing that it does outside itself.

Each thread is a greenlet. Where simulated I/O begins and ends it comes to a `point` and waits there until the
explorer lets it go on; so another process, a crash or a fault may come between any two steps. Nothing runs
by itself: equal choices give equal histories.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import greenlet


class Killed(BaseException):
    """SIGKILL: nothing that this process does from here on has an effect."""


class Thread(greenlet.greenlet):
    """One thread of a process. `at` names the point where it waits."""

    def __init__(self, process: "Process", body: Callable[[], None]) -> None:
        super().__init__(self._guarded, _outermost())
        self.process = process
        self.at = "start"
        self._body = body

    def _guarded(self) -> None:
        try:
            self._body()
        except Killed:
            pass
        except Exception as error:
            self.process.failure = error


class Process:
    """One simulated process: a main thread and the threads of its pool."""

    def __init__(self, name: str, machine: Any, body: Callable[["Process"], None]) -> None:
        self.name = name
        self.machine = machine
        self.stopping = False
        self.killed = False
        self.failure: Exception | None = None
        self._main = Thread(self, lambda: body(self))
        self._pool: list[Thread] = []

    @property
    def alive(self) -> bool:
        return not self.killed and not self._main.dead

    @property
    def at(self) -> str:
        """The point where the main thread waits."""
        return self._main.at

    def spawn(self, body: Callable[[], None]) -> None:
        """Starts a thread of the pool."""
        self._pool.append(Thread(self, body))

    def step(self, pick: int = 0) -> None:
        """Lets one thread go on to its next point. `pick`: which thread of the pool, oldest first; the main one
        where the pool is idle, or for a negative number.
        """
        self._pool = [thread for thread in self._pool if not thread.dead]
        if pick >= 0 and self._pool:
            self._pool[pick % len(self._pool)].switch()
        elif not self._main.dead:
            self._main.switch()

    def kill(self) -> None:
        """SIGKILL."""
        self.killed = True
        for thread in [self._main, *self._pool]:
            while not thread.dead:
                thread.switch()


def alone(body: Callable[[], Any], machine: Any) -> Any:
    """What the body answers, run as the only process there is. Raises what it raised."""
    answers: list[Any] = []
    running = Process("alone", machine, lambda _: answers.append(body()))
    while running.alive:
        running.step()
    if running.failure is not None:
        raise running.failure
    return answers[0]


class Clock:
    """Stands in for the module `time`. Moves only when somebody waits."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        point("sleep")


def process() -> Process:
    """The process that runs now. Raises AttributeError outside of any."""
    found: Process = greenlet.getcurrent().process  # type: ignore[attr-defined]
    return found


def caller() -> str | None:
    """The name of the process that runs now, None outside of any: the oracle reads the same servers."""
    thread = greenlet.getcurrent()
    return thread.process.name if isinstance(thread, Thread) else None


Listener = Callable[[Process, str, Any], None]
_listeners: list[Listener] = []


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tells it of each point and notice within the block: the process, the name, and what it is about."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def notice(name: str, about: Any = None) -> None:
    """Tells who listens. Nothing waits here."""
    thread = greenlet.getcurrent()
    if _listeners and isinstance(thread, Thread):
        for listener in _listeners:
            listener(thread.process, name, about)


def point(name: str, about: Any = None) -> None:
    """Waits here until the explorer goes on. Outside of a simulated process it is nothing."""
    thread = greenlet.getcurrent()
    if not isinstance(thread, Thread):
        return
    if thread.process.killed:
        raise Killed
    notice(name, about)
    thread.at = name
    assert thread.parent is not None
    thread.parent.switch()
    if thread.process.killed:
        raise Killed


class Pool:
    """Stands in for ThreadPoolExecutor."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._process = process()

    def submit(self, call: Callable[[], Any]) -> "Promise":
        promise = Promise(call)
        self._process.spawn(promise.run)
        return promise

    def shutdown(self, **_: Any) -> None:
        """Threads of a process that ends are never let on again."""


class Promise:
    """Stands in for Future."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.is_done = False
        self._error: Exception | None = None
        self._value: Any = None

    def run(self) -> None:
        try:
            self._value = self._call()
        except Exception as error:
            self._error = error
        self.is_done = True

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


def wait_on(clock: Clock) -> Callable[..., tuple[list[Promise], list[Promise]]]:
    """Stands in for `concurrent.futures.wait`. Its time-out is over as soon as it is let on with nothing done."""

    def wait(promises: Sequence[Promise], timeout: float = 0.0, **_: Any) -> tuple[list[Promise], list[Promise]]:
        point("waiting for puts")
        done = [promise for promise in promises if promise.is_done]
        if not done:
            clock.now += timeout
        return done, [promise for promise in promises if not promise.is_done]

    return wait


def _outermost() -> greenlet.greenlet:
    current = greenlet.getcurrent()
    while current.parent is not None:
        current = current.parent
    return current
