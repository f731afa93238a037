"""A controller dies in the middle of closing a session; another one carries on much later."""

import asyncio
import time

import aiohttp
import pytest
from tests.controllers import close_and_seal
from tests.faults.conftest import Drill, until, wait
from tests.faults.oracle import LATE
from tests.faults.voters import Door
from tests.harness import Running

from psephos.control.closing_steps import fix_closing_time
from psephos.platform.clock import now_ms

CONNECTIONS = 64
# Of a grace period of 4 s: ingest acknowledges votes for 3 s after it was last up to date.
PAUSE_S = 2.0
OPTIONS = ("ada", "bob")


@pytest.mark.fault("controller", "controller dies before it announces the closing time; the next one is late")
async def test_a_closing_time_that_is_announced_late_makes_no_acknowledged_vote_late(drill: Drill) -> None:
    """Ingest acknowledges votes until it learns of the end, here long after the fixed time and its grace period.

    It stands still while the end is announced, so that requests wait for it when it goes on.
    """
    running = drill.session(grace="4s")
    running.start_worker(0)
    door = Door(drill, running)
    await door.wait_ready()
    over = asyncio.Event()

    async def go_on(http: aiohttp.ClientSession, name: int) -> None:
        number = 0
        while not over.is_set():
            await door.vote(http, f"voter-{name}-{number}", OPTIONS[number % 2])
            number += 1

    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as voting:
        for name in range(CONNECTIONS):
            voting.create_task(go_on(http, name))
        try:
            fixed = await asyncio.to_thread(fix_closing_time, running.settings, running.ledger)
            await until(lambda: now_ms() > fixed.closes_at + fixed.grace_ms, "the grace period is over")
            in_time = door.answers[202]
            ends = await _close_while_stopped(running, door)
            drill.healed()
        finally:
            over.set()
    wait(lambda: tuple(running.head_ends()) == ends, "counted to the sealed ends")
    found = drill.conclude(
        running,
        injected=1,
        path=lambda: {
            "acknowledged after the fixed end": door.answers[202] - in_time,
            "refused": door.kinds["session-closed"],
        },
    )
    assert found.acknowledged == door.answers[202]
    assert found.classes[LATE] == 0


async def _close_while_stopped(running: Running, door: Door) -> tuple[int, ...]:
    """Closes and seals; ingest stands still until the markers are written, or for `PAUSE_S`. Returns the ends."""
    door.ingest.pause()
    try:
        log, settles = running.ends(), time.monotonic() + 0.3
        while (now := running.ends()) != log or time.monotonic() < settles:
            log = now
            await asyncio.sleep(0.1)
        closing = asyncio.create_task(asyncio.to_thread(close_and_seal, running.settings))
        resumed = time.monotonic() + PAUSE_S
        await until(
            lambda: running.ends() != log or time.monotonic() > resumed, "markers, or the end of the pause"
        )
    finally:
        door.ingest.resume()
    return await closing
