"""Voters and viewers outside of the cluster: every name below the domain is the ingress, on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from tests.waiting import wait_until

from e2e.certificates import Authority
from e2e.sessions import Session
from psephos.formats.receipts import parse_receipt

PAUSES_S = (0.1, 0.6)
TIMEOUT = aiohttp.ClientTimeout(total=8, connect=3)
GIVE_UP_S = 300.0
T = TypeVar("T")


class _Loopback(AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        at: ResolveResult = {
            "hostname": host,
            "host": "127.0.0.1",
            "port": port,
            "family": socket.AF_INET,
            "proto": 0,
            "flags": 0,
        }
        return [at]

    async def close(self) -> None:
        pass


def client(authority: Authority | None, **more: Any) -> aiohttp.ClientSession:
    """A client that finds the ingress by every name, and checks its certificate by this authority."""
    trust = True if authority is None else authority.context
    connector = aiohttp.TCPConnector(resolver=_Loopback(), ssl=trust, limit=64)
    return aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, **more)


class Answer(NamedTuple):
    """What came back; 0 and the error's name where nothing did."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def problem(self) -> str:
        """The last part of a problem's type."""
        return str(self.body.get("type", self.status)).rsplit("/", 1)[-1]


async def ask(client: aiohttp.ClientSession, method: str, url: str, **more: Any) -> Answer:
    """One request; nothing is raised, whatever becomes of it."""
    try:
        async with client.request(method, url, **more) as response:
            body = await response.read()
            document = json.loads(body) if "json" in response.content_type else {"text": body.decode()}
            return Answer(response.status, document, response.headers)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return Answer(0, {"type": type(error).__name__}, {})


def get(authority: Authority | None, url: str, **more: Any) -> Answer:
    """One GET."""
    return _once(authority, "GET", url, **more)


def post(authority: Authority | None, url: str, **more: Any) -> Answer:
    """One POST."""
    return _once(authority, "POST", url, **more)


def wait_published(authority: Authority | None, session: Session) -> None:
    """Until the ingress routes results and votes of a session that is ready: it learns of each Service by itself.

    As long as it knows of the gateway alone, the gateway gets the votes, too, and has no such path.
    """

    def published() -> bool:
        if get(authority, session.url).status != 200:
            return False
        return post(authority, f"{session.url}/votes").problem == "unsupported-media-type"  # ingest replied

    wait_until(published, f"{session.url} is published", 60)


def _once(authority: Authority | None, method: str, url: str, **more: Any) -> Answer:
    async def once() -> Answer:
        async with client(authority) as door:
            return await ask(door, method, url, **more)

    return within_a_loop(once())


def within_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """Its result, from a loop of its own: the browser's driver keeps one in the thread of the tests."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


class Vote(NamedTuple):
    """Who votes what. The voter's name is its Idempotency-Key as well: one vote a voter."""

    subject: str
    body: Mapping[str, Any]


