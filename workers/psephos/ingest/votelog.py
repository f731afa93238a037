"""The producer of the votes topic, driven by the event loop itself.

No thread polls beside the loop: two threads that want the same interpreter lock halve the throughput. While votes
are in flight the loop asks for delivery reports every `POLL_S`, which costs a microsecond when there are none.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Protocol

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, Producer

from psephos.ingest import metrics
from psephos.ingest.gate import Gate
from psephos.ingest.intake import Record
from psephos.ingest.problems import Problem, busy
from psephos.ingest.tracing import Trace
from psephos.log import client_config, votes_topic
from psephos.observability import get_logger
from psephos.settings import Settings

POLL_S = 0.004  # also how many votes share a signature, which costs as much as half a vote
LINGER_MS = (
    10  # the votes of that time make one request a partition, which costs both sides 50 µs however many they are
)
MAX_MESSAGE_TIMEOUT_S = 5.0
MESSAGE_TIMEOUT_SHARE = 0.4  # of the grace: below the half within which an acknowledgement still counts
SKEW_MEMORY_S = 30.0  # a process that is not ready because of its clock gets no votes to measure it again
log = get_logger()


def now_ms() -> int:
    """Wall clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def skew_ms(sent_ms: int, appended_ms: int, acked_ms: int) -> int:
    """How far our clock is ahead of the broker's at least; behind: negative.

    The broker's time of appending lies between ours of sending and ours of hearing, or the clocks differ.
    """
    return max(0, sent_ms - appended_ms) - max(0, appended_ms - acked_ms)


def message_timeout_s(grace_s: float) -> float:
    """How long a vote may be under way to the log before it is given up as unconfirmed."""
    return min(MAX_MESSAGE_TIMEOUT_S, grace_s * MESSAGE_TIMEOUT_SHARE)


class Waiting(Protocol):
    """Whoever wants to know what became of records. received_at: milliseconds since 1970."""

    received_at: int

    def settled(self, index: int, offset: int | None) -> None:
        """Where the record of this number stands; None: unconfirmed. Must not fail."""


