"""Fairness and back-pressure: who asks too often, too slowly, or with too many connections."""

import asyncio
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
from tests.integration.ingest.conftest import Client, Ingest, Poll, eventually
from tests.integration.ingest.test_a_vote import problem
from tests.waiting import PATIENCE_S

from psephos.roles.ingest.requests import BODY_TIMEOUT_S

Start = Callable[..., Ingest]
CONNECTIONS = 10_000
MOST_KB_A_CONNECTION = 20
"""The bound that docs/how-to/limits.md states, with a margin for the allocator."""


async def test_a_voter_who_asks_too_often_waits_and_others_do_not(
    poll: Poll, start: Start, http: aiohttp.ClientSession
) -> None:
    client = Client(poll, start(PSEPHOS_INGEST_VOTER_RATE=0.2, PSEPHOS_INGEST_VOTER_BURST=3).wait_ready(), http)
    answers = [await client.vote(subject="ann") for _ in range(3)]
    refused = await client.vote(subject="ann")
    assert (refused[0], problem(refused)) == (429, "rate-limited")
    wait_s = int(refused[2]["Retry-After"])
    assert 1 <= wait_s <= 5
    for left, (status, _, headers) in zip((2, 1, 0), answers, strict=True):
        assert status == 202
        assert headers["RateLimit-Policy"] == '"voter";q=3;w=15'
        assert headers["RateLimit"].startswith(f'"voter";r={left};t=')
    records = poll.records()
    assert "RateLimit" in refused[2]["Access-Control-Expose-Headers"]
    assert (await client.vote(subject="ben"))[0] == 202
    _, lines = await client.batch([{"subject": "ann", "choices": ["ada"]}] * 10)
    assert {line["status"] for line in lines} == {202}  # a gateway answers for its own voters
    assert poll.records() == records + 11
    await asyncio.sleep(wait_s)
    assert (await client.vote(subject="ann"))[0] == 202


async def test_an_address_that_asks_too_often_waits_before_anything_else_is_looked_at(
    poll: Poll, start: Start, http: aiohttp.ClientSession
) -> None:
    variables = {"ADDRESS_RATE": 0.01, "ADDRESS_BURST": 5, "VOTER_RATE": 0}
    limits = {f"PSEPHOS_INGEST_{name}": value for name, value in variables.items()}
    client = Client(poll, start(PSEPHOS_TRUSTED_PROXIES=1, **limits).wait_ready(), http)
    crowd: dict[str, str] = {"X_Forwarded_For": "203.0.113.9"}
    answers = [await client.vote(token="rubbish", **crowd) for _ in range(6)]
    assert [status for status, _, _ in answers] == [401] * 5 + [429]
    answer = await client.vote(subject="ann", **crowd)
    assert (answer[0], problem(answer)) == (429, "rate-limited")
    status, _, headers = await client.vote(subject="ann", X_Forwarded_For="203.0.113.10")
    assert status == 202
    assert "RateLimit" not in headers  # voters have no limit here
    assert {(await client.vote(subject="ann"))[0] for _ in range(20)} == {202}  # this machine's own


async def ended_after(port: int, *pieces: bytes, every_s: float = 0.0) -> tuple[float, bytes]:
    """Seconds until the other side closed, and what it said.

    The last piece is sent again and again: a limit that began anew with each piece would keep it open for ever.
    """
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        for piece in pieces:
            writer.write(piece)
        while every_s:
            await asyncio.sleep(every_s)
            writer.write(pieces[-1])

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(PATIENCE_S):
            said = await reader.read()
    except ConnectionResetError:
        said = b"reset"
    sending.cancel()
    writer.close()
    return time.monotonic() - began, said


