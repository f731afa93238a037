"""The closing protocol on a real log and ledger, also when the controller dies between two steps."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer
from tests.controllers import close_to_recounting, close_up_to_markers, closing, executor_of
from tests.prepared import PARTITIONS, Prepared
from tests.waiting import PATIENCE_S, wait_until

import psephos.control.closing_steps
from psephos.adapters.kafka import (
    LogAdmin,
    client_config,
    mark_closed,
    read_control,
    refusing_partitions,
    votes_topic,
)
from psephos.control import (
    Action,
    Closing,
    CommandFile,
    DesiredState,
    LifecycleError,
    LocalController,
    closing_of,
    sealed_ends,
    set_phase,
)
from psephos.control.closing_steps import announce_closing_time, fix_closing_time, seal
from psephos.control.commands import NOTICE_MS
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
    fixed = close_up_to_markers(running.settings)
    assert fixed.closes_at >= begun + NOTICE_MS
    assert now_ms() >= fixed.closes_at + 1000
    announced = control(running)
    assert (announced.phase, announced.closes_at, announced.grace_ms) == (Phase.CLOSING, fixed.closes_at, 1000)
    assert [markers(running, partition) for partition in range(PARTITIONS)] == [[], []]


def test_ingest_hears_of_the_end_before_it_comes(running: Prepared) -> None:
    fixed = fix_closing_time(running.settings, running.ledger, now_ms() + 3_600_000)
    executor = executor_of(running.settings)
    step = executor.advance(closing, executor.observe()).step
    assert (step.action, step.wake_at) == (Action.WAIT, fixed.closes_at)
    assert (control(running).phase, control(running).closes_at) == (Phase.OPEN, fixed.closes_at)


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


def _after_nothing(_over: Prepared, _fixed: Closing) -> None:
    """It died before it did anything."""


def _after_announcing(over: Prepared, fixed: Closing) -> None:
    announce_closing_time(over.settings, fixed)


def _after_beginning(over: Prepared, fixed: Closing) -> None:
    announce_closing_time(over.settings, fixed)
    set_phase(over.settings, Phase.CLOSING)


def _after_one_marker(over: Prepared, fixed: Closing) -> None:
    _after_beginning(over, fixed)
    mark_closed(over.settings, 1, fixed.closes_at)


def _after_all_markers(over: Prepared, fixed: Closing) -> None:
    _after_beginning(over, fixed)
    mark_closed(over.settings, PARTITIONS, fixed.closes_at)


def _after_sealing(over: Prepared, fixed: Closing) -> None:
    _after_all_markers(over, fixed)
    over.admin.seal_votes()


def _after_one_end(over: Prepared, fixed: Closing) -> None:
    _after_sealing(over, fixed)
    wait_until(lambda: len(refusing_partitions(over.settings, PARTITIONS)) == PARTITIONS, "sealed")
    over.ledger.put_once("sealed", b'{"end":%d}' % over.ends()[1], sort=1)


def _after_all_ends(over: Prepared, fixed: Closing) -> None:
    _after_beginning(over, fixed)
    seal(over.settings, over.ledger, fixed)


CRASHES = [
    _after_nothing,
    _after_announcing,
    _after_beginning,
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
    fixed = fix_closing_time(over.settings, over.ledger)
    crash(over, fixed)
    ends = over.finish()
    assert closing_of(over.ledger) == fixed
    assert ends == over.ends()
    assert [markers(over, partition)[0] for partition in range(PARTITIONS)] == list(votes)
    assert control(over).phase is Phase.RECOUNTING
    assert close_to_recounting(over.settings) == ends
    assert over.ends() == ends


def test_whoever_closes_second_adopts_the_time_of_the_first(running: Prepared) -> None:
    times = [now_ms() + 60_000 + number * 1000 for number in range(6)]
    with ThreadPoolExecutor(len(times)) as pool:
        fixed = set(pool.map(lambda time: fix_closing_time(running.settings, running.ledger, time), times))
    assert len(fixed) == 1
    assert fixed.pop().closes_at in times
    assert fix_closing_time(running.settings, running.ledger, now_ms() + 5_000).closes_at in times


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

    monkeypatch.setattr(psephos.control.closing_steps, "LogAdmin", Stood)
    ends = over.seal()
    assert len(told) == 3
    assert ends == over.ends()


def test_a_tally_that_does_not_come_to_the_end_is_named(over: Prepared) -> None:
    ends = over.seal()
    over.write(0, over.chain(0))
    said: list[str] = []
    controller = LocalController(
        over.settings, concluding(over, Phase.FINAL), drain_timeout_s=0.1, progress=said.append
    )
    controller.start()
    try:
        named = f"(partition: records): 1: {ends[1]}; is a worker running?"
        wait_until(lambda: any(named in each for each in said), "the partition that is behind is named")
    finally:
        controller.stop()
    assert control(over).phase is Phase.CLOSING


def test_closing_can_be_stopped_and_taken_up_again(running: Prepared) -> None:
    controller = LocalController(running.settings, concluding(running, Phase.FINAL))
    controller.close()
    controller.start()
    wait_until(lambda: closing_of(running.ledger), "the closing time is fixed")
    controller.stop()
    fixed = closing_of(running.ledger)
    running.finish()
    assert closing_of(running.ledger) == fixed


def concluding(prepared: Prepared, phase: Phase) -> Callable[[], Phase]:
    """A recount that comes to this result."""

    def recount() -> Phase:
        prepared.ledger.put_once("final" if phase is Phase.FINAL else "disputed#final", b"{}")
        return phase

    return recount


def test_the_controller_takes_a_session_through_its_life(running: Prepared) -> None:
    recounts: list[Phase] = []

    def recount() -> Phase:
        recounts.append(control(running).phase)
        return concluding(running, Phase.FINAL)()

    controller = LocalController(running.settings, recount)
    controller.start()
    try:
        wait_until(lambda: controller.control is not None, "the controller looked")
        controller.close()
        wait_until(lambda: len(sealed_ends(running.ledger)) == PARTITIONS, "sealed")
        running.write_chains()
        ended = controller.wait(PATIENCE_S)
    finally:
        controller.stop()
    assert ended is not None
    assert ended.phase is Phase.FINAL
    assert recounts == [Phase.RECOUNTING]
    assert control(running) == ended


def test_a_controller_takes_up_what_another_left_behind(over: Prepared) -> None:
    over.finish()
    controller = LocalController(over.settings, concluding(over, Phase.DISPUTED))
    controller.start()
    ended = controller.wait(PATIENCE_S)
    controller.stop()
    assert ended is not None
    assert ended.phase is Phase.DISPUTED


def test_a_result_that_is_sealed_stands_though_the_controller_died_before_it_said_so(over: Prepared) -> None:
    """A command to make it void that is found then comes too late."""
    over.finish()
    over.ledger.put_once("final", b"{}")
    commands = over.folder / "commands"
    commands.mkdir()
    (commands / "desired.json").write_text('{"number": 1, "desired": {"void": "fire"}}')
    controller = LocalController(
        over.settings, concluding(over, Phase.FINAL), commands=CommandFile(commands, "test")
    )
    controller.start()
    ended = controller.wait(PATIENCE_S)
    controller.stop()
    assert ended is not None
    assert ended.phase is Phase.FINAL


def test_a_disputed_session_can_be_made_void(over: Prepared) -> None:
    over.finish()
    file = CommandFile(over.folder / "commands", "test")
    controller = LocalController(
        over.settings, concluding(over, Phase.DISPUTED), commands=CommandFile(over.folder / "commands", "test")
    )
    controller.start()
    try:
        ended = controller.wait(PATIENCE_S)
        assert ended is not None
        assert ended.phase is Phase.DISPUTED
        assert file.give(DesiredState(void="the log was damaged")).phase is Phase.VOID
    finally:
        controller.stop()
    assert control(over).reason == "the log was damaged"


def test_commands_are_taken_while_the_session_waits_for_its_fixed_end(running: Prepared) -> None:
    """Its end stays fixed; a pause is possible until then, and to make it void at any time."""
    file = CommandFile(running.folder / "commands", "test")
    controller = LocalController(
        running.settings,
        concluding(running, Phase.FINAL),
        commands=CommandFile(running.folder / "commands", "test"),
    )
    controller.start()
    try:
        wait_until(lambda: controller.control is not None, "the controller looked")
        end = now_ms() + 3_600_000
        file.give(DesiredState(close_at=end))
        wait_until(lambda: control(running).closes_at == end, "the end is announced")
        assert file.give(DesiredState(paused=True)).phase is Phase.PAUSED
        assert file.give(DesiredState(paused=False)).phase is Phase.OPEN
        with pytest.raises(LifecycleError, match="closing has begun"):
            file.give(DesiredState(closes_at=end + 1000))
        assert file.give(DesiredState(void="fire")).phase is Phase.VOID
        ended = controller.wait(PATIENCE_S)
    finally:
        controller.stop()
    assert ended is not None
    assert (ended.phase, ended.closes_at) == (Phase.VOID, end)


def test_a_controller_that_is_stopped_leaves_an_open_session_open(running: Prepared) -> None:
    set_phase(running.settings, Phase.PAUSED)
    controller = LocalController(running.settings, concluding(running, Phase.FINAL))
    controller.start()
    wait_until(lambda: controller.control is not None, "the controller looked")
    controller.stop()
    assert controller.wait(0) is None
    assert control(running).phase is Phase.PAUSED
