"""Fan-out of one frame to many viewers: the newest in one slot, the same bytes for all, slow viewers skipped.

A viewer has no queue. While its connection has not yet taken what it was given, it is skipped and gets
whatever is newest the next time; if that lasts, it is closed with a retry hint. So a slow viewer costs nothing,
and memory per viewer does not depend on how fast frames come.
"""

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from psephos.roles.gateway import metrics
from psephos.roles.gateway.view import Position, View

COALESCE_S = 0.25  # at most four frames a second
TICK_S = 1.0  # how often viewers are checked when nothing is new
SHARE = 250  # viewers handled before other tasks have a turn in the event loop
SLOW_S = 10.0  # a viewer whose connection takes nothing for this long is closed
DRAIN_STEP_S = 0.25
RETURNS_PER_S = 1_000  # viewers that the other gateways are asked to take per second
LEAST_WINDOW_S, MOST_WINDOW_S = 1.0, 30.0
RESTART, TRY_AGAIN = 1012, 1013  # close codes of the IANA registry: service restart, try again later


class Viewer(ABC):
    """One viewer's connection. `step` is called from the hub's sweeps and does not wait."""

    kind: str

    def __init__(self, transport: asyncio.Transport, seen: Position | None, beat_s: float) -> None:
        """seen: the viewer's position; beat_s: seconds to its first beat."""
        self._transport = transport
        self._seen = seen
        self._sent: View | None = None
        self._slow_since: float | None = None
        self._beat_s = beat_s
        self._beat_at = 0.0
        self.closing = False

    @abstractmethod
    def encoded(self, view: View) -> bytes:
        """Returns the view as this kind of connection carries it."""

    @abstractmethod
    def beat(self, now: float) -> bytes:
        """Returns the bytes that keep this kind of connection open; may set when their reply is due."""

    @abstractmethod
    async def close(self, code: int, retry_ms: int) -> None:
        """Closes the connection; `retry_ms`: when the viewer should reconnect."""

    def broken(self, now: float) -> bool:
        """Returns whether the peer has silently disappeared."""
        return False

    @property
    def gone(self) -> bool:
        return self._transport.is_closing()

    def abort(self) -> None:
        """Ends the connection and drops what it has not taken."""
        self._transport.abort()

    def step(self, view: View | None, now: float) -> bool:
        """Sends the newest view if the connection is writable. Returns whether it has been slow for too long."""
        if self.closing or self.gone:
            return False
        if self._transport.get_write_buffer_size() > 0:
            self._slow_since = now if self._slow_since is None else self._slow_since
            return now - self._slow_since >= SLOW_S
        self._slow_since = None
        if view is not None and view is not self._sent and view.concerns(self._seen):
            self._transport.write(self.encoded(view))
            self._sent, self._seen = view, view.position
            metrics.FRAMES.labels(self.kind).inc()
        elif now >= self._beat_at:
            due, self._beat_at = self._beat_at, now + self._beat_s
            if due:  # the first step only sets the time
                self._transport.write(self.beat(now))
        return False


class Hub:
    """All viewers of this process."""

    def __init__(
        self,
        limit: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """limit: maximum number of viewers at once."""
        self._limit = limit
        self._clock = clock
        self._uniform = uniform
        self._viewers: WeakSet[Viewer] = WeakSet()
        self._closings: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._draining = False
        self.newest: View | None = None

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def full(self) -> bool:
        """True if a new viewer must be refused."""
        return self._draining or len(self._viewers) >= self._limit

    def retry_s(self) -> float:
        """Returns when a viewer turned away should return: spread over a window that grows with their number."""
        window = min(max(len(self._viewers) / RETURNS_PER_S, LEAST_WINDOW_S), MOST_WINDOW_S)
        return self._uniform(0.1, window)

    def publish(self, view: View) -> None:
        """Fills the slot: a view that was there and not yet sent is dropped."""
        self.newest = view
        self._changed.set()

    @contextmanager
    def watching(self, viewer: Viewer) -> Iterator[None]:
        """Sends the viewer the newest frame at once, and newer ones until the end of the block."""
        self._viewers.add(viewer)
        metrics.VIEWERS.labels(viewer.kind).inc()
        try:
            viewer.step(self.newest, self._clock())
            yield
        finally:
            self._viewers.discard(viewer)
            metrics.VIEWERS.labels(viewer.kind).dec()

    async def run(self) -> None:
        """Sweeps forever: at each change, but at most once per COALESCE_S, and at least each TICK_S."""
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            began = self._clock()
            await self.sweep()
            await asyncio.sleep(max(0.0, COALESCE_S - (self._clock() - began)))

    async def sweep(self) -> None:
        """Visits every viewer once."""
        for count, viewer in enumerate(tuple(self._viewers), start=1):
            now = self._clock()
            if viewer.step(self.newest, now):
                metrics.SLOW.inc()
                self._send_away(viewer, TRY_AGAIN)
            elif viewer.broken(now):
                metrics.SILENT.inc()
                viewer.abort()
            if count % SHARE == 0:
                await asyncio.sleep(0)

    async def drain(self, seconds: float) -> None:
        """Disconnects all viewers, a share at a time, within about `seconds`."""
        self._draining = True
        viewers = list(self._viewers)
        share = max(SHARE, round(len(viewers) * DRAIN_STEP_S / seconds))
        for at in range(0, len(viewers), share):
            for viewer in viewers[at : at + share]:
                self._send_away(viewer, RESTART)
            if at + share < len(viewers):
                await asyncio.sleep(DRAIN_STEP_S)
        if self._closings:
            await asyncio.wait(self._closings, timeout=seconds)

    def _send_away(self, viewer: Viewer, code: int) -> None:
        if not viewer.closing:
            viewer.closing = True
            self._start(viewer.close(code, round(self.retry_s() * 1000)))

    def _start(self, closing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(closing)
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)
