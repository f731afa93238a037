"""The producer of the votes topic, driven by the event loop itself.

No thread polls next to the loop: two threads competing for the interpreter lock halve the throughput. While votes
are in flight, the loop asks for delivery reports every `POLL_S`, which costs a microsecond if there are none.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    KafkaException,
    Message,
    Producer,
)

from psephos.adapters.kafka import client_config, votes_topic
from psephos.platform.clock import now_ms
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings
from psephos.roles.ingest import metrics
from psephos.roles.ingest.gate import Gate
from psephos.roles.ingest.intake import Record, Records
from psephos.roles.ingest.problems import Problem, busy
from psephos.roles.ingest.tracing import Trace

POLL_S = 0.004  # also decides how many votes share a signature, which costs as much as half a vote
LINGER_MS = (
    10  # the votes of that time make one request per partition, which costs both sides 50 µs however many they are
)
MAX_MESSAGE_TIMEOUT_S = 5.0
MESSAGE_TIMEOUT_SHARE = 0.4  # of the grace period: below the half within which an acknowledgement still counts
_UNDATED: Final = (TIMESTAMP_NOT_AVAILABLE, 0)
SKEW_MEMORY_S = 30.0  # a process that is not ready because of its clock gets no votes to measure the clock again
log = get_logger()


def skew_ms(sent_ms: int, appended_ms: int, acked_ms: int) -> int:
    """Returns by how much, at least, our clock is ahead of the broker's; negative if it is behind.

    Unless the clocks differ, the broker's append time lies between our times of sending and of the report.
    """
    return max(0, sent_ms - appended_ms) - max(0, appended_ms - acked_ms)


def message_timeout_s(grace_s: float) -> float:
    """Returns how long a vote may be on its way to the log before it is given up as unconfirmed."""
    return min(MAX_MESSAGE_TIMEOUT_S, grace_s * MESSAGE_TIMEOUT_SHARE)


class Waiting(Protocol):
    """A callback for what became of one record. received_at: milliseconds since 1970."""

    received_at: int

    def settled(self, offset: int | None) -> None:
        """Receives the record's offset; None: unconfirmed. Must not fail."""


class Sent:
    """Records that were handed over together; await `done`, then read their offsets.

    offsets: None for a record that is not confirmed; refused: the indexes of those that were never enqueued.
    """

    __slots__ = ("_open", "_started", "done", "offsets", "received_at", "refused")

    def __init__(self, loop: asyncio.AbstractEventLoop, number: int, received_at: int) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self.received_at = received_at
        self.offsets: list[int | None] = [None] * number
        self.refused: set[int] = set()
        self._open = number
        self._started = monotonic()

    def problem(self, index: int) -> Problem:
        """Returns why a record has no offset: overloaded if it was never enqueued, otherwise unconfirmed."""
        return too_busy() if index in self.refused else unconfirmed()

    def refuse(self, indexes: Collection[int]) -> None:
        """Notes that these records were not enqueued."""
        self.refused.update(indexes)
        self._close(len(indexes))

    def settled(self, indexes: Sequence[int], offsets: Sequence[int | None]) -> None:
        for index, offset in zip(indexes, offsets, strict=True):
            self.offsets[index] = offset
        self._close(len(indexes))

    def _close(self, number: int) -> None:
        self._open -= number
        if self._open == 0:
            metrics.observe_acks([monotonic() - self._started])
            if not self.done.done():
                self.done.set_result(None)


