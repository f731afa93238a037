"""Redis and the gateway may go at any time: counting goes on, and what viewers see never goes backwards."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest
from redis import Redis, RedisError
from tests.faults.client import Traffic, ballots
from tests.faults.conftest import Drill, until, wait
from tests.harness import Role, Running
from tests.integration.readside.watching import Events, Socket
from tests.waiting import READY_S

from psephos.adapters.redis import frame_name
from psephos_lab.ports import free_port

OUT_S = 4.0
Break = Callable[[Drill], None]


class Watch:
    """Reads the frame in Redis again and again; it may be away or empty, but never older than before."""

    def __init__(self, running: Running) -> None:
        self._redis = Redis.from_url(running.settings.redis_url, socket_timeout=0.5, socket_connect_timeout=0.5)
        self._name = frame_name(running.settings.session_uid)
        self.versions: list[int] = []
        self.missed = 0

    def look(self) -> int | None:
        """The version that stands there, None if nothing answers or nothing is there."""
        try:
            version = self._redis.hget(self._name, "version")
        except RedisError:
            version = None
        if version is None:
            self.missed += 1
            return None
        self.versions.append(int(version))
        return self.versions[-1]

    def totals(self) -> dict[str, int] | None:
        try:
            body = self._redis.hget(self._name, "body")
        except RedisError:
            return None
        return None if body is None else msgspec.json.decode(body)["totals"]

    def never_backwards(self) -> bool:
        return self.versions == sorted(self.versions)


@contextmanager
def voting(drill: Drill, projectors: int) -> Iterator[tuple[Running, Watch, list[Role]]]:
    """Votes come in and are counted and projected all the time, until the block ends."""
    running = drill.session()
    client = drill.client(running)
    records = ballots(running, 6_000, drill.chance)
    running.start_worker(0)
    roles = [running.start("projector", str(number)) for number in range(projectors)]
    watch = Watch(running)
    client.send(records[:500])
    wait(watch.look, "a first frame")
    with Traffic(client, records[500:], rate=400, to_the_end=False):
        yield running, watch, roles


def _end(drill: Drill, running: Running, watch: Watch) -> None:
    """The last frame says what the ledger says."""
    drill.wait_counted(running)
    ada, bob = running.totals()
    wait(lambda: watch.look() and watch.totals() == {"ada": ada, "bob": bob}, f"a frame with {ada} and {bob}")
    assert watch.never_backwards(), watch.versions


@pytest.mark.long
@pytest.mark.parametrize("how", ["killed", "paused"])
@pytest.mark.fault("redis", "Redis killed and started empty, paused")
def test_redis_that_is_away_costs_no_vote_and_its_frame_is_back_afterwards(drill: Drill, how: str) -> None:
    drill.name = f"Redis {how} for {OUT_S:.0f} s"
    with voting(drill, projectors=1) as (running, watch, projectors):
        redis = drill.cluster.redis
        before = sum(running.head_ends())
        redis.kill() if how == "killed" else redis.pause()
        try:
            until_s = time.monotonic() + OUT_S
            wait(lambda: time.monotonic() > until_s and sum(running.head_ends()) > before, "counting goes on")
            watch.look()
        finally:
            if how == "killed":
                redis.start()
                redis.wait_ready(READY_S)
            else:
                redis.resume()
        drill.healed()
        wait(watch.look, "a frame again")
        errors = wait(
            lambda: projectors[0].metric("psephos_projector_redis_errors_total"), "the projector noticed"
        )
    _end(drill, running, watch)
    drill.conclude(
        running,
        injected=1,
        path=lambda: {"frames missing meanwhile": watch.missed, "projector's errors": errors},
    )


@pytest.mark.fault("redis", "Redis flushed, with two projectors")
def test_two_projectors_fill_a_flushed_redis_again_and_never_go_backwards(drill: Drill) -> None:
    with voting(drill, projectors=2) as (running, watch, projectors):
        redis = Redis.from_url(running.settings.redis_url)
        flushes = 3
        for _ in range(flushes):
            redis.flushall()
            wait(watch.look, "a frame again")
        drill.healed()
        frames = [
            wait(lambda: each.metric("psephos_projector_frames_total"), "both wrote")  # noqa: B023
            for each in projectors
        ]
    _end(drill, running, watch)
    drill.conclude(
        running,
        injected=flushes,
        path=lambda: {"frames written": sum(frames), "projectors that wrote": sum(n > 0 for n in frames)},
    )


@pytest.mark.long
@pytest.mark.fault("redis", "Redis flushed while no broker answers")
def test_a_redis_flushed_while_no_broker_answers_shows_the_newest_figures_again(drill: Drill) -> None:
    """The projector asks for a phase that it may have missed, and in the end makes do with what it knows."""
    running = drill.session()
    client = drill.client(running)
    client.send(ballots(running, 500, drill.chance))
    running.start_worker(0)
    running.start("projector")
    watch = Watch(running)
    drill.wait_counted(running)
    newest = sum(running.head_ends()) + 1
    wait(lambda: watch.look() == newest, "all is shown")
    drill.cluster.kafka.pause()
    try:
        Redis.from_url(running.settings.redis_url).flushall()
        wait(watch.look, "a frame again")
    finally:
        drill.cluster.kafka.resume()
    drill.healed()
    assert set(watch.versions[-2:]) == {newest}
    drill.conclude(running, injected=1, path=lambda: {"frames missing meanwhile": watch.missed})


@pytest.mark.fault("gateway", "gateway killed with viewers on it")
async def test_viewers_of_a_killed_gateway_resume_elsewhere_with_a_newer_version(drill: Drill) -> None:
    viewers = drill.pick(20, 200)
    running = drill.session()
    client = drill.client(running)
    records = ballots(running, 2_000, drill.chance)
    running.start_worker(0)
    running.start("projector")
    ports = [free_port(), free_port()]
    gateways = [running.start("gateway", str(n), PSEPHOS_GATEWAY_PORT=str(port)) for n, port in enumerate(ports)]
    await asyncio.to_thread(client.send, records[:1_000])
    for gateway in gateways:
        await asyncio.to_thread(wait, lambda: not gateway.reasons(), "gateway ready")  # noqa: B023

    def url(kind: str, port: int) -> str:
        scheme = "ws" if kind == "live" else "http"
        return f"{scheme}://127.0.0.1:{port}/v1/sessions/test/{kind}"

    def watchers(port: int) -> list[Socket | Events]:
        return [Socket(url("live", port)) if n % 2 else Events(url("events", port)) for n in range(viewers)]

    first = watchers(ports[0])
    for each in first:
        await each.__aenter__()
    await until(lambda: all(each.frames for each in first), "every viewer has a frame")
    gateways[0].kill()
    await until(lambda: all(each.ended for each in first), "every viewer has noticed")
    drill.healed()
    await asyncio.to_thread(client.send, records[1_000:])
    await asyncio.to_thread(drill.wait_counted, running)
    second = watchers(ports[1])
    for each in second:
        await each.__aenter__()
    ends = sum(running.head_ends())
    await until(lambda: all(each.frames and each.versions[-1] > ends for each in second), "the newest version")
    newer = sum(new.versions[0] >= old.versions[-1] for old, new in zip(first, second, strict=True))
    for each in (*first, *second):
        await each.__aexit__(None, None, None)
    drill.conclude(running, injected=1, path=lambda: {"viewers that resumed": newer})
    assert newer == viewers
