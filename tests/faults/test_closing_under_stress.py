"""Voting ends while one ingest process stands still and another is five seconds away from its broker."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import aiohttp
import pytest
from tests.controllers import close_and_seal, close_to_recounting, close_up_to_markers
from tests.faults.conftest import Drill, journal_of, until, wait, watched
from tests.faults.oracle import LATE, Audit, audit
from tests.faults.slow_link import SlowLink
from tests.faults.voters import Door
from tests.harness import PARTITIONS, Running

from psephos.adapters.kafka import mark_closed
from psephos.platform.clock import now_ms
from psephos.roles.recount.job import audit as recount
from psephos_lab.java import Jars
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

CONNECTIONS = 8  # of voters at each process
SLOW_S = 5.0
NOTICE_MS = 4_000  # ingest obeys within 2 s
SLOW_BEFORE_MS, STOPPED_BEFORE_MS = 1_500, 300
OPTIONS = ("ada", "bob")


class Linked(Backends):
    """One broker with a second listener, which clients find behind a slow link."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.behind = free_port()
        self.link = SlowLink(free_port(), self.behind)

    def _build(self, jars: Jars) -> None:
        super()._build(jars)
        (broker,) = self.kafka.brokers
        here = "127.0.0.1"
        broker.config |= {
            "listeners": f"PLAINTEXT://{here}:{broker.node.port},SLOW://{here}:{self.behind},"
            f"CONTROLLER://{here}:{broker.node.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{here}:{broker.node.port},SLOW://{here}:{self.link.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SLOW:PLAINTEXT,CONTROLLER:PLAINTEXT",
        }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Linked]:
    """In place of the suite's three brokers."""
    with Linked(tmp_path_factory.mktemp("linked"), dynamodb_in_memory=True) as running, running.link:
        yield running


class Round(NamedTuple):
    """What one closing came to. kinds: refusals by problem; behind: answers of the stopped process afterwards."""

    acknowledged: int
    of_the_slow: int
    of_the_stopped: int
    kinds: Counter[str]
    behind: Counter[int]
    found: Audit

    def line(self) -> str:
        return (
            f"{self.acknowledged} acknowledged ({self.of_the_stopped} by the stopped, {self.of_the_slow} by the"
            f" slow one; {self.behind[202]} decided before the stop and sent behind it),"
            f" {self.kinds['unconfirmed']} unconfirmed, {self.found.classes[LATE]} late,"
            f" {self.kinds['overloaded']} overloaded, {self.kinds['session-closed']} told that voting is over;"
            f" lost {len(self.found.lost)}"
        )


@pytest.mark.timeout(1_800)
@pytest.mark.fault("ingest stopped", "closing: one ingest stopped and resumed behind the marker, one 5 s slow")
async def test_no_202_is_lost_when_voting_ends_under_stress(drill: Drill, cluster: Linked) -> None:
    """One round inside `make test`, twenty in a row by `make faults`."""
    rounds = [await _round(drill, cluster, number) for number in range(drill.pick(1, 20))]
    drill.healed()
    drill.record(
        injected=2 * len(rounds),
        path=lambda: {
            "acknowledged": sum(each.acknowledged for each in rounds),
            "by the stopped one": sum(each.of_the_stopped for each in rounds),
            "by the slow one": sum(each.of_the_slow for each in rounds),
            "unconfirmed": sum(each.kinds["unconfirmed"] for each in rounds),
            "refused behind the marker": sum(
                (each.behind - Counter({202: each.behind[202]})).total() for each in rounds
            ),
        },
        votes=sum(each.found.records for each in rounds),
        lost=sum(len(each.found.lost) for each in rounds),
        double=sum(len(each.found.double) for each in rounds),
        recovered_s=0.0,
    )
    print(f"\n{len(rounds)} closings, {sum(each.found.classes[LATE] for each in rounds)} late records in all")