class Shipment:
    """The records of a `Sent` that go to one partition, and their delivery reports since the last poll."""

    __slots__ = ("_open", "_records", "_reported", "_reports", "sent")

    def __init__(
        self, sent: Sent, records: Records, indexes: Sequence[int], reported: Callable[["Shipment"], None]
    ) -> None:
        """`indexes`: which of the records; `reported` is called on the first report of each poll."""
        self.sent = sent
        self._records = records
        self._open = indexes
        self._reports: list[Message] = []
        self._reported = reported

    def refuse(self, places: Collection[int]) -> None:
        """Notes that the records at these places of the shipment were not enqueued."""
        refused = {self._open[place] for place in places}
        self._open = [index for index in self._open if index not in refused]
        self.sent.refuse(refused)

    def report(self, _error: KafkaError | None, message: Message) -> None:
        """Takes a delivery report; called during a poll, so it only takes note."""
        if not self._reports:
            self._reported(self)
        self._reports.append(message)

    def take(self) -> list[Message | None]:
        """Returns the reports since the last poll; None: a failure."""
        return [message if message.error() is None else None for message in self._reports]

    def settled(self, offsets: Sequence[int | None]) -> None:
        """Takes the offsets of the records of these reports."""
        reports, self._reports = self._reports, []
        self.sent.settled(self._indexes(reports), offsets)

    def _indexes(self, messages: Sequence[Message]) -> Sequence[int]:
        """Returns which records these are: nearly always the next ones, but failures may overtake.

        Records that are equal byte for byte, as in two lines of one voter, may stand for each other.
        """
        keys, values = self._records.keys, self._records.values
        following = self._open[: len(messages)]
        if [message.key() for message in messages] == [keys[index] for index in following] and (
            [message.value() for message in messages] == [values[index] for index in following]
        ):
            self._open = self._open[len(messages) :]
            return following
        places: defaultdict[tuple[object, object], deque[int]] = defaultdict(deque)
        for index in self._open:
            places[keys[index], values[index]].append(index)
        found = [places[message.key(), message.value()].popleft() for message in messages]
        self._open = sorted(set(self._open).difference(found))
        return found