async def test_slow_and_half_open_clients_are_dropped(poll: Poll, start: Start) -> None:
    ingest = await asyncio.to_thread(start(PSEPHOS_INGEST_IDLE_S=3).wait_ready)
    vote = (
        f"POST /v1/sessions/final/votes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {poll.token('ann')}\r\nContent-Length: 1000\r\n\r\n"
    ).encode()
    silent, _trickling, second, slow_body, half_body = await asyncio.gather(
        ended_after(ingest.port),
        ended_after(ingest.port, b"POST /v1/sessions/final/votes HTTP/1.1\r\n", b"X: y\r\n", every_s=0.5),
        ended_after(ingest.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET", b" ", every_s=2.0),
        ended_after(ingest.port, vote, b" ", every_s=0.5),
        ended_after(ingest.port, vote + b'{"choices"'),
    )
    assert silent[0] > 2
    assert silent[1] == b""
    assert second[1].startswith(b"HTTP/1.1 404 ")
    for seconds, said in (slow_body, half_body):
        assert seconds > BODY_TIMEOUT_S - 1
        assert said.startswith(b"HTTP/1.1 408 ")
    await eventually(lambda: ingest.metrics()["psephos_ingest_connections"] == 0, "none is left")
    assert poll.records() == 0


async def test_too_many_connections_are_told_so_and_those_that_are_open_go_on(
    poll: Poll, start: Start, http: aiohttp.ClientSession
) -> None:
    ingest = await asyncio.to_thread(start(PSEPHOS_INGEST_CONNECTIONS=5).wait_ready)
    client = Client(poll, ingest, http)
    assert (await client.vote())[0] == 202  # this connection stays open
    others = [await asyncio.open_connection("127.0.0.1", ingest.port) for _ in range(4)]
    await eventually(lambda: ingest.metrics()["psephos_ingest_connections"] == 5, "five connections")
    for _ in range(3):
        _, said = await ended_after(ingest.port, b"POST /v1/sessions/final/votes HTTP/1.1\r\nHost: x\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: " in said
        assert b"problems/overloaded" in said
    assert (await client.vote(subject="ben"))[0] == 202
    others[0][1].close()
    await eventually(lambda: ingest.metrics()["psephos_ingest_connections"] == 4, "one has gone")
    reader, writer = await asyncio.open_connection("127.0.0.1", ingest.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
    for _, each in [*others, (reader, writer)]:
        each.close()


def rss_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def open_kept_connections(port: int, number: int, held: ExitStack) -> Counter[bytes]:
    """So many connections, each of which has had one answer. The status lines."""
    seen: Counter[bytes] = Counter()
    request = b"OPTIONS /v1/sessions/final/votes HTTP/1.1\r\nHost: x\r\n\r\n"
    for _ in range(number):
        each = held.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S))
        each.sendall(request)
        seen[each.recv(4096).partition(b"\r\n")[0]] += 1
    return seen


async def test_ten_thousand_idle_connections_cost_little_and_voting_goes_on(
    poll: Poll, start: Start, http: aiohttp.ClientSession, capsys: Any
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 1_000
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    ingest = await asyncio.to_thread(start(PSEPHOS_INGEST_IDLE_S=600).wait_ready)
    client = Client(poll, ingest, http)
    assert (await client.vote())[0] == 202
    before = rss_kb(ingest.pid)
    with ExitStack() as held:
        seen = await asyncio.to_thread(open_kept_connections, ingest.port, CONNECTIONS, held)
        assert seen == {b"HTTP/1.1 204 No Content": CONNECTIONS}
        assert (await asyncio.to_thread(ingest.metrics))["psephos_ingest_connections"] >= CONNECTIONS
        during = rss_kb(ingest.pid)
        began = time.monotonic()
        votes = [await client.vote(subject=f"voter-{number}") for number in range(50)]
        each_ms = (time.monotonic() - began) / len(votes) * 1000
        assert {status for status, _, _ in votes} == {202}
        assert ingest.reasons() == {}
    await eventually(lambda: ingest.metrics()["psephos_ingest_connections"] <= 2, "all are gone")
    a_connection = (during - before) / CONNECTIONS
    with capsys.disabled():
        print(
            f"\n{CONNECTIONS:,} idle connections: RSS {before / 1024:.0f} MB before,"
            f" {during / 1024:.0f} MB with them ({a_connection:.1f} KB each); a vote took {each_ms:.1f} ms"
        )
    assert a_connection < MOST_KB_A_CONNECTION
    assert (await client.vote(subject="after"))[0] == 202
