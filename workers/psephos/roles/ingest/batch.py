"""HTTP: many votes per request, from a gateway that the session trusts.

Newline-delimited JSON both ways, answered while it is read, in the order of the lines. Memory is bounded: a few
parts of `PART_LINES` lines each. So a client reads answers while it sends, and a line without an answer (this
process was stopped, the connection broke) is sent again with the same idempotencyKey.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from time import monotonic
from typing import Final

import msgspec
from aiohttp import StreamReader, web

from psephos.platform.clock import now_ms
from psephos.platform.logs import get_logger
from psephos.roles.ingest import metrics
from psephos.roles.ingest.credentials import Credentials
from psephos.roles.ingest.eligibility import Eligibility
from psephos.roles.ingest.gate import Gate, timestamp
from psephos.roles.ingest.intake import Content, Intake, LineReader, Records
from psephos.roles.ingest.keys import UnknownKey
from psephos.roles.ingest.problems import Problem
from psephos.roles.ingest.requests import bearer, continue_if_expected, require_media
from psephos.roles.ingest.tracing import Trace, trace_id, trace_of
from psephos.roles.ingest.votelog import POLL_S, Sent, VoteLog, too_busy

MEDIA_TYPES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
LINE_LIMIT: Final = 64 * 1024
PART_LINES: Final = 500  # about 4 ms of work, half of which single votes wait for at a time
PARTS_UNDER_WAY: Final = 4
QUEUE_SHARE: Final = 0.75  # of the queue: the rest is for single votes
ROOM_TIMEOUT_S: Final = 5.0
IDLE_TIMEOUT_S: Final = 60.0
WRITE_TIMEOUT_S: Final = 30.0
_LOOK_UP_S: Final = 0.5  # how often a waiting batch checks whether the process is to end
_encode = msgspec.json.Encoder().encode
log = get_logger()

Line = tuple[int, bytes | None]
"""Number, from 1, and content; None for a line above the limit."""


class LineSplitter:
    """Splits chunks of bytes into lines, in bounded memory. Pure. Blank lines are numbered, but not handed out."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._rest = b""
        self._overlong = False
        self._number = 0

    def feed(self, data: bytes) -> list[Line]:
        """Returns the lines that end in `data`."""
        pieces = (self._rest + data).split(b"\n")
        self._rest = pieces.pop()
        lines = self._numbered(pieces)
        if len(self._rest) > self._limit:
            self._overlong, self._rest = True, b""
        return lines

    def end(self) -> list[Line]:
        """Returns the last line, if it did not end with a newline."""
        last, self._rest = self._numbered([self._rest]), b""
        return last

    def _numbered(self, pieces: list[bytes]) -> list[Line]:
        first, limit = self._number + 1, self._limit
        self._number += len(pieces)
        cut: list[Line] = []
        if pieces and self._overlong:  # all but its end has been discarded
            cut, pieces, first, self._overlong = [(first, None)], pieces[1:], first + 1, False
        return cut + [
            (number, piece if len(piece) <= limit else None)
            for number, piece in enumerate(pieces, first)
            if piece[:1] == b"{" or piece.strip()
        ]


class Part:
    """Lines that are handed to the log together, and their answers."""

    def __init__(
        self, intake: Intake, numbers: list[int], outcomes: Sequence[Content | Problem], received_at: int
    ) -> None:
        """`outcomes`: per line, what goes into the log, or why nothing does."""
        self.records = intake.records([outcome for outcome in outcomes if not isinstance(outcome, Problem)])
        self.sent: Sent | None = None
        self._intake = intake
        self._numbers = numbers
        self._problems = [outcome if isinstance(outcome, Problem) else None for outcome in outcomes]
        self._received_at = received_at

    async def answers(self) -> bytes:
        """Returns one line of JSON for each line, once the log has acknowledged."""
        if self.sent is not None:
            await self.sent.done
        problems = self._settled()
        accepted = self._accepted(
            [n for n, problem in zip(self._numbers, problems, strict=True) if problem is None]
        )
        metrics.count(metrics.ACCEPTED, len(accepted))
        answers = accepted if len(accepted) == len(problems) else self._all(accepted, problems)
        return ("\n".join(answers) + "\n").encode()

    def _all(self, accepted: list[str], problems: Sequence[Problem | None]) -> list[str]:
        """Returns the answers to all lines, in order."""
        for slug, votes in Counter(problem.slug for problem in problems if problem is not None).items():
            metrics.count(slug, votes)
        following = iter(accepted)
        return [
            next(following) if problem is None else _refused(number, problem)
            for number, problem in zip(self._numbers, problems, strict=True)
        ]

    def _settled(self) -> list[Problem | None]:
        """Returns, per line, why it has no receipt; None if it gets one."""
        if self.sent is None or None not in self.sent.offsets:
            return self._problems
        sent = self.sent
        of_records = (sent.problem(index) if offset is None else None for index, offset in enumerate(sent.offsets))
        return [next(of_records) if problem is None else problem for problem in self._problems]

    def _accepted(self, numbers: list[int]) -> list[str]:
        """Returns the answers to the lines with these numbers, whose records are confirmed."""
        if self.sent is None or not numbers:
            return []
        records, offsets = _confirmed(self.records, self.sent.offsets)
        receipts = self._intake.receipts(records, offsets)
        received_at = timestamp(self._received_at)
        return [
            f'{{"line":{number},"status":202,"receipt":"{receipt}","partition":{partition},'
            f'"offset":{offset},"receivedAt":"{received_at}"}}'
            for number, receipt, partition, offset in zip(
                numbers, receipts, records.partitions, offsets, strict=True
            )
        ]


