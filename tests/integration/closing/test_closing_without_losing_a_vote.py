"""The closing protocol on a real log and ledger, also when whoever runs it dies between two steps."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer
from tests.prepared import PARTITIONS, Prepared
from tests.waiting import PATIENCE_S, wait_until

import psephos.control.closing
from psephos.adapters.kafka import (
    LogAdmin,
    client_config,
    mark_closed,
    read_control,
    refusing_partitions,
    votes_topic,
)
from psephos.control import (
    Conductor,
    Drained,
    LifecycleError,
    OrderBook,
    Stopped,
    Wishes,
    close,
    closing_of,
    extend,
    set_phase,
)
from psephos.control.closing import (
    Closing,
    announce,
    fix_closing,
    seal,
    sealed_ends,
    wait_for_grace,
)
from psephos.control.orders import NOTICE_MS
from psephos.formats.control import Control, Phase
from psephos.formats.votes import MARKER_KEY, decode_marker
from psephos.platform.clock import now_ms
from psephos_lab.servers import Backends

Unique = Callable[[str], str]


@pytest.fixture
def over(backends: Backends, unique: Unique, tmp_path: Path) -> Prepared:
    """A session whose closesAt has passed, with some votes in its log."""
    prepared = Prepared(backends, unique("c")[:60], tmp_path)
    prepared.produce([prepared.vote(f"voter-{number}") for number in range(50)])
    return prepared


@pytest.fixture
def running(backends: Backends, unique: Unique, tmp_path: Path) -> Prepared:
    """A session without a closesAt, with some votes in its log."""
    prepared = Prepared(backends, unique("c")[:60], tmp_path, closesAt=None)
    prepared.produce([prepared.vote(f"voter-{number}") for number in range(50)])
    return prepared


def control(prepared: Prepared) -> Control:
    known = read_control(prepared.settings)
    assert known is not None
    return known


def markers(prepared: Prepared, partition: int) -> list[int]:
    """Offsets of the close markers."""
    records = prepared.records(partition)
    found = [offset for offset, (key, _) in enumerate(records) if key == MARKER_KEY]
    for offset in found:
        decode_marker(records[offset][1])
    return found


def test_closing_marks_and_seals_every_partition_and_waits_for_the_tally(over: Prepared) -> None:
    before = over.ends()
    ends = over.finish()
    assert ends == over.ends() == tuple(sealed_ends(over.ledger)[p] for p in range(PARTITIONS))
    for partition in range(PARTITIONS):
        assert markers(over, partition)[0] == before[partition]
        assert ends[partition] > before[partition]
    assert control(over).phase is Phase.RECOUNTING
    assert refusing_partitions(over.settings, PARTITIONS) == set(range(PARTITIONS))


def test_nothing_is_marked_before_the_grace_time_is_over(running: Prepared) -> None:
    begun = now_ms()
    closing = fix_closing(running.settings, running.ledger)
    assert closing.closes_at >= begun + NOTICE_MS
    told = announce(running.settings, closing)
    assert now_ms() >= closing.closes_at
    assert (told.phase, told.closes_at, told.grace_ms) == (Phase.CLOSING, closing.closes_at, 1000)
    wait_for_grace(running.settings, closing, lambda _what: None)
    assert now_ms() >= closing.closes_at + 1000
    assert [markers(running, partition) for partition in range(PARTITIONS)] == [[], []]


def test_ingest_hears_of_the_end_before_it_comes(running: Prepared) -> None:
    closing = fix_closing(running.settings, running.ledger, now_ms() + 3_600_000)
    heard = threading.Event()
    with ThreadPoolExecutor() as pool:
        announced = pool.submit(announce, running.settings, closing, stopped=heard.is_set)
        try:
            wait_until(lambda: control(running).closes_at == closing.closes_at, "the time is announced")
        finally:
            heard.set()
        with pytest.raises(Stopped):  # it was waiting for the end
            announced.result(PATIENCE_S)
    assert control(running).phase is Phase.OPEN


def test_the_seal_refuses_a_producer_that_is_in_full_swing(over: Prepared) -> None:
    acknowledged: list[int] = []
    refused: list[KafkaError] = []
    enough, stop = threading.Event(), threading.Event()
    producer = Producer({**client_config(over.settings), "acks": "all", "enable.idempotence": True})

    def delivered(error: KafkaError | None, message: object) -> None:
        if error is not None:
            refused.append(error)
        else:
            acknowledged.append(message.offset())  # type: ignore[attr-defined]
            if len(acknowledged) > 100:
                enough.set()

    def press_on() -> None:
        number = 0
        while not stop.is_set():
            key, value = over.vote(f"late-{number}")
            producer.produce(votes_topic(over.settings.session_uid), value, key, 0, on_delivery=delivered)
            producer.poll(0.001)
            number += 1
        producer.flush(30)

    with ThreadPoolExecutor() as pool:
        pressing = pool.submit(press_on)
        try:
            assert enough.wait(PATIENCE_S)
            ends = over.seal()
            wait_until(lambda: refused, "the producer is refused")
        finally:
            stop.set()
        pressing.result(PATIENCE_S)
    assert refused[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert max(acknowledged) < ends[0] == over.ends()[0]
    assert len(over.records(0)) == ends[0]


def _after_nothing(_over: Prepared, _closing: Closing) -> None:
    """It died before it did anything."""


def _after_announcing(over: Prepared, closing: Closing) -> None:
    announce(over.settings, closing)


def _after_one_marker(over: Prepared, closing: Closing) -> None:
    announce(over.settings, closing)
    mark_closed(over.settings, 1, closing.closes_at)


def _after_all_markers(over: Prepared, closing: Closing) -> None:
    announce(over.settings, closing)
    mark_closed(over.settings, PARTITIONS, closing.closes_at)


def _after_sealing(over: Prepared, closing: Closing) -> None:
    _after_all_markers(over, closing)
    over.admin.seal_votes()


def _after_one_end(over: Prepared, closing: Closing) -> None:
    _after_sealing(over, closing)
    wait_until(lambda: len(refusing_partitions(over.settings, PARTITIONS)) == PARTITIONS, "sealed")
    over.ledger.put_once("sealed", b'{"end":%d}' % over.ends()[1], sort=1)


def _after_all_ends(over: Prepared, closing: Closing) -> None:
    announce(over.settings, closing)
    seal(over.settings, over.ledger, closing)


CRASHES = [
    _after_nothing,
    _after_announcing,
    _after_one_marker,
    _after_all_markers,
    _after_sealing,
    _after_one_end,
    _after_all_ends,
]


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: crash.__name__.strip("_"))
def test_closing_goes_on_where_another_attempt_died(
    over: Prepared, crash: Callable[[Prepared, Closing], None]
) -> None:
    votes = over.ends()
    closing = fix_closing(over.settings, over.ledger)
    crash(over, closing)
    ends = over.finish()
    assert closing_of(over.ledger) == closing
    assert ends == over.ends()
    assert [markers(over, partition)[0] for partition in range(PARTITIONS)] == list(votes)
    assert control(over).phase is Phase.RECOUNTING
    assert close(over.settings) == ends
    assert over.ends() == ends


def test_whoever_closes_second_adopts_the_time_of_the_first(running: Prepared) -> None:
    times = [now_ms() + 60_000 + number * 1000 for number in range(6)]
    with ThreadPoolExecutor(len(times)) as pool:
        fixed = set(pool.map(lambda time: fix_closing(running.settings, running.ledger, time), times))
    assert len(fixed) == 1
    assert fixed.pop().closes_at in times
    assert fix_closing(running.settings, running.ledger, now_ms() + 5_000).closes_at in times


def test_the_end_can_be_moved_to_later_until_closing_begins(running: Prepared) -> None:
    later = now_ms() + 3_600_000
    assert extend(running.settings, later).closes_at == later
    with pytest.raises(LifecycleError, match="only be moved to later"):
        extend(running.settings, later - 1000)
    with pytest.raises(LifecycleError, match="too near"):
        extend(running.settings, now_ms() + 100)
    fix_closing(running.settings, running.ledger)
    with pytest.raises(LifecycleError, match="closing has begun"):
        extend(running.settings, later + 1000)
    assert control(running).closes_at == later


def test_an_end_that_a_leader_of_before_tells_is_not_believed(
    over: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that stood still for a while answers with what it knows until it hears that it leads no more."""
    told: list[list[int]] = []

    class Stood(LogAdmin):
        def end_offsets(self, partitions: int) -> list[int]:
            ends = super().end_offsets(partitions)
            told.append([end // 2 for end in ends] if len(told) < 2 else ends)
            return told[-1]

    monkeypatch.setattr(psephos.control.closing, "LogAdmin", Stood)
    ends = over.seal()
    assert len(told) == 3
    assert ends == over.ends()


def test_a_tally_that_does_not_come_to_the_end_is_named(over: Prepared) -> None:
    ends = over.seal()
    over.write(0, over.chain(0))
    with pytest.raises(Drained, match=f"1: {ends[1]}") as caught:
        close(over.settings, drain_timeout_s=0.1)
    assert caught.value.behind == {1: ends[1]}
    assert control(over).phase is Phase.CLOSING


def test_closing_can_be_stopped_and_taken_up_again(running: Prepared) -> None:
    with pytest.raises(Stopped):
        close(running.settings, stopped=lambda: True)
    fixed = closing_of(running.ledger)
    running.finish()
    assert closing_of(running.ledger) == fixed


def test_the_conductor_takes_a_session_through_its_life(running: Prepared) -> None:
    recounts: list[Phase] = []

    def recount() -> Phase:
        recounts.append(control(running).phase)
        return Phase.FINAL

    conductor = Conductor(running.settings, recount)
    conductor.start()
    try:
        wait_until(lambda: conductor.control is not None, "the conductor looked")
        conductor.close()
        wait_until(lambda: len(sealed_ends(running.ledger)) == PARTITIONS, "sealed")
        running.write_chains()
        ended = conductor.wait(PATIENCE_S)
    finally:
        conductor.stop()
    assert ended is not None
    assert ended.phase is Phase.FINAL
    assert recounts == [Phase.RECOUNTING]
    assert control(running) == ended


def test_a_conductor_takes_up_what_another_left_behind(over: Prepared) -> None:
    over.finish()
    conductor = Conductor(over.settings, lambda: Phase.DISPUTED)
    conductor.start()
    ended = conductor.wait(PATIENCE_S)
    conductor.stop()
    assert ended is not None
    assert ended.phase is Phase.DISPUTED


def test_a_result_that_is_sealed_stands_though_the_conductor_died_before_it_said_so(over: Prepared) -> None:
    """A wish for a void session that is found then comes too late."""
    over.finish()
    over.ledger.put_once("final", b"{}")
    orders = over.folder / "orders"
    orders.mkdir()
    (orders / "wishes.json").write_text('{"number": 1, "wishes": {"void": "fire"}}')
    conductor = Conductor(over.settings, lambda: Phase.FINAL, orders=OrderBook(orders, "test"))
    conductor.start()
    ended = conductor.wait(PATIENCE_S)
    conductor.stop()
    assert ended is not None
    assert ended.phase is Phase.FINAL


def test_a_disputed_session_can_be_made_void(over: Prepared) -> None:
    over.finish()
    book = OrderBook(over.folder / "orders", "test")
    conductor = Conductor(over.settings, lambda: Phase.DISPUTED, orders=OrderBook(over.folder / "orders", "test"))
    conductor.start()
    try:
        ended = conductor.wait(PATIENCE_S)
        assert ended is not None
        assert ended.phase is Phase.DISPUTED
        assert book.give(Wishes(void="the log was damaged")).phase is Phase.VOID
    finally:
        conductor.stop()
    assert control(over).reason == "the log was damaged"


def test_orders_are_taken_while_the_session_waits_for_its_fixed_end(running: Prepared) -> None:
    """Its end stays fixed; a pause is possible until then, and to make it void at any time."""
    book = OrderBook(running.folder / "orders", "test")
    conductor = Conductor(
        running.settings, lambda: Phase.FINAL, orders=OrderBook(running.folder / "orders", "test")
    )
    conductor.start()
    try:
        wait_until(lambda: conductor.control is not None, "the conductor looked")
        end = now_ms() + 3_600_000
        book.give(Wishes(close_at=end))
        wait_until(lambda: control(running).closes_at == end, "the end is announced")
        assert book.give(Wishes(paused=True)).phase is Phase.PAUSED
        assert book.give(Wishes(paused=False)).phase is Phase.OPEN
        with pytest.raises(LifecycleError, match="closing has begun"):
            book.give(Wishes(closes_at=end + 1000))
        assert book.give(Wishes(void="fire")).phase is Phase.VOID
        ended = conductor.wait(PATIENCE_S)
    finally:
        conductor.stop()
    assert ended is not None
    assert (ended.phase, ended.closes_at) == (Phase.VOID, end)


def test_a_conductor_that_is_stopped_leaves_an_open_session_open(running: Prepared) -> None:
    set_phase(running.settings, Phase.PAUSED)
    conductor = Conductor(running.settings, lambda: Phase.FINAL)
    conductor.start()
    wait_until(lambda: conductor.control is not None, "the conductor looked")
    conductor.stop()
    assert conductor.wait(0) is None
    assert control(running).phase is Phase.PAUSED
