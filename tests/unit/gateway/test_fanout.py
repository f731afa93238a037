"""Fan-out: the newest frame in one slot, one write a viewer, nobody waits for the slow ones."""

import asyncio
from typing import Any

from psephos.formats.frames import Frame, Turnout, encode_frame
from psephos.roles.gateway.fanout import COALESCE_S, SHARE, SLOW_S, Hub, Viewer
from psephos.roles.gateway.view import Position, View, view_of


def view(version: int, *, epoch: str = "ab", stale: bool = False) -> View:
    frame = Frame(
        session="s", epoch=epoch, version=version, phase="Open", totals={}, as_of=1, lag_ms=0, final=False,
        turnout=Turnout(1, 1, 0, 0, {}, 1),
    )  # fmt: skip
    return view_of(frame, encode_frame(frame), stale=stale)


class Wire(asyncio.Transport):
    """A transport in memory: what was written, and how much of it the other side has not taken."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.unsent = 0
        self.ended = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.ended

    def abort(self) -> None:
        self.ended = True


class Plain(Viewer):
    """A viewer that gets bodies and beats with a dot."""

    kind = "plain"

    def __init__(self, seen: Position | None = None) -> None:
        self.wire = Wire()
        super().__init__(self.wire, seen, beat_s=25.0)
        self.closed: list[tuple[int, int]] = []

    def encoded(self, view: View) -> bytes:
        return b"%d" % view.position.version

    def beat(self, now: float) -> bytes:
        return b"."

    async def close(self, code: int, retry_ms: int) -> None:
        self.closed.append((code, retry_ms))

    @property
    def got(self) -> list[bytes]:
        return self.wire.written


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def hub(limit: int = 10, clock: Clock | None = None) -> Hub:
    return Hub(limit, clock=clock or Clock(), uniform=lambda _low, high: high)


async def test_a_viewer_gets_the_newest_frame_at_once_and_each_newer_one_once() -> None:
    room, viewer = hub(), Plain()
    room.publish(view(1))
    with room.watching(viewer):
        assert viewer.got == [b"1"]
        room.publish(view(2))
        await room.sweep()
        await room.sweep()
    room.publish(view(3))
    await room.sweep()
    assert viewer.got == [b"1", b"2"], "nothing after it has left"


async def test_a_slow_viewer_has_no_queue_and_gets_whatever_is_newest_when_it_reads_again() -> None:
    room, viewer = hub(), Plain()
    with room.watching(viewer):
        viewer.wire.unsent = 1
        for version in range(1, 100):
            room.publish(view(version))
            await room.sweep()
        assert viewer.got == []
        viewer.wire.unsent = 0
        await room.sweep()
        assert viewer.got == [b"99"]


async def test_a_viewer_that_stays_slow_is_closed_with_a_retry_code_and_one_that_recovers_is_not() -> None:
    clock = Clock()
    room, stuck, recovering = hub(clock=clock), Plain(), Plain()
    with room.watching(stuck), room.watching(recovering):
        stuck.wire.unsent = recovering.wire.unsent = 1
        await room.sweep()
        clock.now += SLOW_S - 1
        await room.sweep()
        recovering.wire.unsent = 0
        await room.sweep()
        recovering.wire.unsent = 1
        clock.now += 1
        await room.sweep()
        await asyncio.sleep(0)
        assert [code for code, _ in stuck.closed] == [1013]
        assert recovering.closed == []


async def test_everybody_gets_the_same_bytes_object() -> None:
    newest = view(1)
    room, viewers = hub(5_000), [Plain() for _ in range(3)]
    for viewer in viewers:
        viewer.encoded = lambda view: view.message  # type: ignore[method-assign]
        room._viewers.add(viewer)
    room.publish(newest)
    await room.sweep()
    assert all(viewer.got[0] is newest.message for viewer in viewers)


async def test_a_viewer_who_has_seen_more_waits_until_this_gateway_has_caught_up() -> None:
    room, viewer = hub(), Plain(seen=Position("ab", 10))
    room.publish(view(9))
    with room.watching(viewer):
        assert viewer.got == []
        room.publish(view(11))
        await room.sweep()
        assert viewer.got == [b"11"]


async def test_a_viewer_of_another_epoch_is_sent_the_newest() -> None:
    room, viewer = hub(), Plain(seen=Position("ff", 10))
    room.publish(view(9))
    with room.watching(viewer):
        assert viewer.got == [b"9"]


async def test_a_changed_stale_mark_is_sent_once() -> None:
    room, viewer = hub(), Plain()
    room.publish(view(9))
    with room.watching(viewer):
        room.publish(view(9, stale=True))
        await room.sweep()
        await room.sweep()
        assert viewer.got == [b"9", b"9"]


async def test_a_quiet_connection_is_kept_open_by_beats() -> None:
    clock = Clock()
    room, viewer = hub(clock=clock), Plain()
    with room.watching(viewer):
        for _ in range(60):
            await room.sweep()
            clock.now += 1
        assert viewer.got == [b".", b"."]


async def test_frames_are_coalesced() -> None:
    room, viewer = Hub(10), Plain()
    task = asyncio.create_task(room.run())
    loop = asyncio.get_running_loop()
    with room.watching(viewer):
        began, version = loop.time(), 0
        while version <= 50 or loop.time() - began < 5 * COALESCE_S:
            version += 1
            room.publish(view(version))
            await asyncio.sleep(0.005)
        windows = (loop.time() - began) / COALESCE_S
    task.cancel()
    assert 2 <= len(viewer.got) <= windows + 2


async def test_a_hub_at_its_limit_and_a_draining_one_take_nobody() -> None:
    room = hub(limit=2)
    first, second = Plain(), Plain()
    with room.watching(first):
        assert not room.full
        with room.watching(second):
            assert room.full
        assert not room.full
    await room.drain(1.0)
    assert room.full


async def test_drain_sends_everybody_away_a_share_at_a_time_with_a_retry_hint() -> None:
    room = Hub(10_000)
    viewers = [Plain() for _ in range(2 * SHARE + 1)]
    for viewer in viewers:
        room._viewers.add(viewer)
    draining = asyncio.create_task(room.drain(0.5))
    closed = []
    while not draining.done():
        closed.append(sum(1 for viewer in viewers if viewer.closed))
        await asyncio.sleep(0.01)
    assert {0, SHARE, 2 * SHARE} & set(closed), "not all at once"
    assert SHARE in closed
    assert all(len(viewer.closed) == 1 and viewer.closed[0][0] == 1012 for viewer in viewers)
    hints = {retry for viewer in viewers for _, retry in viewer.closed}
    assert len(hints) > 100, "spread over a window"
    assert all(100 <= hint <= 30_000 for hint in hints)


async def test_the_window_for_coming_back_grows_with_the_number_of_viewers() -> None:
    room = hub()
    assert room.retry_s() == 1.0
    viewers = [Plain() for _ in range(5_000)]
    for viewer in viewers:
        room._viewers.add(viewer)
    assert room.retry_s() == 5.0


async def test_viewers_that_nobody_holds_are_forgotten() -> None:
    room = hub()
    room._viewers.add(Plain())
    assert len(room) == 0
