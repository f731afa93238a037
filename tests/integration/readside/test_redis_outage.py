"""Redis killed and started empty: results are served and marked, and are right again by themselves."""

import asyncio
from itertools import pairwise

import pytest
import uvloop
from redis import Redis as RedisClient
from redis.asyncio import Connection, Redis
from tests.integration.readside.conftest import ReadSide, fetch
from tests.integration.readside.watching import Events, Socket
from tests.waiting import wait_until

from psephos.adapters.redis import AWAY, Projection, Vacant, frame_name, redis_client


async def test_redis_killed_and_started_empty(readside: ReadSide) -> None:
    readside.append(0, [0, 0, 1])
    projector = readside.start("projector").wait_ready()
    gateway = readside.start("gateway").wait_ready()
    ws, sse = Socket(gateway.v1("/live").replace("http", "ws")), Events(gateway.v1("/events"))
    async with ws, sse:
        for watcher in (ws, sse):
            await watcher.until(lambda frame: not frame["stale"], "fresh results")
        readside.redis.kill()
        for watcher in (ws, sse):
            frame = await watcher.until(lambda frame: frame["stale"], "the mark is pushed")
            assert frame["totals"] == {"ada": 2, "bob": 1}, "the last results are still served"
        served = fetch(gateway.v1("/results"))
        assert (served.status, served.json["stale"], served.json["totals"]["ada"]) == (200, True, 2)
        wait_until(lambda: not projector.ready(), "the projector says that Redis is away")
        assert gateway.ready(), "the gateway goes on serving"
        readside.append(1, [0])
        readside.redis.start()
        readside.redis.wait_ready()
        for watcher in (ws, sse):
            frame = await watcher.until(
                lambda frame: not frame["stale"] and frame["totals"]["ada"] == 3, "right again"
            )
            assert all(before <= after for before, after in pairwise(watcher.versions))
        wait_until(lambda: fetch(gateway.v1("/results")).json["stale"] is False, "GET says so as well")
        wait_until(projector.ready, "ready again")


async def test_a_flushed_frame_is_back_within_seconds(readside: ReadSide) -> None:
    readside.append(0, [0])
    readside.start("projector").wait_ready()
    client = RedisClient.from_url(readside.redis.url)
    name = frame_name(readside.settings.session_uid)
    before = client.hget(name, "version")
    client.flushall()
    wait_until(lambda: client.hget(name, "version") == before, "said again")


async def test_a_projector_that_lags_fills_a_flushed_redis_with_nothing_older(readside: ReadSide) -> None:
    """The newest stands in the ledger alone, so that the one that lags can't hear of it in time by chance."""
    client = RedisClient.from_url(readside.redis.url)
    name = frame_name(readside.settings.session_uid)
    readside.append(0, [0])
    lagging = readside.start("projector").wait_ready()
    older = int(client.hget(name, "version") or 0)
    readside.append(0, [0, 1, 1], tell=False)
    ahead = readside.start("projector")
    newest = wait_until(lambda: _newer(client, name, than=older), "the newest is shown")
    ahead.kill()
    assert lagging.metric("psephos_projector_version") == older, "it lags"
    client.flushall()
    assert wait_until(lambda: int(client.hget(name, "version") or 0), "shown again") == newest


async def test_a_vacancy_may_be_filled_by_who_has_read_since_and_is_another_after_each_flush(
    readside: ReadSide,
) -> None:
    client = redis_client(readside.settings)
    first, second = Projection(client, "vacant"), Projection(client, "vacant")

    async def seen(by: Projection, vacancy: str = "") -> str:
        with pytest.raises(Vacant) as raised:
            await by.write_live("epoch", 1, b"one", vacancy)
        return raised.value.vacancy

    vacancy = await seen(first)
    assert await seen(second) == vacancy, "the same for all"
    assert await first.read() is None
    assert await second.write_live("epoch", 2, b"two", vacancy)
    assert not await first.write_live("epoch", 1, b"one", vacancy), "never backwards"
    await client.flushall()
    again = await seen(first, vacancy)
    assert again != vacancy, "who read before the flush has to read again"
    assert await second.write("epoch", 9, b"final"), "nothing is newer than the final frame"
    assert not await first.write_live("epoch", 3, b"three", again)
    assert await first.write_live("epoch", 10, b"ten", ""), "where a frame is, no vacancy matters"
    await client.aclose()


def _newer(client: RedisClient, name: str, than: int) -> int | None:
    version = int(client.hget(name, "version") or 0)
    return version if version > than else None


async def test_a_redis_that_hangs_is_away(readside: ReadSide) -> None:
    readside.append(0, [0])
    gateway = readside.serve()
    wait_until(lambda: fetch(gateway.v1("/results")).json.get("stale") is False, "fresh results")
    readside.redis.pause()
    try:
        wait_until(lambda: fetch(gateway.v1("/results")).json["stale"], "marked")
    finally:
        readside.redis.resume()
    wait_until(lambda: not fetch(gateway.v1("/results")).json["stale"], "right again")


async def test_results_are_stale_without_a_projector_until_it_is_back(readside: ReadSide) -> None:
    readside.append(0, [0])
    projector = readside.start("projector").wait_ready()
    gateway = readside.start("gateway").wait_ready()
    wait_until(lambda: fetch(gateway.v1("/results")).json.get("stale") is False, "fresh results")
    projector.kill()
    wait_until(lambda: fetch(gateway.v1("/results")).json["stale"], "marked")
    readside.start("projector")
    wait_until(lambda: not fetch(gateway.v1("/results")).json["stale"], "right again")


async def test_the_final_result_is_never_stale(readside: ReadSide) -> None:
    readside.append(0, [0])
    projector = readside.start("projector").wait_ready()
    gateway = readside.start("gateway").wait_ready()
    readside.finish()
    wait_until(lambda: fetch(gateway.v1("/results")).json["final"], "final")
    etag = fetch(gateway.v1("/results")).headers["etag"]
    projector.kill()
    readside.redis.kill()
    wait_until(lambda: gateway.metric("psephos_gateway_redis_errors_total") > 2, "the gateway has noticed")
    answer = fetch(gateway.v1("/results"))
    assert (answer.json["stale"], answer.headers["etag"]) == (False, etag)


async def test_without_any_frame_there_is_a_problem_and_a_hint(readside: ReadSide) -> None:
    readside.redis.kill()
    gateway = readside.start("gateway")
    wait_until(lambda: b"gateway listens" in gateway.log.read_bytes(), "listening")
    answer = fetch(gateway.v1("/results"))
    assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.json["type"].endswith("/results-unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert fetch(gateway.url + "/").status == 200, "the page is there and waits"
    gateway.wait_ready()


def test_a_connection_that_is_closed_before_it_is_written_to_is_redis_being_away(readside: ReadSide) -> None:
    async def cut(connection: Connection) -> None:
        assert connection._writer is not None
        connection._writer.transport.abort()
        await connection.send_command("PING")

    async def read() -> None:
        client = redis_client(readside.settings)
        assert isinstance(client, Redis)
        client.connection_pool.connection_kwargs["redis_connect_func"] = cut
        try:
            await Projection(client, readside.settings.session_uid).read()
        finally:
            await client.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(AWAY, match="closed"):
        runner.run(read())