class Sent:
    """Records that were handed over together; await `done`, then ask for each `offset`."""

    __slots__ = ("_enqueued", "_offsets", "_open", "_started", "done", "received_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, number: int, received_at: int) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self.received_at = received_at
        self._offsets: list[int | None] = [None] * number
        self._enqueued = self._open = number
        self._started = monotonic()

    def offset(self, index: int) -> int:
        """Where the record stands. Raises Problem: overloaded if it was never enqueued, or unconfirmed."""
        offset = self._offsets[index]
        if offset is None:
            raise unconfirmed() if index < self._enqueued else too_busy()
        return offset

    def refused_from(self, index: int) -> None:
        """The records from `index` on were not enqueued."""
        refused, self._enqueued = self._enqueued - index, index
        self._close(refused)

    def settled(self, index: int, offset: int | None) -> None:
        self._offsets[index] = offset
        self._close(1)

    def _close(self, number: int) -> None:
        self._open -= number
        if self._open == 0:
            metrics.observe_ack(monotonic() - self._started)
            if not self.done.done():
                self.done.set_result(None)


class VoteLog:
    """Sends votes and says where they stand. Lives in one event loop."""

    def __init__(self, settings: Settings, gate: Gate, grace_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.limit = settings.ingest_queue
        self.fatal: str | None = None
        self._gate = gate
        self._topic = votes_topic(settings.session_uid)
        self._timer: asyncio.TimerHandle | None = None
        self._when_polled: Callable[[], None] = _nothing
        self._reports: list[tuple[Waiting, int, Message | None]] = []
        self._skew = (0.0, float("-inf"))
        timeout_ms = int(message_timeout_s(grace_s) * 1000)
        self._producer = Producer(
            {
                **client_config(settings),
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": LINGER_MS,
                "message.timeout.ms": timeout_ms,
                "request.timeout.ms": timeout_ms,
                "queue.buffering.max.messages": self.limit + 1,
                "allow.auto.create.topics": False,
                "error_cb": self._on_error,
            }
        )
        metrics.watch_queue(lambda: self.in_flight, self.limit)

    @property
    def in_flight(self) -> int:
        """Votes that have been handed over and whose report has not been seen."""
        return len(self._producer)

    def require_room(self, votes: int = 1) -> None:
        """Raises Problem overloaded if the queue has no room for so many."""
        if self.in_flight + votes > self.limit:
            raise too_busy()

    def send(self, records: Sequence[Record], received_at: int, trace: Trace | None = None) -> Sent:
        """Hands at least one record over; `received_at`: milliseconds since 1970; `trace`: their headers."""
        sent = Sent(self.loop, len(records), received_at)
        produce, topic, report = self._producer.produce, self._topic, self._report
        for index, (partition, key, value) in enumerate(records):
            try:
                produce(topic, value, key, partition, on_delivery=partial(report, sent, index), headers=trace)
            except (BufferError, KafkaException) as error:
                log.warning("producer refused a vote", why=str(error))
                sent.refused_from(index)
                break
        self._keep_polling()
        return sent

    def send_one(self, record: Record, waiting: Waiting, trace: Trace | None = None) -> None:
        """Hands one record over; `waiting` hears of it. Raises Problem overloaded if it is not enqueued."""
        partition, key, value = record
        report = partial(self._report, waiting, 0)
        try:
            self._producer.produce(self._topic, value, key, partition, on_delivery=report, headers=trace)
        except (BufferError, KafkaException) as error:
            log.warning("producer refused a vote", why=str(error))
            raise too_busy() from None
        self._keep_polling()

    def when_polled(self, call: Callable[[], None]) -> None:
        """`call` is called behind every poll: whoever waited for the reports that had come has heard."""
        self._when_polled = call

    def _report(self, waiting: Waiting, index: int, error: KafkaError | None, message: Message) -> None:
        """A delivery report; called amid a poll, so it only takes note."""
        self._reports.append((waiting, index, message if error is None else None))

    def _settle(self) -> None:
        """Tells what the reports of one poll say, each by the clocks behind the poll.

        An acknowledgement that is told later than it came can only lose its 202, never get one. If the record
        that was appended last came in time, all of them did: nearly always one question is enough.
        """
        reports, self._reports = self._reports, []
        wall_ms, mono = now_ms(), monotonic()
        dates = [_appended_ms(message) for _, _, message in reports]
        latest = max((date for date in dates if date is not None), default=None)
        all_in_time = self._gate.confirms(wall_ms=wall_ms, mono=mono, appended_ms=latest)
        for (waiting, index, message), date in zip(reports, dates, strict=True):
            if message is not None and (
                all_in_time or self._gate.confirms(wall_ms=wall_ms, mono=mono, appended_ms=date)
            ):
                waiting.settled(index, message.offset())
            else:
                waiting.settled(index, None)
        if dates[-1] is not None:
            self._skew = (skew_ms(reports[-1][0].received_at, dates[-1], wall_ms) / 1000, mono)

    @property
    def skew_s(self) -> float:
        """How far this clock is ahead of the brokers' at least, by the last vote; 0 when that is long ago."""
        skew, measured = self._skew
        return skew if monotonic() - measured < SKEW_MEMORY_S else 0.0

    def poll(self) -> None:
        """Serves reports and errors; the loop calls it also while nothing is in flight."""
        try:
            self._producer.poll(0)
        finally:
            if self._reports:
                self._settle()
            self._when_polled()

    async def flush(self, timeout_s: float) -> int:
        """Waits until nothing is in flight; the number of votes that still were when the time was up."""
        deadline = self.loop.time() + timeout_s
        while self.in_flight and self.loop.time() < deadline:
            self.poll()
            await asyncio.sleep(POLL_S)
        return self.in_flight

    def _keep_polling(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(POLL_S, self._drive)

    def _drive(self) -> None:
        try:
            self.poll()
        finally:
            self._timer = self.loop.call_later(POLL_S, self._drive) if self.in_flight else None

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.fatal = error.str()
        log.warning("log", error=error.name(), why=error.str())


def _appended_ms(message: Message | None) -> int | None:
    """When the broker appended a record, None where it does not tell, or where it did not."""
    if message is None:
        return None
    kind, appended_ms = message.timestamp()
    return appended_ms if kind == TIMESTAMP_LOG_APPEND_TIME else None


def _nothing() -> None:
    """What is called behind a poll as long as nobody wants to be."""


def too_busy() -> Problem:
    """What a vote gets that finds the queue full."""
    return busy("overloaded", "too many votes wait for the log; try again")


def unconfirmed() -> Problem:
    """What a vote gets that was enqueued and not acknowledged in time."""
    return busy(
        "unconfirmed", "the log did not confirm this vote in time; it may count; try again with the same key"
    )
