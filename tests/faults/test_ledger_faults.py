"""DynamoDB behind a proxy: it throttles, fails, is slow, cuts the line after it wrote, or is not there at all."""

import asyncio
import time

import aiohttp
import pytest
from tests.faults.client import Traffic, ballots
from tests.faults.conftest import Drill, until, wait
from tests.faults.dynamodb_proxy import Fault, Kind
from tests.faults.voters import Door

ROW = "ledger"
RETRIES = "psephos_tally_ledger_retries_total"
HELD_BACK = "psephos_tally_held_back_total"
LOST_ANSWERS = "psephos_tally_lost_answers_total"


@pytest.mark.long
@pytest.mark.parametrize("kind", [Kind.THROTTLE, Kind.ERROR])
@pytest.mark.fault(ROW, "DynamoDB throttles, answers 500")
def test_a_ledger_that_refuses_is_asked_again_until_it_takes_the_block(drill: Drill, kind: Kind) -> None:
    drill.name = f"DynamoDB: {kind.value}"
    proxy = drill.proxy()
    running = drill.session(proxy=proxy)
    client = drill.client(running)
    records = ballots(running, 4_000, drill.chance)
    worker = running.start_worker(0)
    client.send(records[:1_000])
    drill.wait_counted(running)
    proxy.first(24, Fault(kind))
    client.send(records[1_000:])
    wait(lambda: proxy.injected[kind] == 24, "24 calls refused")
    drill.healed()
    drill.conclude(
        running, injected=proxy.injected[kind], path=lambda: {"puts tried again": worker.metric(RETRIES)}
    )


@pytest.mark.fault(ROW, "DynamoDB: connection cut after the write")
def test_a_block_whose_answer_got_lost_is_recognised_as_our_own(drill: Drill) -> None:
    proxy = drill.proxy()
    running = drill.session(proxy=proxy)
    client = drill.client(running)
    records = ballots(running, 5_000, drill.chance)
    worker = running.start_worker(0)
    client.send(records[:500])
    drill.wait_counted(running)
    rounds = 3
    for number in range(rounds):
        proxy.first(4, Fault(Kind.CUT_AFTER))
        client.send(records[500 + number * 1_000 : 1_500 + number * 1_000])
        wait(lambda: proxy.injected[Kind.CUT_AFTER] == 4 * (number + 1), "4 answers lost")  # noqa: B023
        drill.wait_counted(running)
    proxy.heal()
    drill.healed()
    client.send(records[500 + rounds * 1_000 :])
    drill.conclude(
        running,
        injected=proxy.injected[Kind.CUT_AFTER],
        path=lambda: {"lost answers recognised": worker.metric(LOST_ANSWERS)},
    )


@pytest.mark.long
@pytest.mark.fault(ROW, "DynamoDB: answers 3 s late")
def test_a_slow_ledger_costs_time_and_nothing_else(drill: Drill) -> None:
    proxy = drill.proxy()
    running = drill.session(proxy=proxy)
    client = drill.client(running)
    records = ballots(running, 3_000, drill.chance)
    worker = running.start_worker(0)
    client.send(records[:500])
    drill.wait_counted(running)
    proxy.first(drill.pick(4, 24), Fault(Kind.DELAY, 3.0))
    client.send(records[500:])
    drill.healed()
    drill.wait_counted(running)
    slow = 'psephos_tally_put_seconds_bucket{le="2.0"}'
    total = "psephos_tally_put_seconds_count"
    drill.conclude(
        running,
        injected=proxy.injected[Kind.DELAY],
        path=lambda: {"rounds that waited": worker.metric(total) - worker.metric(slow)},
    )
    assert len(worker.events("partitions revoked")) == 0


@pytest.mark.fault(ROW, "DynamoDB down")
@pytest.mark.timeout(900)
async def test_an_outage_of_the_ledger_is_waited_for_without_an_eviction(drill: Drill) -> None:
    """Two workers keep their partitions, stay alive and stop taking in; the door stays open, as the log has room;
    then everything is counted."""
    seconds = drill.pick(12, 60)
    drill.name = f"DynamoDB down for {seconds} s"
    proxy = drill.proxy()
    running = drill.session(proxy=proxy)
    client = drill.client(running)
    records = ballots(running, drill.pick(6_000, 30_000), drill.chance)
    workers = [running.start_worker(0), running.start_worker(1)]
    door = Door(drill, running)
    await door.wait_ready()
    await asyncio.to_thread(client.send, records[:500])
    await asyncio.to_thread(drill.wait_counted, running)
    await until(lambda: all(worker.events("partition recovered") for worker in workers), "both own partitions")
    revoked = [len(worker.events("partitions revoked")) for worker in workers]
    dead: list[str] = []
    with Traffic(client, records[500:], rate=len(records) / seconds):
        async with aiohttp.ClientSession() as http:
            with proxy.outage():
                over = time.monotonic() + seconds
                while time.monotonic() < over:
                    dead += [
                        worker.process.name for worker in workers if not await asyncio.to_thread(worker.alive)
                    ]
                    await door.insist(http, f"at the door {door.answers[202]}", "ada")
                    await asyncio.sleep(0.2)
                lag = await asyncio.to_thread(running.lag)
        drill.healed()
    await asyncio.to_thread(drill.wait_counted, running, 180)
    drill.conclude(
        running,
        injected=sum(proxy.injected.values()),
        path=lambda: {
            "lag at the end of the outage": lag,
            "polls with fetching held back": sum(worker.metric(HELD_BACK) for worker in workers),
            "puts tried again": sum(worker.metric(RETRIES) for worker in workers),
            "202 meanwhile": door.answers[202],
        },
    )
    assert dead == []
    assert [len(worker.events("partitions revoked")) for worker in workers] == revoked


@pytest.mark.long
@pytest.mark.fault(ROW, "DynamoDB does not answer while a worker recovers")
@pytest.mark.timeout(900)
def test_a_worker_that_can_not_read_the_ledger_keeps_its_place_in_the_group(drill: Drill) -> None:
    """Each read takes many seconds to fail: neither liveness nor the group may mistake that for a dead worker."""
    proxy = drill.proxy()
    running = drill.session(proxy=proxy)
    client = drill.client(running)
    records = ballots(running, 2_000, drill.chance)
    client.send(records[:1_000])
    running.start_worker(0)
    drill.wait_counted(running)
    running.stop_workers()
    proxy.plan(lambda call: Fault(Kind.HANG, 120) if call.operation == "Query" else None)
    worker = running.start_worker(0)
    client.send(records[1_000:])
    waits = "recovery waits"
    dead = 0
    until = time.monotonic() + drill.pick(45, 180)
    while len(worker.events(waits)) < drill.pick(2, 8) and time.monotonic() < until:
        dead += worker.process.running and bool(worker.events("partitions assigned")) and not worker.alive()
        time.sleep(0.5)
    proxy.heal()
    drill.healed()
    drill.conclude(
        running,
        injected=proxy.injected[Kind.HANG],
        path=lambda: {"recoveries that waited": len(worker.events(waits))},
    )
    assert dead == 0
    assert len(worker.events("partitions revoked")) == 0
