"""Whole sessions: to the final frame, with two projectors, under embargo."""

import json
import re
from functools import partial

import pytest
from redis import Redis as RedisClient
from tests.integration.readside.conftest import ReadSide, fetch
from tests.integration.readside.watching import Events, Frame, Socket, eventually
from tests.waiting import wait_until

from psephos.adapters.redis import channel_name, frame_name
from psephos.control import set_phase
from psephos.formats.control import Phase
from psephos.formats.frames import decode_frame


async def test_sse_resumes_where_the_viewer_stands_and_ends_with_204_after_the_final_frame(
    readside: ReadSide,
) -> None:
    readside.append(0, [0, 0, 1])
    gateway = readside.serve()
    async with Events(gateway.v1("/events")) as first:
        seen = await first.until(lambda frame: not frame["stale"], "a frame")
        assert first.retries
        assert 1_000 <= first.retries[0] <= 40_000
    position = first.ids[-1]
    ahead = f"{seen['epoch']}:{seen['version'] + 3}"
    async with Events(gateway.v1("/events"), last_event_id=ahead) as later:
        await eventually(lambda: later.status == 200, "connected")
        readside.append(0, [1])
        readside.append(0, [1, 1, 1, 1])
        await later.until(lambda _: True, "a frame")
        assert later.versions[0] >= seen["version"] + 3, "nothing older than what the viewer has seen"
    async with Events(gateway.v1(f"/events?since={position}")) as other:
        frame = await other.until(lambda frame: frame["totals"]["bob"] == 6, "what was missed")
    document = readside.finish()
    async with Events(gateway.v1("/events"), last_event_id=other.ids[-1]) as last:
        final = await last.until(lambda frame: frame["final"], "the final frame")
    assert (final["version"], final["phase"]) == (document["version"], "Final")
    assert final["version"] > frame["version"]
    assert final["outcome"]["winners"] == ["bob"]
    done = fetch(gateway.v1("/events"), Last_Event_ID=last.ids[-1])
    assert (done.status, done.body) == (204, b"")
    assert fetch(gateway.v1("/publication")).json == json.loads(json.dumps(document))


async def test_two_projectors_do_no_harm(readside: ReadSide) -> None:
    client = RedisClient.from_url(readside.redis.url)
    listening = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    listening.subscribe(channel_name(readside.settings.session_uid))
    first, second = readside.start("projector"), readside.start("projector")
    first.wait_ready()
    second.wait_ready()
    for _ in range(20):
        readside.append(0, [0])
        readside.append(1, [1, 1])
    expected = sum((20, 40, 1))

    def stored() -> int:
        return int(client.hget(frame_name(readside.settings.session_uid), "version") or 0)

    wait_until(lambda: stored() == expected, "all is shown")
    first.kill()
    readside.append(0, [0])
    wait_until(lambda: stored() == expected + 1, "the other one goes on")
    published = []
    while (message := listening.get_message(timeout=0.5)) is not None:
        published.append(decode_frame(message["data"]).version)
    assert published == sorted(set(published)), "each version once, never backwards"
    body = client.hget(frame_name(readside.settings.session_uid), "body")
    assert isinstance(body, bytes)
    assert decode_frame(body).totals == {
        "ada": 21,
        "bob": 40,
    }


@pytest.mark.parametrize("readside", [{"results": {"visibility": "afterClose"}}], indirect=True)
async def test_under_embargo_nobody_sees_a_figure_by_option_before_the_final_result(readside: ReadSide) -> None:
    readside.append(0, [0] * 1234 + [1] * 777)
    projector = readside.start("projector")
    gateway = readside.start("gateway").wait_ready()
    ws, sse = Socket(gateway.v1("/live").replace("http", "ws")), Events(gateway.v1("/events"))
    async with ws, sse:
        for watcher in (ws, sse):
            frame = await watcher.until(lambda frame: not frame["stale"], "a frame")
            assert (frame["totals"], frame["segments"], frame["outcome"]) == (None, None, None)
            assert frame["turnout"]["accepted"] == 2011
        for phase in (Phase.CLOSING, Phase.RECOUNTING):
            number = set_phase(readside.settings, phase).number
            await ws.until(partial(in_phase, phase), "the phase is shown")
        stored = RedisClient.from_url(readside.redis.url).hgetall(frame_name(readside.settings.session_uid))
        logs = b"".join(role.said() for role in (projector, gateway))
        metrics = b"".join(
            fetch(f"http://127.0.0.1:{role.admin_port}/metrics").body for role in (projector, gateway)
        )
        pages = b"".join(fetch(gateway.v1(path)).body for path in ("", "/results", "/publication"))
        frames = json.dumps(ws.frames + sse.frames).encode()
        for seen in (*stored.values(), logs, metrics, pages, frames):
            assert isinstance(seen, bytes)
            assert re.search(rb"(?<![\w.])(1234|777)(?!\w)", seen) is None
        readside.seal(number + 1)
        set_phase(readside.settings, Phase.FINAL)
        for watcher in (ws, sse):
            final = await watcher.until(lambda frame: frame["final"], "the final frame")
            assert final["totals"] == {"ada": 1234, "bob": 777}
    assert fetch(gateway.v1("/publication")).json["totals"] == {"ada": 1234, "bob": 777}


def in_phase(phase: Phase, frame: Frame) -> bool:
    return bool(frame["phase"] == phase)