async def _round(drill: Drill, cluster: Linked, number: int) -> Round:
    cluster.link.delay_s = 0.0
    running = drill.session(replication=1, grace="2s")
    running.start_worker(0)
    steady, stopped = Door(drill, running), Door(drill, running)
    slow = Door(drill, running, PSEPHOS_KAFKA_BOOTSTRAP=f"127.0.0.1:{cluster.link.port}")
    doors, over = (steady, stopped, slow), asyncio.Event()
    for door in doors:
        await door.wait_ready()
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        asyncio.TaskGroup() as tasks,
    ):
        for place, door in enumerate(doors):
            for name in range(CONNECTIONS):
                tasks.create_task(_vote(http, door, f"voter-{place}-{name}", over))
        try:
            await until(lambda: all(door.answers[202] >= CONNECTIONS for door in doors), "votes at every door")
            asleep = await _close(running, cluster.link, stopped, sealed_before=number % 2 == 1)
            await until(lambda: _since(stopped, asleep).total() >= CONNECTIONS, "it answers again")
        finally:
            over.set()
    return await asyncio.to_thread(_judged, running, doors, _since(stopped, asleep))


async def _vote(http: aiohttp.ClientSession, door: Door, name: str, over: asyncio.Event) -> None:
    """One after the other; refusals are not tried again, so what was refused is voters who have no vote."""
    number = 0
    while not over.is_set():
        await door.vote(http, f"{name}-{number}", OPTIONS[number % 2])
        number += 1
        await asyncio.sleep(0.01)


async def _close(running: Running, link: SlowLink, stopped: Door, *, sealed_before: bool) -> Counter[int]:
    """From the announced end to the sealed log; the answers of the stopped process from before it was resumed."""
    closes_at = now_ms() + NOTICE_MS
    await asyncio.to_thread(running.open, closes_at, 2)
    await until(lambda: now_ms() >= closes_at - SLOW_BEFORE_MS, "soon over")
    link.delay_s = SLOW_S
    await until(lambda: now_ms() >= closes_at - STOPPED_BEFORE_MS, "almost over")
    stopped.ingest.pause()
    try:
        await asyncio.to_thread(_mark, running, sealed=sealed_before)
    finally:
        before = Counter(stopped.answers)  # with those that were on their way when it stopped
        stopped.ingest.resume()
    if not sealed_before:
        await asyncio.to_thread(_let_late_ones_in, running)
    await asyncio.to_thread(close_to_recounting, running.settings)  # goes on from there
    return before


def _let_late_ones_in(running: Running) -> None:
    """Until a record that was under way for long has come in behind the markers, or none does."""
    marked, deadline = running.ends(), time.monotonic() + SLOW_S
    while running.ends() == marked and time.monotonic() < deadline:
        time.sleep(0.1)


def _mark(running: Running, *, sealed: bool) -> None:
    """Closing up to the markers in every partition, or up to the seal behind them."""
    settings = running.settings
    if sealed:
        close_and_seal(settings)
    else:
        mark_closed(settings, PARTITIONS, close_up_to_markers(settings).closes_at)


def _since(door: Door, before: Counter[int]) -> Counter[int]:
    return door.answers - before


def _judged(running: Running, doors: tuple[Door, Door, Door], behind: Counter[int]) -> Round:
    ends = running.ends()
    wait(lambda: running.head_ends() == ends, f"the ledger's heads at {ends}")
    found = audit(watched(running), journal_of(running))
    assert not found.faults, found.faults[:5]
    assert recount(running.settings, parallelism=1).match
    running.stop_workers()
    _steady, stopped, slow = doors
    kinds = sum((door.kinds for door in doors), Counter[str]())
    acknowledged = sum(door.answers[202] for door in doors)
    one = Round(acknowledged, slow.answers[202], stopped.answers[202], kinds, behind, found)
    print(one.line())
    assert found.acknowledged == acknowledged
    assert not found.lost, found.lost[:5]
    assert not found.double, found.double[:5]
    assert behind[202] <= CONNECTIONS, "only what had been decided before it stopped, and was not sent yet"
    return one