class VoteLog:
    """Sends votes and reports their offsets. Lives in one event loop."""

    def __init__(self, settings: Settings, gate: Gate, grace_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.limit = settings.ingest_queue
        self.fatal: str | None = None
        self._gate = gate
        self._topic = votes_topic(settings.session_uid)
        self._timer: asyncio.TimerHandle | None = None
        self._when_polled: Callable[[], None] = _nothing
        self._reports: list[tuple[Waiting, Message | None]] = []
        self._shipments: list[Shipment] = []
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
        """Number of votes that have been handed over and whose report has not been seen."""
        return len(self._producer)

    def require_room(self, votes: int = 1) -> None:
        """Raises Problem overloaded if the queue has no room for this many."""
        if self.in_flight + votes > self.limit:
            raise too_busy()

    def send(self, records: Records, received_at: int, trace: Trace | None = None) -> Sent:
        """Hands over one or more records; `received_at`: milliseconds since 1970; `trace`: their headers.

        Once the producer refuses one, nothing more is handed over.
        """
        sent = Sent(self.loop, len(records.keys), received_at)
        full = False
        for partition, indexes in _by_partition(records.partitions).items():
            shipment = Shipment(sent, records, indexes, self._shipments.append)
            messages = [{"key": records.keys[index], "value": records.values[index]} for index in indexes]
            refused = range(len(indexes)) if full else self._hand_over(shipment, partition, messages, trace)
            if refused:
                full = True
                shipment.refuse(refused)
        self._keep_polling()
        return sent

    def _hand_over(
        self, shipment: Shipment, partition: int, messages: list[dict[str, Any]], trace: Trace | None
    ) -> Collection[int]:
        """Hands over messages; returns the places of those that were refused.

        NB: `produce_batch` drops headers, ignores a message's own partition, and reports a full queue per message.
        """
        if trace is not None:
            return self._hand_over_each(shipment, partition, messages, trace)
        try:
            taken = self._producer.produce_batch(self._topic, messages, partition, on_delivery=shipment.report)
        except KafkaException as error:
            log.warning("producer refused votes", why=str(error))
            return range(len(messages))
        if taken == len(messages):
            return ()
        refused = [place for place, message in enumerate(messages) if "_error" in message]
        log.warning("producer refused votes", why=str(messages[refused[0]]["_error"]))
        return refused

    def _hand_over_each(
        self, shipment: Shipment, partition: int, messages: list[dict[str, Any]], trace: Trace
    ) -> Collection[int]:
        for place, message in enumerate(messages):
            try:
                self._producer.produce(
                    self._topic, **message, partition=partition, on_delivery=shipment.report, headers=trace
                )
            except (BufferError, KafkaException) as error:
                log.warning("producer refused a vote", why=str(error))
                return range(place, len(messages))
        return ()

    def send_one(self, record: Record, waiting: Waiting, trace: Trace | None = None) -> None:
        """Hands over one record and reports to `waiting`. Raises Problem overloaded if it is not enqueued."""
        partition, key, value = record
        report = partial(self._report, waiting)
        try:
            self._producer.produce(self._topic, value, key, partition, on_delivery=report, headers=trace)
        except (BufferError, KafkaException) as error:
            log.warning("producer refused a vote", why=str(error))
            raise too_busy() from None
        self._keep_polling()

    def when_polled(self, call: Callable[[], None]) -> None:
        """`call` is called after every poll, when all its delivery reports have been passed on."""
        self._when_polled = call

    def _report(self, waiting: Waiting, error: KafkaError | None, message: Message) -> None:
        """Takes a delivery report; called during a poll, so it only takes note."""
        self._reports.append((waiting, message if error is None else None))

    def _settle(self) -> None:
        """Passes on the reports of one poll, each judged by the clocks after the poll.

        An acknowledgement that is passed on later than it came can only lose its 202, never gain one. If the
        record that was appended last came in time, all of them did: nearly always one check is enough.
        """
        reports, self._reports = self._reports, []
        shipments = self._shipments.copy()
        self._shipments.clear()
        wall_ms, mono = now_ms(), monotonic()
        columns = [[message for _, message in reports], *[shipment.take() for shipment in shipments]]
        dates = [_appended_ms(messages) for messages in columns]
        latest = max([date for column in dates for date in column if date is not None], default=None)
        clocks = None if self._gate.confirms(wall_ms=wall_ms, mono=mono, appended_ms=latest) else (wall_ms, mono)
        singles, *places = [
            self._offsets(messages, column, clocks) for messages, column in zip(columns, dates, strict=True)
        ]
        for (waiting, _), offset in zip(reports, singles, strict=True):
            waiting.settled(offset)
        for shipment, offsets in zip(shipments, places, strict=True):
            shipment.settled(offsets)
        received_at = shipments[-1].sent.received_at if shipments else reports[-1][0].received_at
        if (date := dates[-1][-1]) is not None:
            self._skew = (skew_ms(received_at, date, wall_ms) / 1000, mono)

    def _offsets(
        self, messages: Sequence[Message | None], dates: Sequence[int | None], clocks: tuple[int, float] | None
    ) -> list[int | None]:
        """Returns each record's offset, None for one that is not confirmed; `clocks`: None if all came in time."""
        if clocks is None:
            return [None if message is None else message.offset() for message in messages]
        wall_ms, mono = clocks
        return [
            message.offset()
            if message is not None and self._gate.confirms(wall_ms=wall_ms, mono=mono, appended_ms=date)
            else None
            for message, date in zip(messages, dates, strict=True)
        ]

    @property
    def skew_s(self) -> float:
        """Minimum lead of this clock over the brokers', by the last vote; 0 if that is long ago."""
        skew, measured = self._skew
        return skew if monotonic() - measured < SKEW_MEMORY_S else 0.0

    def poll(self) -> None:
        """Serves reports and errors; the loop also calls it while nothing is in flight."""
        try:
            self._producer.poll(0)
        finally:
            if self._reports or self._shipments:
                self._settle()
            self._when_polled()

    async def flush(self, timeout_s: float) -> int:
        """Waits until nothing is in flight; returns the number of votes that still were when time was up."""
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


def _by_partition(partitions: Sequence[int]) -> dict[int, list[int]]:
    """Returns the indexes of each partition's records, in order."""
    indexes: defaultdict[int, list[int]] = defaultdict(list)
    for index, partition in enumerate(partitions):
        indexes[partition].append(index)
    return indexes


def _appended_ms(messages: Sequence[Message | None]) -> list[int | None]:
    """Returns when the broker appended each record, None if it does not report that, or did not append it."""
    stamps = [_UNDATED if message is None else message.timestamp() for message in messages]
    return [appended_ms if kind == TIMESTAMP_LOG_APPEND_TIME else None for kind, appended_ms in stamps]


def _nothing() -> None:
    """Does nothing: the default callback after a poll."""


def too_busy() -> Problem:
    """Returns the problem of a vote that finds the queue full."""
    return busy("overloaded", "too many votes wait for the log; try again")


def unconfirmed() -> Problem:
    """Returns the problem of a vote that was enqueued but not acknowledged in time."""
    return busy(
        "unconfirmed", "the log did not confirm this vote in time; it may count; try again with the same key"
    )
