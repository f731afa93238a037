"""Open-loop load: requests are sent when they are due, whatever has become of those before.

A client that waits for an answer before it asks again leaves out just the moments in which a server is slow
("coordinated omission"). Here each latency counts from the time at which its request was due, so a request that
had to wait for a free connection, or for this very client, has that in it.
"""

import asyncio
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import perf_counter
from typing import NamedTuple

from psephos_lab.ports import LOOPBACK

CONNECTIONS = 256
_TICK_S = 0.001
_SLOWEST_TICK_S = 0.02  # where less is due: a client of many loads would use the CPU that is measured
_ANSWERS_S = 10.0  # for those that are still under way at the end
_STATUS = slice(9, 12)  # of a head's first line
_LENGTH = b"\r\nContent-Length: "


class Latencies(NamedTuple):
    """Milliseconds, of every request. refused: how many got another answer than 202; missing: or none at all.

    seconds: from the first that was due to the last answer. why: the head of the first answer that refused one.
    """

    millis: list[float]
    refused: int
    missing: int
    seconds: float
    why: str

    def require_all(self) -> None:
        """Raises RuntimeError unless all were accepted."""
        if self.refused or self.missing:
            why = f" ({self.why})" if self.why else ""
            raise RuntimeError(f"{self.refused} votes were refused{why}, {self.missing} got no answer")

    def percentile(self, percent: int) -> float:
        return statistics.quantiles(self.millis, n=100, method="inclusive")[percent - 1]


class Load:
    """So many requests a second, each the next one of `requests`, over connections that are kept.

    `when_due` is called with the number of each request, from 0, and its due time by `perf_counter`.
    """

    def __init__(self, port: int, requests: Iterator[bytes], rate: float, connections: int = CONNECTIONS) -> None:
        self._port = port
        self.requests = requests
        self.when_due: Callable[[int, float], None] = lambda _number, _due: None
        self._rate = rate
        self._number = connections
        self.idle: list[_Connection] = []
        self.waiting: deque[float] = deque()
        self.millis: list[float] = []
        self.refused = 0
        self.why = ""
        self._total = 0
        self._over: asyncio.Future[None]

    async def run(self, seconds: float) -> Latencies:
        """Raises ConnectionError when the other side closes a connection."""
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        self._total = round(self._rate * seconds)
        made = [
            await loop.create_connection(lambda: _Connection(self), LOOPBACK, self._port)
            for _ in range(self._number)
        ]
        self.idle = [connection for _, connection in made]
        tick_s = min(_SLOWEST_TICK_S, max(_TICK_S, 0.1 / self._rate))
        began, asked = perf_counter(), 0
        while asked < self._total and not self._over.done():
            due = min(self._total, int((perf_counter() - began) * self._rate) + 1)
            for number in range(asked, due):
                self.waiting.append(began + number / self._rate)
                self.when_due(number, self.waiting[-1])
            asked = due
            self.send()
            await asyncio.sleep(tick_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(_ANSWERS_S):
                await self._over
        took = perf_counter() - began
        for transport, _ in made:
            transport.abort()
        return Latencies(self.millis, self.refused, self._total - len(self.millis), took, self.why)

    def answered(self, connection: "_Connection", due: float, head: bytes) -> None:
        self.millis.append((perf_counter() - due) * 1000)
        if head[_STATUS] != b"202":
            self.refused += 1
            self.why = self.why or head.partition(b"\r\n")[0].decode(errors="replace")
        self.idle.append(connection)
        if len(self.millis) == self._total and not self._over.done():
            self._over.set_result(None)
        if self.waiting:
            self.send()

    def lost(self) -> None:
        if not self._over.done():
            self._over.set_exception(ConnectionError("the server has closed a connection"))

    def send(self) -> None:
        """As many of those that are due as there are idle connections."""
        while self.waiting and self.idle:
            self.idle.pop().ask(next(self.requests), self.waiting.popleft())


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._due = 0.0
        self._head = b""
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, _error: BaseException | None) -> None:
        self._load.lost()

    def ask(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            length = head[head.index(_LENGTH) + len(_LENGTH) :].partition(b"\r")[0]
            self._missing = int(length) - len(body)
        if not self._missing:
            self._answered()

    def _answered(self) -> None:
        head, self._head = self._head, b""
        self._load.answered(self, self._due, head)
