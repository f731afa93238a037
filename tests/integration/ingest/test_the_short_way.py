"""A vote that comes whole is taken the short way: it must look like any other, and stay in its place."""

import asyncio
import json
from typing import Any

import pytest
from tests.integration.ingest.conftest import Client, Ingest, Poll, eventually, in_log
from tests.waiting import PATIENCE_S

Answer = tuple[int, dict[str, str], Any]


def request(token: str, body: bytes = b'{"choices":["ada"]}', **headers: str) -> bytes:
    fields = {
        "Host": "x",
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"POST /v1/sessions/final/votes HTTP/1.1\r\n{head}\r\n".encode() + body


class Wire:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, ingest: Ingest) -> "Wire":
        return cls(*await asyncio.open_connection("127.0.0.1", ingest.port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def send_in_pieces(self, data: bytes) -> None:
        """The last byte of the body comes alone, so this goes aiohttp's own way."""
        self.send(data[:-1])
        await self.writer.drain()
        await asyncio.sleep(0.05)
        self.send(data[-1:])

    async def answer(self) -> Answer:
        async with asyncio.timeout(PATIENCE_S):
            status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self._reader.readexactly(int(headers["content-length"]))
        return int(status.split()[1]), headers, json.loads(body)

    async def ended(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.read() == b""


CHANGING = ("date", "ratelimit", "content-length")


def shape(answer: Answer) -> tuple[int, dict[str, str], Any]:
    """An answer without what differs between two votes."""
    status, headers, body = answer
    fixed = {name: "" if name in CHANGING else value for name, value in headers.items()}
    return status, fixed, sorted(body) if status == 202 else body


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 202),
        ({"Idempotency_Key": "one"}, 202),
        ({"Authorization": "Bearer rubbish"}, 401),
        ({"Authorization": ""}, 401),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Encoding": "gzip"}, 415),
        ({"Idempotency_Key": "two words"}, 400),
        ({"body": b'{"choices":["eve"]}'}, 422),
        ({"body": b'{"choices":["ada"],"choices":["bob"]}'}, 400),
        ({"body": b"["}, 400),
    ],
)
async def test_whole_or_in_pieces_a_vote_gets_the_same_answer(
    shared: Ingest, changes: dict[str, Any], status: int
) -> None:
    wire = await Wire.to(shared)
    answers = []
    for number, send in enumerate((wire.send, wire.send_in_pieces)):
        sent = send(request(shared.poll.token(f"way-{number}-{id(changes)}"), **changes))
        if sent is not None:
            await sent
        answers.append(await wire.answer())
    assert shape(answers[0]) == shape(answers[1])
    assert answers[0][0] == status
    wire.writer.close()


async def test_answers_come_in_the_order_of_the_requests(shared: Ingest) -> None:
    nothing = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    votes = [request(shared.poll.token(f"row-{number}")) for number in range(6)]
    wire = await Wire.to(shared)
    for together in (False, True):
        sent = [votes[0], nothing, votes[1], votes[2], nothing, votes[3]]
        if together:
            wire.send(b"".join(sent))
        else:
            for data in sent:  # each finds the one before it under way
                wire.send(data)
                await wire.writer.drain()
                await asyncio.sleep(0.001)
        assert [(await wire.answer())[0] for _ in sent] == [202, 404, 202, 202, 404, 202]
    wire.send(votes[4] + votes[5][:100])
    assert (await wire.answer())[0] == 202
    wire.send(votes[5][100:])
    status, _, answer = await wire.answer()
    assert status == 202
    assert in_log(shared.poll, [answer])
    wire.writer.close()


async def test_a_client_that_asks_to_close_or_asks_first_is_understood(shared: Ingest) -> None:
    wire = await Wire.to(shared)
    data = request(shared.poll.token("asks-first"), Expect="100-continue")
    wire.send(data[:-19])
    async with asyncio.timeout(PATIENCE_S):
        assert (await wire._reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    wire.send(data[-19:])
    assert (await wire.answer())[0] == 202
    wire.send(request(shared.poll.token("closes"), Connection="close"))
    status, headers, _ = await wire.answer()
    assert (status, headers["connection"]) == (202, "close")
    assert await wire.ended()


async def test_clients_that_leave_before_their_answers_leave_nothing_behind(poll: Poll, start: Any) -> None:
    ingest = await asyncio.to_thread(start().wait_ready)
    for number in range(20):
        wire = await Wire.to(ingest)
        wire.send(request(poll.token(f"gone-{number}")))
        await wire.writer.drain()
        wire.writer.transport.abort()
    wire = await Wire.to(ingest)
    wire.send(request(poll.token("stays")))
    assert (await wire.answer())[0] == 202
    await eventually(lambda: ingest.metrics()["psephos_ingest_connections"] == 1, "the others have gone")
    await eventually(lambda: ingest.metrics()["psephos_ingest_in_flight"] == 0, "nothing is under way")
    assert not ingest.events("request failed")
    wire.writer.close()


async def test_votes_that_are_under_way_when_it_is_to_end_are_answered(own: Client) -> None:
    """Connections that are at rest are closed, those with a vote under way after its answer."""
    wires = [await Wire.to(own.ingest) for _ in range(40)]
    for number, wire in enumerate(wires):
        wire.send(request(own.poll.token(f"last-{number}")))
        await wire.writer.drain()
    first = await wires[0].answer()  # so that it has begun to take them
    own.ingest.process.terminate()
    answers = [first, *[await wire.answer() for wire in wires[1:]]]
    assert {status for status, _, _ in answers} <= {202, 503}
    taken = [answer for status, _, answer in answers if status == 202]
    assert taken
    assert len(in_log(own.poll, taken)) == len(taken)
    assert await asyncio.to_thread(own.ingest.process.wait, PATIENCE_S) == 0


async def test_an_idle_connection_is_closed_and_one_with_a_vote_under_way_is_not(poll: Poll, start: Any) -> None:
    ingest = await asyncio.to_thread(start(PSEPHOS_INGEST_IDLE_S=3).wait_ready)
    wire = await Wire.to(ingest)
    for number in range(4):
        await asyncio.sleep(1)  # longer than the limit in all, never at rest for so long
        wire.send(request(poll.token(f"steady-{number}")))
        assert (await wire.answer())[0] == 202
    assert await wire.ended()
