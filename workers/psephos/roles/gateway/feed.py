"""The newest frame, from Redis: one subscription for the whole process, and a poll each second.

Correctness rests on the poll: Redis drops slow subscribers silently, and a message published between two
connections is lost. The subscription only makes it fast.
"""

import asyncio
from collections.abc import Callable

from psephos.adapters.redis import AWAY, Client, Projection, Subscription
from psephos.formats.errors import Malformed
from psephos.formats.frames import Frame
from psephos.platform.backoff import Backoff, spread
from psephos.platform.logs import get_logger
from psephos.roles.gateway import metrics
from psephos.roles.gateway.view import View, readable, view_of

LOOK_S = 1.0
STALE_LAG_MS = 10_000
BACKOFF_S, MOST_BACKOFF_S = 0.1, 2.0
log = get_logger()


class Newest:
    """Holds the newest frame of one epoch and its stale mark; hands over each change. Does no I/O."""

    def __init__(self, epoch: str, on_view: Callable[[View], None], *, embargoed: bool = False) -> None:
        """`embargoed`: frames that are not final but have figures per option are never taken."""
        self._epoch = epoch
        self._on_view = on_view
        self._embargoed = embargoed
        self._frame: Frame | None = None
        self._body = b""
        self._stale = True
        self.view: View | None = None

    def offer(self, body: bytes) -> bool:
        """Takes a frame if it is newer; returns whether it was. A frame of another epoch is another session's."""
        try:
            frame = readable(body)
        except Malformed as error:
            log.warning("frame ignored", why=str(error))
            return False
        if frame.epoch != self._epoch:
            log.warning("frame ignored", why=f"its epoch is {frame.epoch}, this session's is {self._epoch}")
            return False
        if self._embargoed and not frame.final and (frame.totals, frame.segments, frame.outcome) != (None,) * 3:
            log.error("frame ignored", why="it has figures by option under embargo", version=frame.version)
            return False
        if self._frame is not None and frame.version <= self._frame.version:
            return False
        self._frame, self._body = frame, body
        self._show()
        return True

    def mark(self, stale: bool) -> None:
        """Sets whether the frame held may be stale."""
        changed, self._stale = stale != self._stale, stale
        if changed:
            self._show()

    def _show(self) -> None:
        if self._frame is None:
            return
        stale = self._stale and not self._frame.final
        if self.view is not None and (self.view.position.version, self.view.stale) == (self._frame.version, stale):
            return
        self.view = view_of(self._frame, self._body, stale=stale)
        metrics.STALE.set(stale)
        metrics.VERSION.set(self._frame.version)
        self._on_view(self.view)


class Feed:
    """Follows one session's projection forever."""

    def __init__(self, redis: Client, session_uid: str, newest: Newest, on_contact: Callable[[], None]) -> None:
        """`on_contact` is called each time Redis has answered."""
        self._projection = Projection(redis, session_uid)
        self._newest = newest
        self._on_contact = on_contact

    async def run(self) -> None:
        backoff = Backoff(BACKOFF_S, MOST_BACKOFF_S)
        while True:
            try:
                async with self._projection.subscription() as subscription:
                    while True:
                        await self._look()
                        backoff.reset()
                        await self._listen(subscription, LOOK_S)
            except AWAY as error:
                metrics.REDIS_ERRORS.inc()
                self._newest.mark(stale=True)
                pause_s = backoff.next_s()
                log.warning(
                    "redis does not answer", why=str(error) or type(error).__name__, retry_within_s=pause_s
                )
                await asyncio.sleep(spread(pause_s, 1.0))

    async def _look(self) -> None:
        body, lag_ms = await self._projection.read(), await self._projection.lag_ms()
        self._on_contact()
        if body is not None:
            self._newest.offer(body)
        self._newest.mark(stale=lag_ms is None or lag_ms > STALE_LAG_MS)

    async def _listen(self, subscription: Subscription, seconds: float) -> None:
        async for body in subscription.bodies(seconds):
            self._newest.offer(body)
