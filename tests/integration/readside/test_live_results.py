"""From blocks and tallies to what viewers see, through a real projector, Redis and gateways."""

import re
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest
from redis import Redis as RedisClient
from tests.integration.readside.conftest import ReadSide, Role, fetch, running
from tests.integration.readside.watching import Events, Socket, eventually
from tests.waiting import PATIENCE_S, wait_until

from psephos.adapters.redis import channel_name, frame_name
from psephos.formats.blocks import RecordClass
from psephos_lab.servers import Backends


@pytest.fixture(scope="module")
def readside(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadSide]:
    """One session for all tests here, with a few votes and a projector."""
    with running(backends, tmp_path_factory.mktemp("live"), {}) as session:
        session.append(0, [0, 0, 1], [RecordClass.DUPLICATE, RecordClass.MALFORMED])
        session.start("projector").wait_ready()
        yield session


@pytest.fixture
def gateway(readside: ReadSide) -> Iterator[Role]:
    """A gateway of the test's own."""
    started = readside.start("gateway").wait_ready()
    wait_until(lambda: fetch(started.v1("/results")).json.get("stale") is False, "fresh results")
    yield started
    started.end()


async def test_frames_reach_websocket_sse_and_get(readside: ReadSide, gateway: Role) -> None:
    ws, sse = Socket(gateway.v1("/live").replace("http", "ws")), Events(gateway.v1("/events"))
    async with ws, sse:
        for watcher in (ws, sse):
            frame = await watcher.until(lambda frame: not frame["stale"], "the ledger's head is shown")
            assert frame["totals"] == readside.totals()
        readside.append(1, [1, 1, 1])
        accepted = sum(readside.totals().values())
        for watcher in (ws, sse):
            frame = await watcher.until(lambda frame: frame["totals"] == readside.totals(), "the new tallies")
            assert frame["turnout"] == {
                "received": accepted + 2,
                "accepted": accepted,
                "duplicate": 1,
                "superseded": 0,
                "rejected": {"malformed": 1, "invalid-ballot": 0, "quota": 0, "late": 0},
                "voters": accepted,
            }
            assert (frame["phase"], frame["final"], frame["session"]) == ("Open", False, "test")
            assert all(before <= after for before, after in pairwise(watcher.versions))
        assert sse.ids[-1] == f"{frame['epoch']}:{frame['version']}"
        answer = fetch(gateway.v1("/results"))
        assert answer.json == frame
    assert frame["version"] == readside.records() + 1, "end offsets and the number of the phase"


async def test_results_have_an_etag_over_the_whole_body(readside: ReadSide, gateway: Role) -> None:
    answer = fetch(gateway.v1("/results"))
    assert answer.headers["cache-control"] == "public, max-age=1, stale-while-revalidate=5"
    etag = answer.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag), "strong"
    again = fetch(gateway.v1("/results"), If_None_Match=etag)
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
    assert gateway.metric("psephos_gateway_not_modified_total") == 1
    readside.append(0, [1])
    wait_until(lambda: fetch(gateway.v1("/results"), If_None_Match=etag).status == 200, "another ETag")


async def test_tallies_that_are_hidden_are_read_from_the_ledger(readside: ReadSide, gateway: Role) -> None:
    readside.produce(0, 3)
    readside.append(0, [0, 0, 1], tell=False)
    wait_until(lambda: fetch(gateway.v1("/results")).json["totals"] == readside.totals(), "the head")


async def test_results_are_stale_while_votes_wait_to_be_counted(readside: ReadSide, gateway: Role) -> None:
    readside.produce(1, 2)
    wait_until(lambda: fetch(gateway.v1("/results")).json["stale"], "marked: nobody counts")
    assert readside.roles[0].metric("psephos_projector_lag_seconds") > 9
    readside.append(1, [0, 1])
    wait_until(lambda: not fetch(gateway.v1("/results")).json["stale"], "counted")