class Journal:
    """What was acknowledged, on disk before it is believed: lines `[partition, offset, digest]`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")

    def write(self, receipts: Iterable[str]) -> None:
        """Returns when they are on disk."""
        for text in receipts:
            receipt = parse_receipt(text).receipt
            self._file.write(
                json.dumps([receipt.partition, receipt.offset, receipt.digest.hex()]).encode() + b"\n"
            )
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class Traffic:
    """Votes through the ingress in a thread of its own, each sent until it is acknowledged.

    `rate`: votes a second at most; `most`: requests under way at once. `acknowledged_at`: a monotonic time a vote.
    """

    def __init__(
        self,
        authority: Authority | None,
        session: Session,
        votes: Iterable[Vote],
        journal: Path,
        *,
        rate: float | None = None,
        most: int = 32,
    ) -> None:
        self.acknowledged_at: list[float] = []
        self.refused: Counter[str] = Counter()
        self.receipts: list[str] = []
        self._authority, self._session = authority, session
        self._votes = iter(votes)
        self._journal = Journal(journal)
        self._rate, self._most = rate, most
        self._unwritten: list[str] = []
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="voters", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def acknowledged(self) -> int:
        return len(self.acknowledged_at)

    def stop(self) -> None:
        """No new voters; those who are at it get their answers."""
        self._stopping.set()
        self.finish()

    def finish(self) -> None:
        """Waits until all have voted. Raises what went wrong."""
        self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def longest_gap(self, since: float) -> float:
        """The longest time from `since` on, a monotonic time, in which no vote was acknowledged."""
        moments = [since, *(moment for moment in self.acknowledged_at if moment >= since), time.monotonic()]
        return max(after - before for before, after in pairwise(moments))

    def _run(self) -> None:
        try:
            asyncio.run(self._cast())
        except BaseException as error:
            self._error = error
        finally:
            self._journal.close()

    async def _cast(self) -> None:
        queue: asyncio.Queue[Vote] = asyncio.Queue(self._most)
        async with client(self._authority) as door:
            workers = [asyncio.create_task(self._voter(door, queue)) for _ in range(self._most)]
            workers.append(asyncio.create_task(self._keep()))
            feeding = asyncio.create_task(self._feed(queue))
            try:
                done, _ = await asyncio.wait([feeding, *workers], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in workers:
                    task.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        self._write()

    async def _feed(self, queue: asyncio.Queue[Vote]) -> None:
        began = time.monotonic()
        for sent, vote in enumerate(self._votes):
            if self._stopping.is_set():
                break
            if self._rate is not None:
                await asyncio.sleep(max(0.0, began + sent / self._rate - time.monotonic()))
            await queue.put(vote)
        await queue.join()

    async def _voter(self, door: aiohttp.ClientSession, queue: asyncio.Queue[Vote]) -> None:
        while True:
            vote = await queue.get()
            await self._until_acknowledged(door, vote)
            queue.task_done()

    async def _until_acknowledged(self, door: aiohttp.ClientSession, vote: Vote) -> None:
        headers = {"Authorization": f"Bearer {self._session.token(vote.subject)}", "Idempotency-Key": vote.subject}
        deadline = time.monotonic() + GIVE_UP_S
        while True:
            answer = await ask(door, "POST", f"{self._session.url}/votes", json=vote.body, headers=headers)
            if answer.status == 202:
                self._unwritten.append(str(answer.body["receipt"]))
                return
            self.refused[answer.problem] += 1
            if answer.problem in ("session-closed", "invalid-ballot", "invalid-token", "not-eligible"):
                return
            assert time.monotonic() < deadline, f"{vote.subject} can't vote: {answer.problem} {answer.body}"
            await asyncio.sleep(random.uniform(*PAUSES_S))

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self._write()

    def _write(self) -> None:
        receipts, self._unwritten = self._unwritten, []
        if receipts:
            self._journal.write(receipts)
            self.receipts += receipts
            self.acknowledged_at += [time.monotonic()] * len(receipts)


def tea_and_coffee(first: int, number: int | None = None) -> Iterable[Vote]:
    """Voters from `first` on, without end or so many; every third takes coffee."""
    at = first
    while number is None or at < first + number:
        yield Vote(f"voter-{at:07d}", {"choices": ["coffee" if at % 3 == 0 else "tea"]})
        at += 1


class Viewer:
    """A viewer on a WebSocket in a thread of its own, who comes back when the line breaks.

    frames: all that were seen; a version that goes backwards within an epoch is noted in `backwards`.
    """

    def __init__(self, authority: Authority | None, session: Session) -> None:
        self.frames: list[dict[str, Any]] = []
        self.backwards: list[str] = []
        self.connections = 0
        self._authority, self._session = authority, session
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._watch()), name="viewer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(20)

    @property
    def newest(self) -> dict[str, Any]:
        return self.frames[-1] if self.frames else {}

    def saw(self, told: Callable[[dict[str, Any]], bool]) -> Callable[[], bool]:
        """Whether the newest frame is one of those."""
        return lambda: bool(self.frames) and told(self.newest)

    async def _watch(self) -> None:
        async with client(self._authority) as door:
            while not self._stopping.is_set():
                try:
                    await self._listen(door)
                except (aiohttp.ClientError, TimeoutError, OSError):
                    await asyncio.sleep(0.3)

    async def _listen(self, door: aiohttp.ClientSession) -> None:
        async with door.ws_connect(
            f"{self._session.url}/live", timeout=aiohttp.ClientWSTimeout(ws_close=2)
        ) as socket:
            self.connections += 1
            while not self._stopping.is_set():
                try:
                    message = await socket.receive(timeout=1)
                except TimeoutError:  # nothing new
                    continue
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                self._note(json.loads(message.data))

    def _note(self, frame: dict[str, Any]) -> None:
        before = self.newest
        if before and before["epoch"] == frame["epoch"] and before["version"] > frame["version"]:
            self.backwards.append(f"{before['version']} and then {frame['version']}")
        self.frames.append(frame)


def events(
    authority: Authority | None, session: Session, wanted: int, timeout: float = 30.0
) -> Sequence[dict[str, Any]]:
    """So many frames by server-sent events."""

    async def listen() -> list[dict[str, Any]]:
        frames: list[dict[str, Any]] = []
        patience = aiohttp.ClientTimeout(total=timeout)
        async with client(authority) as door, door.get(f"{session.url}/events", timeout=patience) as response:
            assert response.content_type == "text/event-stream", response.content_type
            async for line in response.content:
                if line.startswith(b"data: "):
                    frames.append(json.loads(line.removeprefix(b"data: ")))
                    if len(frames) >= wanted:
                        break
        return frames

    return within_a_loop(listen())
