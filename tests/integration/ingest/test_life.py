"""Starts, stops, and what happens when the log does not answer."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.integration.ingest.conftest import CREDENTIAL, Client, Ingest, Poll, eventually, in_log
from tests.waiting import PATIENCE_S

from psephos.formats.control import Phase
from psephos.http.problems import TYPE_BASE
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

Start = Callable[..., Ingest]


def last_line(ingest: Ingest) -> str:
    """What a person reads of an ingest that could not start; there must be no traceback."""
    code = ingest.process.wait(PATIENCE_S)
    text = ingest.log.read_text()
    assert code == 2, text
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, text
    return lines[0]


def test_what_keeps_it_from_starting_is_one_line(start: Start, poll: Poll, tmp_path: Path) -> None:
    """Several at once, as each takes its time; `tests/unit/ingest/test_keys.py` has more."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("apiVersion: [")
    other = start().wait_ready()
    nobody = f"127.0.0.1:{free_port()}"
    started = [
        (start(**variables), expected)
        for variables, expected in (
            ({"PSEPHOS_KAFKA_BOOTSTRAP": nobody}, f"no Kafka broker answers at {nobody}"),
            ({"PSEPHOS_SESSION_FILE": broken}, "broken YAML"),
            ({"PSEPHOS_TOKEN_KEY_FILE": ""}, "PSEPHOS_TOKEN_KEY_FILE is not set"),
            ({"PSEPHOS_SESSION_KEY_FILE": poll.folder / "token-key"}, "key fingerprint"),
            ({"PSEPHOS_INGEST_PORT": other.port}, f"can't listen on 127.0.0.1:{other.port}"),
            ({"PSEPHOS_INGEST_PORT": other.port, "PSEPHOS_INGEST_PROCESSES": 2}, f"on 127.0.0.1:{other.port}"),
            ({"PSEPHOS_ADMIN_PORT": other.admin_port}, f"can't listen on 127.0.0.1:{other.admin_port}"),
            ({"PSEPHOS_INGST_PORT": 1}, "PSEPHOS_INGST_PORT is not a setting"),
        )
    ]
    for ingest, expected in started:
        assert expected in last_line(ingest)
    assert other.reasons() == {}


async def vote_until_refused(
    poll: Poll, ingest: Ingest, name: str, answers: list[dict[str, Any]], faults: list[str]
) -> None:
    """One voter after the other on one connection at a time, until nobody listens any more."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:
        client = Client(poll, ingest, http)
        for number in range(100_000):
            try:
                status, answer, _ = await client.vote(subject=f"{name}-{number}")
                answers.append({**answer, "status": status})
            except aiohttp.ClientConnectorError:
                return
            except (aiohttp.ClientError, ConnectionError) as error:
                faults.append(repr(error))


async def test_sigterm_under_load_loses_no_answer(poll: Poll, start: Start) -> None:
    ingest = start().wait_ready()
    answers: list[dict[str, Any]] = []
    faults: list[str] = []
    voters = [
        asyncio.create_task(vote_until_refused(poll, ingest, f"voter-{n}", answers, faults)) for n in range(16)
    ]
    await eventually(lambda: len(answers) > 300, "votes under way")
    ingest.process.terminate()
    await asyncio.wait_for(asyncio.gather(*voters), PATIENCE_S)
    assert await asyncio.to_thread(ingest.process.wait, PATIENCE_S) == 0

    assert faults == []
    assert {answer["status"] for answer in answers} == {202}
    assert len(in_log(poll, answers)) == len(answers) == poll.records()
    [draining], [stopped] = ingest.events("draining"), ingest.events("stopped")
    assert stopped["in_flight"] == 0
    print(f"{len(answers)} votes answered, {draining['in_flight']} of them in flight at SIGTERM")


async def test_sigterm_ends_a_batch_behind_a_line_that_is_answered(poll: Poll, start: Start) -> None:
    ingest = start().wait_ready()
    sent = 0

    async def lines() -> Any:
        nonlocal sent
        while ingest.process.running:
            yield b"".join(b'{"subject": "v%d", "choices": ["ada"]}\n' % n for n in range(sent, sent + 50))
            sent += 50
            await asyncio.sleep(0.001)

    headers = {"Content-Type": "application/x-ndjson", "Authorization": f"Bearer {CREDENTIAL}"}
    answers: list[dict[str, Any]] = []
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{ingest.url}:batch", data=lines(), headers=headers) as answer,
    ):
        async for line in answer.content:
            answers.append(json.loads(line))
            if len(answers) == 1_000:
                ingest.process.terminate()
    assert await asyncio.to_thread(ingest.process.wait, PATIENCE_S) == 0
    assert [answer["line"] for answer in answers] == list(range(1, len(answers) + 1))
    assert {answer["status"] for answer in answers} == {202}
    assert len(in_log(poll, answers)) == len(answers) == poll.records()


async def test_processes_share_a_port_and_a_crashed_one_comes_back(poll: Poll, start: Start) -> None:
    ingest = start(PSEPHOS_INGEST_PROCESSES=2)
    for index in (0, 1):
        await asyncio.to_thread(ingest.wait_ready, index)

    async def accepted() -> list[float]:
        answers = []
        for number in range(40):  # a connection each: the kernel spreads connections, not requests
            async with aiohttp.ClientSession() as http:
                answers.append(await Client(poll, ingest, http).vote(subject=f"voter-{number}"))
        assert {status for status, _, _ in answers} == {202}
        metrics = [await asyncio.to_thread(ingest.metrics, index) for index in (0, 1)]
        return [sample['psephos_ingest_requests_total{outcome="accepted"}'] for sample in metrics]

    first = await accepted()
    assert sum(first) == 40
    assert min(first) > 0
    children = ingest.children()
    assert len(children) == 2
    os.kill(children[1], signal.SIGKILL)
    await eventually(lambda: len(ingest.events("process ended")) == 1, "the crash is seen")
    await eventually(lambda: [ingest.reasons(0), ingest.reasons(1)] == [{}, {}], "both ready again")
    assert sum(await accepted()) >= 40
    assert await asyncio.to_thread(ingest.stop) == 0
    assert [ingest.reasons(index) for index in (0, 1)] == [None, None]


async def test_processes_die_with_their_parent(start: Start) -> None:
    ingest = start(PSEPHOS_INGEST_PROCESSES=2)
    for index in (0, 1):
        await asyncio.to_thread(ingest.wait_ready, index)
    ingest.process.kill()
    await eventually(lambda: [ingest.reasons(index) for index in (0, 1)] == [None, None], "nobody left")


# A log that does not answer: servers of their own, which are paused.


@pytest.fixture(scope="module")
def pausable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    with Backends(tmp_path_factory.mktemp("pausable"), dynamodb_in_memory=True) as running:
        yield running
        running.kafka.resume()


@pytest.fixture
def paused_poll(pausable: Backends, tmp_path: Path) -> Poll:
    return Poll(pausable, tmp_path, {"closeGrace": "2s"})


@pytest.fixture
def paused_start(paused_poll: Poll, pausable: Backends) -> Iterator[Start]:
    started: list[Ingest] = []

    def one(**variables: Any) -> Ingest:
        started.append(Ingest(paused_poll, **variables))
        return started[-1]

    yield one
    pausable.kafka.resume()
    for ingest in started:
        ingest.end()


def slug(answer: tuple[int, dict[str, Any], Any]) -> str:
    return str(answer[1].get("type", "accepted")).removeprefix(TYPE_BASE)


async def accepted_again(client: Client) -> None:
    """Votes until one is accepted."""
    deadline = time.monotonic() + PATIENCE_S
    while (outcome := slug(await client.vote(subject="again"))) != "accepted":
        assert time.monotonic() < deadline, outcome
        await asyncio.sleep(0.05)


async def test_a_log_that_stands_still_confirms_nothing_until_it_goes_on(
    paused_poll: Poll, paused_start: Start, pausable: Backends, http: aiohttp.ClientSession
) -> None:
    client = Client(paused_poll, paused_start().wait_ready(), http)
    assert slug(await client.vote(subject="before")) == "accepted"
    pausable.kafka.pause()
    answers = await asyncio.gather(*(client.vote(subject=f"voter-{n}") for n in range(20)))
    assert Counter(map(slug, answers)) == {"unconfirmed": 20}
    assert {status for status, _, _ in answers} == {503}
    assert all("Retry-After" in headers for _, _, headers in answers)
    await eventually(lambda: "log" in (client.ingest.reasons() or {}), "not ready")
    assert slug(await client.vote(subject="during")) == "overloaded"
    pausable.kafka.resume()
    await eventually(lambda: client.ingest.reasons() == {}, "ready again")
    await accepted_again(client)
    assert client.ingest.process.running
    metrics = client.ingest.metrics()
    accepted, given_up = (
        metrics[f'psephos_ingest_requests_total{{outcome="{outcome}"}}'] for outcome in ("accepted", "unconfirmed")
    )
    assert accepted <= paused_poll.records() <= accepted + given_up  # nothing that was refused stands in the log


async def test_a_full_queue_refuses_what_it_can_not_take(
    paused_poll: Poll, paused_start: Start, pausable: Backends, http: aiohttp.ClientSession
) -> None:
    client = Client(paused_poll, paused_start(PSEPHOS_INGEST_QUEUE=5).wait_ready(), http)
    assert slug(await client.vote(subject="before")) == "accepted"
    pausable.kafka.pause()
    answers = await asyncio.gather(*(client.vote(subject=f"voter-{n}") for n in range(20)))
    assert Counter(map(slug, answers)) == {"unconfirmed": 5, "overloaded": 15}
    pausable.kafka.resume()
    await accepted_again(client)


async def test_an_acknowledgement_behind_half_the_grace_makes_no_202(
    paused_poll: Poll, paused_start: Start, pausable: Backends, http: aiohttp.ClientSession
) -> None:
    """The record is in the log in the end, but whether before the close marker nobody can promise."""
    client = Client(paused_poll, paused_start().wait_ready(), http)
    assert slug(await client.vote(subject="before")) == "accepted"
    closes_at = int(time.time() * 1000) + 6_000
    paused_poll.control(Phase.OPEN, closes_at=closes_at, grace_ms=3_000)
    await eventually(lambda: len(client.ingest.events("session")) == 2, "the end is known")
    before = paused_poll.records()
    await eventually(lambda: time.time() * 1000 > closes_at - 1_000, "soon over")
    pausable.kafka.pause()
    vote = asyncio.create_task(client.vote(subject="late"))
    await eventually(lambda: time.time() * 1000 > closes_at + 1_600, "half the grace has passed")
    pausable.kafka.resume()
    assert slug(await vote) == "unconfirmed"
    await eventually(lambda: paused_poll.records() == before + 1, "the late record")


async def test_a_clock_that_is_wrong_promises_nothing_that_the_broker_appended_behind_the_end(
    poll: Poll, start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """By this process's clock voting goes on for an hour; the marker waits for the broker's alone."""
    shift = tmp_path / "shift"
    shift.write_text("-3600")
    clock = Path(__file__).parents[2] / "faults" / "clock"
    path = os.pathsep.join((str(clock), os.environ.get("PYTHONPATH", "")))
    client = Client(poll, start(PYTHONPATH=path, PSEPHOS_TEST_CLOCK=shift).wait_ready(), http)
    assert slug(await client.vote(subject="before")) == "accepted"
    poll.control(Phase.OPEN, closes_at=int(time.time() * 1000) - 10_000, grace_ms=3_000)
    await eventually(lambda: len(client.ingest.events("session")) == 2, "the end is known")
    assert slug(await client.vote(subject="behind")) == "unconfirmed"


async def test_a_process_that_stood_still_promises_nothing_it_can_not_know(
    paused_poll: Poll, paused_start: Start, http: aiohttp.ClientSession
) -> None:
    """Voting was ended early meanwhile: the resumed process must not accept by its old knowledge."""
    client = Client(paused_poll, paused_start().wait_ready(), http)
    assert slug(await client.vote(subject="before")) == "accepted"
    client.ingest.process.pause()
    votes = [asyncio.create_task(client.vote(subject=f"voter-{n}")) for n in range(10)]
    stopped = time.monotonic()
    paused_poll.control(Phase.CLOSING, closes_at=int(time.time() * 1000), grace_ms=1_000)
    await eventually(lambda: time.monotonic() > stopped + 2.5, "the marker would stand in the log")
    client.ingest.process.resume()
    outcomes = Counter(slug(answer) for answer in await asyncio.gather(*votes))
    assert "accepted" not in outcomes
    assert paused_poll.records() <= 1 + outcomes["unconfirmed"]


async def test_a_sealed_log_confirms_nothing_and_does_no_harm(
    poll: Poll, start: Start, http: aiohttp.ClientSession
) -> None:
    from psephos.adapters.kafka import LogAdmin

    client = Client(poll, start().wait_ready(), http)
    assert slug(await client.vote(subject="before")) == "accepted"
    LogAdmin(poll.settings).seal_votes()
    deadline = time.monotonic() + PATIENCE_S
    while (outcome := slug(await client.vote(subject="late"))) == "accepted":
        assert time.monotonic() < deadline
    assert outcome == "unconfirmed"
    LogAdmin(poll.settings).unseal_votes()
    await accepted_again(client)
