"""A TCP link on loopback that takes its time: what is sent to its target arrives later, in order, all of it."""

import asyncio
import threading
import time
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Self


class SlowLink:
    """Passes bytes on between its `port` and `target` on loopback, in a thread of its own."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.delay_s = 0.0  # on the way there; what is under way keeps the delay that it began with
        self.delayed = 0  # chunks that had to wait
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow-link", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(30)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, thither = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        with suppress(asyncio.CancelledError):  # by `_close`
            await asyncio.gather(
                self._pass_on(reader, thither, slow=True), self._pass_on(there, writer, slow=False)
            )
        thither.close()
        writer.close()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, slow: bool) -> None:
        waiting: deque[tuple[float, bytes]] = deque()
        more = asyncio.Event()

        async def read() -> None:
            with suppress(OSError):
                while data := await source.read(65_536):
                    waiting.append((time.monotonic() + (self.delay_s if slow else 0.0), data))
                    more.set()
            waiting.append((0.0, b""))
            more.set()

        async def write() -> None:
            with suppress(OSError):
                while True:
                    while not waiting:
                        more.clear()
                        await more.wait()
                    due, data = waiting.popleft()
                    if not data:
                        sink.close()
                        return
                    left = due - time.monotonic()
                    if left > 0:
                        self.delayed += 1
                        await asyncio.sleep(left)
                    sink.write(data)
                    await sink.drain()

        await asyncio.gather(read(), write())
