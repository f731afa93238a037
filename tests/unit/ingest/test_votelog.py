"""Reports that come in one poll: each vote is judged by when its own record was appended."""

import asyncio
import time
from typing import Any, NamedTuple

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME
from hypothesis import given, settings
from hypothesis import strategies as st

from psephos.formats.control import Control, Phase
from psephos.platform.clock import now_ms
from psephos.platform.settings import load_settings
from psephos.roles.ingest.gate import Gate
from psephos.roles.ingest.intake import Records
from psephos.roles.ingest.tracing import Trace
from psephos.roles.ingest.votelog import VoteLog

GRACE_MS = 10_000
SETTINGS = load_settings(
    {"PSEPHOS_SESSION_FILE": "s", "PSEPHOS_SESSION_UID": "u", "PSEPHOS_KAFKA_BOOTSTRAP": "127.0.0.1:1"}
)


class Message(NamedTuple):
    """What a report says of a record."""

    kind: int
    appended_ms: int
    place: int

    def timestamp(self) -> tuple[int, int]:
        return self.kind, self.appended_ms

    def offset(self) -> int:
        return self.place


class Vote:
    """Waits for its record."""

    def __init__(self) -> None:
        self.received_at = now_ms()
        self.offset: int | None = None

    def settled(self, offset: int | None) -> None:
        self.offset = offset


def settled(votelog: VoteLog, *messages: Message | None) -> list[int | None]:
    votes = [Vote() for _ in messages]
    for vote, message in zip(votes, messages, strict=True):
        votelog._report(vote, None if message else object(), message)  # type: ignore[arg-type]
    votelog.poll()
    return [vote.offset for vote in votes]


def open_gate(closes_at: int | None = None) -> Gate:
    gate = Gate()
    control = Control(phase=Phase.OPEN, number=1, opens_at=0, closes_at=closes_at, grace_ms=GRACE_MS)
    gate.learn(control, wall_ms=now_ms(), mono=time.monotonic())
    gate.heard(time.monotonic())
    return gate


async def test_one_that_was_appended_too_late_costs_no_other_its_place() -> None:
    last = now_ms() + 60_000  # half a grace after the end, and far from now
    gate = Gate()
    control = Control(phase=Phase.OPEN, number=1, opens_at=0, closes_at=last - GRACE_MS // 2, grace_ms=GRACE_MS)
    gate.learn(control, wall_ms=now_ms(), mono=time.monotonic())
    gate.heard(time.monotonic())
    votelog = VoteLog(SETTINGS, gate, GRACE_MS / 1000)

    def appended(ms: int, place: int) -> Message:
        return Message(TIMESTAMP_LOG_APPEND_TIME, ms, place)

    assert settled(votelog, appended(last - 5, 1), appended(last, 2)) == [1, 2]
    assert settled(votelog, appended(last - 5, 3), appended(last + 1, 4), None, appended(last, 5)) == [
        3,
        None,
        None,
        5,
    ]
    undated = Message(TIMESTAMP_CREATE_TIME, last + 60_000, 6)
    assert settled(votelog, undated, appended(last + 1, 7)) == [6, None]
    gate.learn(control, wall_ms=last + 1, mono=time.monotonic())  # the time is up here
    assert settled(votelog, appended(last - 5, 8), undated) == [None, None]


async def test_records_that_were_sent_together_are_judged_each_by_its_own_time() -> None:
    last = now_ms() + 60_000
    gate = open_gate(closes_at=last - GRACE_MS // 2)
    votelog = VoteLog(SETTINGS, gate, GRACE_MS / 1000)
    producer = votelog._producer = FullProducer(3)  # type: ignore[assignment]
    sent = votelog.send(Records([0, 1, 0], [b"ann", b"ben", b"cid"], [b"x"] * 3), now_ms())
    for place, (_, key, value, report) in enumerate(producer.taken):
        report(None, Report(key, value, None, place, last + (key == b"cid")))
    votelog.poll()
    assert sent.offsets == [0, 2, None]
    assert sent.problem(2).slug == "unconfirmed"


async def test_nothing_is_confirmed_while_the_sessions_state_is_not_known() -> None:
    votelog = VoteLog(SETTINGS, Gate(), GRACE_MS / 1000)
    assert settled(votelog, Message(TIMESTAMP_LOG_APPEND_TIME, now_ms(), 1), None) == [None, None]


class Report(NamedTuple):
    """A delivery report as librdkafka tells it."""

    stored_key: bytes
    stored_value: bytes
    failure: object | None
    place: int
    appended_ms: int

    def key(self) -> bytes:
        return self.stored_key

    def value(self) -> bytes:
        return self.stored_value

    def error(self) -> object | None:
        return self.failure

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_LOG_APPEND_TIME, self.appended_ms

    def offset(self) -> int:
        return self.place


class FullProducer:
    """Takes as many records as it has room for, and reports when it is told to, in any order."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[tuple[int, bytes, bytes, Any]] = []

    def produce_batch(self, _topic: str, messages: list[dict[str, Any]], partition: int, on_delivery: Any) -> int:
        taken = min(self.room, len(messages))
        for message in messages[taken:]:
            message["_error"] = "queue full"
        for message in messages[:taken]:
            self.taken.append((partition, message["key"], message["value"], on_delivery))
        self.room -= taken
        return taken

    def produce(
        self, topic: str, value: bytes, key: bytes, partition: int, on_delivery: Any, headers: Trace
    ) -> None:
        assert headers == TRACE
        if not self.produce_batch(topic, [{"key": key, "value": value}], partition, on_delivery):
            raise BufferError

    def poll(self, _timeout: float) -> int:
        return 0

    def __len__(self) -> int:
        return 0


TRACE: Trace = [("traceparent", b"00-1-2-01")]
contents = st.tuples(st.integers(0, 3), st.sampled_from([b"ann", b"ben"]), st.sampled_from([b"x", b"y"]))


@settings(max_examples=60)
@given(st.lists(contents, min_size=1, max_size=12), st.integers(0, 14), st.sampled_from([None, TRACE]), st.data())
def test_reports_find_their_records_in_whatever_order_they_come_and_refused_ones_are_told_apart(
    contents: list[tuple[int, bytes, bytes]], room: int, trace: Trace | None, data: st.DataObject
) -> None:
    """An offset tells which place the producer gave a record, so each one is led back to what stands there."""

    async def run() -> None:
        votelog = VoteLog(SETTINGS, open_gate(), GRACE_MS / 1000)
        producer = FullProducer(room)
        votelog._producer = producer  # type: ignore[assignment]
        records = Records(*map(list, zip(*contents, strict=True)))
        sent = votelog.send(records, now_ms(), trace)
        assert len(sent.refused) == max(0, len(contents) - room)
        failed = data.draw(st.sets(st.integers(0, 11)))
        for place in data.draw(st.permutations(range(len(producer.taken)))):
            _, key, value, report = producer.taken[place]
            error = object() if place in failed else None
            report(error, Report(key, value, error, place, now_ms()))
            if data.draw(st.booleans()):
                votelog.poll()
        votelog.poll()
        assert sent.done.done()
        standing = [(index, offset) for index, offset in enumerate(sent.offsets) if offset is not None]
        assert [contents[index] for index, _ in standing] == [producer.taken[place][:3] for _, place in standing]
        assert {place for _, place in standing} == set(range(len(producer.taken))) - failed
        assert sent.refused.isdisjoint(index for index, _ in standing)
        slugs = [sent.problem(index).slug for index in range(len(contents)) if sent.offsets[index] is None]
        assert slugs.count("overloaded") == len(sent.refused)

    asyncio.run(run())
