"""The control topic: written by the operator or the local stack, followed by ingest, gateway and projector."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from psephos.adapters.kafka.client import LogUnavailable, client_config, consumer_config, control_topic
from psephos.formats.control import Control, decode_control, encode_control
from psephos.formats.errors import Malformed
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings

_POLL_S = 0.2
_LEADER_S = 20.0
_ANSWER_S = 1.0  # a broker that takes longer to report the topic's end counts as silent
log = get_logger()


class ControlRecord(NamedTuple):
    """A control record in the topic. appended_ms: when by the brokers' clock, ms since 1970; -1 if unknown."""

    control: Control
    appended_ms: int


def write_control(settings: Settings, control: Control) -> None:
    """Sets the session's state; returns when it is acknowledged. Raises LogUnavailable."""
    producer = Producer({**client_config(settings), "acks": "all", "enable.idempotence": True, "linger.ms": 0})
    failed: list[KafkaError] = []
    topic = control_topic(settings.session_uid)
    try:
        producer.list_topics(topic, timeout=_LEADER_S)  # else librdkafka looks up the leader half a second later
    except KafkaException as error:
        raise LogUnavailable(str(error)) from None
    producer.produce(
        topic,
        key=settings.session_uid.encode(),
        value=encode_control(control),
        on_delivery=lambda error, _: failed.append(error) if error is not None else None,
    )
    if producer.flush(20.0) or failed:
        raise LogUnavailable(f"the control topic took no record: {failed[0] if failed else 'time-out'}")


def read_control(settings: Settings, timeout_s: float = 10.0) -> Control | None:
    """The session's state at the end of the topic; None if none was ever set. Raises LogUnavailable."""
    record = read_control_record(settings, timeout_s)
    return None if record is None else record.control


def read_control_record(settings: Settings, timeout_s: float = 10.0) -> ControlRecord | None:
    """The record at the end of the topic; None if there never was one. Raises LogUnavailable."""
    consumer = Consumer({**consumer_config(settings), "fetch.wait.max.ms": 50})
    newest: ControlRecord | None = None
    topic = control_topic(settings.session_uid)
    try:
        consumer.list_topics(topic, timeout=timeout_s)  # else librdkafka looks up the leader half a second later
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        while (message := consumer.poll(timeout_s)) is not None:
            error = message.error()
            if error is None:
                known = None if newest is None else newest.control
                control = _newer(settings, known, message)
                if control is not None and control is not known:
                    newest = ControlRecord(control, message.timestamp()[1])
            elif error.code() == KafkaError._PARTITION_EOF:
                return newest
            else:
                raise LogUnavailable(f"control topic: {error.str()}")
        raise LogUnavailable("control topic: no answer")
    except KafkaException as error:
        raise LogUnavailable(str(error)) from None
    finally:
        consumer.close()


class ControlFollower:
    """Follows the topic in its own thread and hands over each newer state, within milliseconds."""

    def __init__(
        self,
        settings: Settings,
        on_change: Callable[[Control], None],
        *,
        on_current: Callable[[float], None] | None = None,
        current_every_s: float = 1.0,
    ) -> None:
        """Starts the thread. Both callbacks are called in it.

        `on_current` receives, about every `current_every_s` seconds, a time by `time.monotonic` at which
        everything in the topic had been handed over: without such calls, there may be a newer state that was not.
        """
        self._settings = settings
        self._on_change = on_change
        self._on_current = on_current
        self._every_s = current_every_s
        self._stop = threading.Event()
        self._caught_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Waits until everything in the topic has been handed over; returns whether it has."""
        return self._caught_up.wait(timeout_s)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        consumer = Consumer({**consumer_config(self._settings), "fetch.wait.max.ms": 100})
        consumer.assign([TopicPartition(control_topic(self._settings.session_uid), 0, OFFSET_BEGINNING)])
        newest: Control | None = None
        handed_over = 0  # all below this offset; NB: the end may be past the last record, if that was deleted
        asked = 0.0
        while not self._stop.is_set():
            message = consumer.poll(min(_POLL_S, self._every_s))
            if self._on_current and time.monotonic() - asked >= self._every_s and message is None:
                asked = time.monotonic()
                if self._end(consumer) == handed_over:
                    self._on_current(asked)
            if message is None:
                continue
            error = message.error()
            if error is None:
                handed_over = (message.offset() or 0) + 1
                newer = _newer(self._settings, newest, message)
                if newer is not None and newer is not newest:
                    newest = newer
                    self._on_change(newer)
            elif error.code() == KafkaError._PARTITION_EOF:
                handed_over = max(handed_over, message.offset() or 0)
                self._caught_up.set()
        consumer.close()

    def _end(self, consumer: Consumer) -> int | None:
        """The end of the topic according to its leader; None if it did not answer."""
        topic = TopicPartition(control_topic(self._settings.session_uid), 0)
        try:
            offsets = consumer.get_watermark_offsets(topic, timeout=_ANSWER_S)
        except KafkaException:
            return None
        return offsets[1] if offsets else None


def _newer(settings: Settings, newest: Control | None, message: Message) -> Control | None:
    """The newer state. A record that can't be read, has another key, or is older than `newest` changes nothing."""
    if message.key() != settings.session_uid.encode():
        return newest
    try:
        control = decode_control(message.value())
    except Malformed as error:
        log.warning("control record ignored", why=str(error))
        return newest
    return control if newest is None or control.number > newest.number else newest
