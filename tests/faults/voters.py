"""Voters at ingest's door, many at once, who write down each 202 on disk and may try again for ever."""

import asyncio
import base64
import json
import struct
import time
from collections import Counter
from typing import Any

import aiohttp
from tests.faults.client import Journal
from tests.faults.conftest import Drill, journal_of
from tests.harness import TOKEN_KEY, Role, Running
from tests.waiting import READY_S

from psephos.client.tokens import TokenTemplate, signer
from psephos_lab.ports import free_port


class Door:
    """One ingest process and the voters before it."""

    def __init__(self, drill: Drill, running: Running, **environ: str) -> None:
        self._running = running
        self._port = free_port()
        self._sign = signer("HS256", TOKEN_KEY)
        self._template = TokenTemplate("i", "a")
        self._journal = Journal(journal_of(running))
        self._environ = environ
        self.answers: Counter[int] = Counter()
        self.kinds: Counter[str] = Counter()
        self.broken = 0  # connections that ended without an answer
        self.ingest = self._start()

    def _start(self) -> Role:
        return self._running.start("ingest", PSEPHOS_INGEST_PORT=str(self._port), **self._environ)

    async def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while await asyncio.to_thread(self.ingest.reasons):
            assert self.ingest.process.running, self.ingest.process.last_words()
            assert time.monotonic() < deadline, f"ingest is not ready: {self.ingest.reasons()}"
            await asyncio.sleep(0.1)

    async def again(self) -> None:
        """Starts ingest on the same port after it was killed."""
        self.ingest = self._start()
        await self.wait_ready()

    async def vote(self, http: aiohttp.ClientSession, subject: str, option: str) -> int:
        """The status of the answer, 0 without one. A 202 is on disk when this returns."""
        token = self._sign(self._template.claims(subject, int(time.time())))
        url = f"http://127.0.0.1:{self._port}/v1/sessions/test/votes"
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            async with http.post(url, data=json.dumps({"choices": [option]}), headers=headers) as answer:
                body: dict[str, Any] = json.loads(await answer.read())
                status = answer.status
        except (aiohttp.ClientError, OSError):
            self.broken += 1
            return 0
        if status == 202:
            self._journal.write([_place(body["receipt"])])
        else:
            self.kinds[str(body["type"]).rpartition("/")[2]] += 1
        self.answers[status] += 1
        return status

    async def insist(self, http: aiohttp.ClientSession, subject: str, option: str, times: int = 1) -> None:
        """Tries until the vote was answered with 202 as often as that."""
        while times:
            if await self.vote(http, subject, option) == 202:
                times -= 1
            else:
                await asyncio.sleep(0.05)


def _place(receipt: str) -> tuple[int, int, str]:
    """Partition, offset and the first 16 bytes of the record's digest, as the receipt says."""
    raw = base64.urlsafe_b64decode(receipt + "=" * (-len(receipt) % 4))
    partition, offset, digest = struct.unpack_from(">9xHQ16s", raw)
    return partition, offset, digest.hex()