def _confirmed(records: Records, offsets: Sequence[int | None]) -> tuple[Records, list[int]]:
    """Returns the records that have an offset, and their offsets."""
    places = [offset for offset in offsets if offset is not None]
    if len(places) == len(offsets):
        return records, places
    indexes = [index for index, offset in enumerate(offsets) if offset is not None]
    return records.only(indexes), places


def _refused(number: int, problem: Problem) -> str:
    return _encode({"line": number, **problem.document()}).decode()


class BatchDoor:
    """The batch endpoint. `draining`: it takes no more lines from now on."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        gate: Gate,
        intake: Intake,
        eligibility: Eligibility,
        reader: LineReader,
        votelog: VoteLog,
    ) -> None:
        self.draining = False
        self._credentials = credentials
        self._eligibility = eligibility
        self._gate = gate
        self._intake = intake
        self._reader = reader
        self._votelog = votelog
        self._part_lines = max(1, min(PART_LINES, votelog.limit // 4))

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers a batch. Raises Problem if the whole batch is refused."""
        self._check(request)
        response = web.StreamResponse(headers={"Content-Type": MEDIA_TYPES[0]})
        continue_if_expected(request)
        await response.prepare(request)
        try:
            await self._converse(request.content, response, trace_of(request.headers))
        except* (ConnectionError, TimeoutError):  # the client is gone, or does not read
            log.info("batch broken off", trace=trace_id(request.headers))
            _abort(request)
        except* Exception:
            log.exception("batch failed", trace=trace_id(request.headers))
            _abort(request)
        return response

    def _check(self, request: web.BaseRequest) -> None:
        if not self._credentials.accepts(bearer(request.headers) or ""):
            challenge = {"WWW-Authenticate": 'Bearer realm="psephos-batch"'}
            raise Problem("unauthorized", "send the gateway credential as a bearer token", headers=challenge)
        require_media(request.headers, *MEDIA_TYPES)
        self._gate.admit(wall_ms=now_ms(), mono=monotonic())

    async def _converse(self, content: StreamReader, response: web.StreamResponse, trace: Trace | None) -> None:
        parts: asyncio.Queue[Part | None] = asyncio.Queue(PARTS_UNDER_WAY)
        async with asyncio.TaskGroup() as group:
            group.create_task(_write(parts, response))
            async for lines in self._lines(content):
                await parts.put(await self._take(lines, trace))
            await parts.put(None)

    async def _lines(self, content: StreamReader) -> AsyncIterator[Sequence[Line]]:
        splitter = LineSplitter()
        idle_s, data = 0.0, b"-"
        while data and not self.draining and idle_s < IDLE_TIMEOUT_S:
            try:
                async with asyncio.timeout(_LOOK_UP_S):
                    data = await content.readany()
            except TimeoutError:
                idle_s += _LOOK_UP_S
                continue
            except web.RequestPayloadError:
                return  # the client can no longer be understood; what it sent before is answered
            idle_s = 0.0
            lines = splitter.feed(data) if data else splitter.end()
            for start in range(0, len(lines), self._part_lines):
                yield lines[start : start + self._part_lines]

    async def _take(self, lines: Sequence[Line], trace: Trace | None) -> Part:
        """Hands the lines to the log, as soon as it has room for them."""
        refusal = await self._refusal(len(lines))
        received_at = now_ms()
        numbers, contents = [number for number, _ in lines], [line for _, line in lines]
        outcomes = [refusal] * len(lines) if refusal else await self._outcomes(contents, received_at)
        part = Part(self._intake, numbers, outcomes, received_at)
        if part.records.keys:
            part.sent = self._votelog.send(part.records, received_at, trace)
        return part

    async def _outcomes(self, lines: list[bytes | None], received_at: int) -> list[Content | Problem]:
        outcomes = self._read(lines, received_at)
        for index in range(len(lines)):
            if isinstance(outcomes[index], UnknownKey):
                outcomes[index:] = await self._read_again(lines[index:], outcomes[index:], received_at)
        return outcomes

    async def _read_again(
        self, lines: list[bytes | None], outcomes: list[Content | Problem], received_at: int
    ) -> list[Content | Problem]:
        """Reads lines again, the first of which names an unknown key, with its issuer's newest keys."""
        try:
            return self._read(lines, received_at) if await self._eligibility.look_again() else outcomes
        except Problem as problem:
            return [problem, *outcomes[1:]]

    def _read(self, lines: list[bytes | None], received_at: int) -> list[Content | Problem]:
        read = iter(self._reader.read([line for line in lines if line is not None], received_at))
        return [_too_long() if line is None else next(read) for line in lines]

    async def _refusal(self, lines: int) -> Problem | None:
        """Waits for room in the queue; returns why this many lines can't be taken now, None if they can."""
        room = max(lines, int(self._votelog.limit * QUEUE_SHARE))
        deadline = monotonic() + ROOM_TIMEOUT_S
        while self._votelog.in_flight + lines > room:
            if monotonic() > deadline:
                return too_busy()
            await asyncio.sleep(POLL_S)
        try:
            self._gate.admit(wall_ms=now_ms(), mono=monotonic())
        except Problem as problem:
            return problem
        return None


def _too_long() -> Problem:
    return Problem("body-too-large", f"a line has at most {LINE_LIMIT} bytes", limit=LINE_LIMIT)


async def _write(parts: "asyncio.Queue[Part | None]", response: web.StreamResponse) -> None:
    while (part := await parts.get()) is not None:
        answers = await part.answers()
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await response.write(answers)


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
