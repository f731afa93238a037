"""Ingest is killed, stopped and overrun: what it acknowledged is counted, once."""

import asyncio
import os
from pathlib import Path

import aiohttp
import pytest
from tests.controllers import close_and_seal, close_up_to_markers
from tests.faults.conftest import Drill, until, wait
from tests.faults.oracle import ACCEPTED, DUPLICATE, LATE
from tests.faults.voters import Door

from psephos.adapters.kafka import mark_closed
from psephos.platform.clock import now_ms

CONNECTIONS = 16
OPTIONS = ("ada", "bob")


@pytest.mark.fault("ingest killed", "ingest killed between acknowledgement and answer; clients retry everything")
async def test_votes_whose_answer_was_lost_are_sent_again_and_counted_once(drill: Drill) -> None:
    """Every voter insists on two answers: each vote is in the log twice at least."""
    running = drill.session()
    running.start_worker(0)
    door = Door(drill, running)
    await door.wait_ready()
    voters, kills = drill.pick(300, 4_000), drill.pick(2, 10)
    queue = list(range(voters))
    unanswered = 0

    async def insist(http: aiohttp.ClientSession) -> None:
        while queue:
            number = queue.pop()
            await door.insist(http, f"voter-{number}", OPTIONS[number % 2], times=2)

    async with aiohttp.ClientSession() as http:
        insisting = [asyncio.create_task(insist(http)) for _ in range(CONNECTIONS)]
        for kill in range(kills):
            await until(lambda: len(queue) <= voters * (kills - kill) // (kills + 1), "votes under way")  # noqa: B023
            door.ingest.process.kill()
            log = await asyncio.to_thread(running.ends)
            unanswered = max(unanswered, sum(log) - door.answers[202])
            await door.again()
        drill.healed()
        await asyncio.gather(*insisting)
    await asyncio.to_thread(drill.wait_counted, running)
    found = drill.conclude(
        running,
        injected=kills,
        path=lambda: {
            "in the log, never answered": unanswered,
            "connections lost": door.broken,
            "duplicates dropped": running.classes()[DUPLICATE],
        },
    )
    assert found.classes[ACCEPTED] == voters


@pytest.mark.fault("ingest killed", "500 simultaneous requests of one voter")
async def test_one_voter_with_500_requests_at_once_is_counted_once(drill: Drill) -> None:
    running = drill.session()
    running.start_worker(0)
    door = Door(drill, running)
    await door.wait_ready()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await asyncio.gather(*(door.vote(http, "ann", OPTIONS[n % 2]) for n in range(500)))
    drill.healed()
    found = drill.conclude(
        running,
        injected=500,
        path=lambda: {
            "202": door.answers[202],
            "429": door.answers[429],
            "duplicates": running.classes()[DUPLICATE],
        },
    )
    assert found.classes[ACCEPTED] == 1


@pytest.mark.fault("ingest stopped", "ingest stopped before closesAt, resumed behind the marker")
async def test_ingest_that_wakes_up_behind_the_close_marker_answers_no_202(drill: Drill) -> None:
    running = drill.session(grace="2s")
    running.start_worker(0)
    door = Door(drill, running)
    await door.wait_ready()
    closes_at = now_ms() + 6_000  # ingest hears of it within 2 s
    running.open(closes_at, number=2)
    asleep = asyncio.Event()
    over = False
    accepted_behind = refused_behind = 0

    async def go_on(http: aiohttp.ClientSession, name: int) -> None:
        nonlocal accepted_behind, refused_behind
        number = 0
        while not over:
            status = await door.vote(http, f"voter-{name}-{number}", OPTIONS[number % 2])
            accepted_behind += asleep.is_set() and status == 202
            refused_behind += asleep.is_set() and status != 202
            number += 1
            await asyncio.sleep(0.01)

    async with aiohttp.ClientSession() as http:
        voting = [asyncio.create_task(go_on(http, name)) for name in range(CONNECTIONS)]
        await until(lambda: now_ms() >= closes_at - 300, "almost over")
        door.ingest.pause()
        closing = await asyncio.to_thread(close_up_to_markers, running.settings)
        mark_closed(running.settings, 4, closing.closes_at)
        running.produce([running.vote(f"held-up-{number}", 0) for number in range(20)])  # nobody's 202
        asleep.set()
        door.ingest.resume()
        drill.healed()
        await until(lambda: refused_behind >= CONNECTIONS, "answers")
        over = True
        await asyncio.gather(*voting)
    ends = await asyncio.to_thread(close_and_seal, running.settings)
    wait(lambda: tuple(running.head_ends()) == ends, "counted to the sealed ends")
    found = drill.conclude(
        running,
        injected=1,
        path=lambda: {
            "202 before": door.answers[202],
            "refused after it woke up": refused_behind,
            "late records": running.classes()[LATE],
        },
    )
    assert accepted_behind <= CONNECTIONS, "only what had been decided before it stopped, and was not sent yet"
    assert found.classes[ACCEPTED] >= door.answers[202]


@pytest.mark.long
@pytest.mark.fault("broker", "all brokers paused: back-pressure at ingest's door")
async def test_ingest_pushes_back_while_the_log_takes_nothing(drill: Drill) -> None:
    running = drill.session()
    running.start_worker(0)
    door = Door(drill, running, PSEPHOS_INGEST_QUEUE="50")
    await door.wait_ready()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await door.insist(http, "first", "ada")
        drill.cluster.kafka.pause()
        try:
            await asyncio.gather(*(door.vote(http, f"voter-{number}", "ada") for number in range(120)))
        finally:
            drill.cluster.kafka.resume()
        drill.healed()
        pushed_back, unconfirmed = door.kinds["overloaded"], door.kinds["unconfirmed"]
        await asyncio.gather(*(door.insist(http, f"voter-{number}", "ada") for number in range(120)))
    found = drill.conclude(
        running, injected=1, path=lambda: {"overloaded": pushed_back, "unconfirmed": unconfirmed}
    )
    assert found.classes[ACCEPTED] == 121


@pytest.mark.long
@pytest.mark.parametrize("step_s", [-3_600, 3_600])
@pytest.mark.fault("poison", "clock steps")
async def test_a_clock_that_steps_makes_ingest_not_ready_and_changes_no_count(drill: Drill, step_s: int) -> None:
    """Both processes ask a clock that a file shifts; `closesAt` is a minute away."""
    drill.name = f"clock of ingest and tally steps by {step_s / 3600:+.0f} h"
    running = drill.session()
    running.open(now_ms() + 3 * 3_600_000, number=2)
    shift = running.folder / "shift"
    shift.write_text("0")
    clock = {"PYTHONPATH": f"{Path(__file__).parent / 'clock'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
             "PSEPHOS_TEST_CLOCK": str(shift)}  # fmt: skip
    running.start_worker(0, **clock)
    door = Door(drill, running, **clock)
    await door.wait_ready()
    async with aiohttp.ClientSession() as http:
        for number in range(100):
            await door.insist(http, f"voter-{number}", OPTIONS[number % 2])
        shift.write_text(str(step_s))
        answers = [await door.vote(http, f"after-{number}", "ada") for number in range(20)]
        reasons = await asyncio.to_thread(wait, door.ingest.reasons, "ingest notices")
    drill.healed()
    found = drill.conclude(
        running, injected=1, path=lambda: {"not ready: clock": "clock" in reasons, "202 before": door.answers[202]}
    )
    assert found.classes[ACCEPTED] == 100 + answers.count(202)
