"""Viewers for tests: a WebSocket and an SSE stream that keep every frame they got."""

import asyncio
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import aiohttp
from tests.waiting import PATIENCE_S

Frame = dict[str, Any]


class Watcher:
    """A viewer of one kind. `frames` in the order in which they came; `ended` with `code` and `reason`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.frames: list[Frame] = []
        self.ids: list[str] = []
        self.retries: list[int] = []
        self.status = 0
        self.code: int | None = None
        self.reason = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def versions(self) -> list[int]:
        return [frame["version"] for frame in self.frames]

    @property
    def ended(self) -> bool:
        return self._task is not None and self._task.done()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, seen: Callable[[Frame], bool], what: str) -> Frame:
        """The newest frame, once it is as wanted."""
        await eventually(lambda: bool(self.frames) and seen(self.frames[-1]), what)
        return self.frames[-1]

    async def until_ended(self) -> None:
        await eventually(lambda: self.ended, f"{self.url} ended")

    async def _watch(self) -> None:
        raise NotImplementedError


class Socket(Watcher):
    """A WebSocket."""

    async def _watch(self) -> None:
        async with aiohttp.ClientSession() as client:
            try:
                async with client.ws_connect(self.url) as socket:
                    self.status = 101
                    while True:
                        message = await socket.receive()
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            self.code, self.reason = socket.close_code, message.extra or ""
                            return
                        self.frames.append(json.loads(message.data))
            except aiohttp.WSServerHandshakeError as error:
                self.status = error.status
            except aiohttp.ClientError:
                return


class Events(Watcher):
    """An SSE stream, parsed line by line."""

    def __init__(self, url: str, last_event_id: str | None = None) -> None:
        super().__init__(url)
        self._headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}

    async def _watch(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.get(self.url, headers=self._headers) as answer,
        ):
            self.status = answer.status
            async for line in answer.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "data":
                    self.frames.append(json.loads(value))
                elif name == "id":
                    self.ids.append(value)
                elif name == "retry":
                    self.retries.append(int(value))


async def eventually(happened: Callable[[], bool], what: str) -> None:
    """Polls with a deadline, the event loop going on."""
    deadline = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(happened):
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        await asyncio.sleep(0.02)