async def test_a_gateway_that_is_killed_loses_no_viewer_and_no_version(readside: ReadSide, gateway: Role) -> None:
    readside.append(0, [0, 1])
    first, second = readside.start("gateway").wait_ready(), gateway
    ws, sse = Socket(first.v1("/live").replace("http", "ws")), Events(first.v1("/events"))
    async with ws, sse:
        for watcher in (ws, sse):
            await watcher.until(lambda frame: frame["totals"] == readside.totals(), "the newest frame")
        await eventually(lambda: first.metric('psephos_gateway_viewers{kind="websocket"}') == 1, "seen in metrics")
        first.kill()
        await ws.until_ended()
        await sse.until_ended()
    readside.append(1, [0])
    since = f"?since={ws.frames[-1]['epoch']}:{ws.versions[-1]}"
    ws_again = Socket(second.v1(f"/live{since}").replace("http", "ws"))
    sse_again = Events(second.v1("/events"), last_event_id=sse.ids[-1])
    async with ws_again, sse_again:
        for before, after in ((ws, ws_again), (sse, sse_again)):
            await after.until(lambda frame: frame["totals"] == readside.totals(), "what came after the kill")
            assert min(after.versions) >= before.versions[-1]


async def test_a_gateway_that_stops_sends_its_viewers_away_with_a_hint_when_to_come_back(
    gateway: Role,
) -> None:
    ws, sse = Socket(gateway.v1("/live").replace("http", "ws")), Events(gateway.v1("/events"))
    async with ws, sse:
        await ws.until(lambda _: True, "a frame")
        await sse.until(lambda _: True, "a frame")
        gateway.terminate()
        await ws.until_ended()
        await sse.until_ended()
    assert ws.code == 1012
    hint = re.fullmatch(r"retry=(\d+)", ws.reason)
    assert hint is not None
    assert 100 <= int(hint[1]) <= 30_000
    assert len(sse.retries) == 2
    assert gateway.process.wait(PATIENCE_S) == 0


async def test_a_full_gateway_refuses_viewers_but_not_requests(readside: ReadSide) -> None:
    gateway = readside.start("gateway", gateway_viewers=2).wait_ready()
    live = gateway.v1("/live").replace("http", "ws")
    async with Socket(live) as one, Events(gateway.v1("/events")) as two:
        await one.until(lambda _: True, "a frame")
        await two.until(lambda _: True, "a frame")
        refused = fetch(gateway.v1("/events"))
        assert (refused.status, refused.json["type"].rpartition("/")[2]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        async with Socket(live) as third:
            await third.until_ended()
            assert third.status == 503
        assert fetch(gateway.v1("/results")).status == 200
    await eventually(lambda: gateway.metric('psephos_gateway_viewers{kind="sse"}') == 0, "gone")
    async with Socket(live) as again:
        await again.until(lambda _: True, "there is room again")


async def test_a_viewer_that_does_not_read_keeps_nobody_waiting(readside: ReadSide, gateway: Role) -> None:
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    stuck.connect(("127.0.0.1", gateway.port))
    stuck.sendall(
        b"GET /v1/sessions/test/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    client = RedisClient.from_url(readside.redis.url)
    body = wait_until(lambda: client.hget(frame_name(readside.settings.session_uid), "body"), "a frame")
    assert isinstance(body, bytes)
    filler = b',"filler":"' + b"x" * 60_000 + b'"}'
    async with Socket(gateway.v1("/live").replace("http", "ws")) as reading:
        await reading.until(lambda _: True, "a frame")
        version = 1_000

        def closed() -> bool:
            nonlocal version
            version += 1
            newer = re.sub(rb'"version":\d+', b'"version":%d' % version, body)[:-1] + filler
            client.publish(channel_name(readside.settings.session_uid), newer)
            return gateway.metric("psephos_gateway_slow_viewers_closed_total") == 1

        await eventually(closed, "the stuck viewer is closed")
        await reading.until(lambda frame: frame["version"] == version, "the other one has the newest")
        assert not reading.ended
    stuck.close()
    await eventually(lambda: gateway.metric('psephos_gateway_viewers{kind="websocket"}') == 0, "both gone")
