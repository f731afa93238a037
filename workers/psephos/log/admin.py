"""Topics of a session: made, described, sealed, deleted. Calls block; roles with a loop run them in a thread."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from psephos.log.client import (
    LogUnavailable,
    client_config,
    consumer_config,
    control_topic,
    tallies_topic,
    votes_topic,
)
from psephos.log.topics import session_topics
from psephos.settings import Settings

TIMEOUT_S = 20.0
_SOCKET_MS = 10_000  # a broker that stands still is asked no more after that; the client would wait a minute
_LEADERS_MOVE_S = 15.0  # about what a broker on a busy machine takes to hear what it leads
_AGAIN_S = 0.2
_T = TypeVar("_T")


class LogAdmin:
    """One session's topics. Methods raise LogUnavailable where no broker answers in time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._uid = settings.session_uid
        self._refused: list[str] = []
        config: dict[str, Any] = {
            **client_config(settings),
            "socket.timeout.ms": _SOCKET_MS,
            "error_cb": partial(_hear, self._refused),  # NB: not a method: a cycle would keep the client's threads
        }
        self._admin = AdminClient(config)

    def require_brokers(self, timeout_s: float = 10.0) -> None:
        """Raises LogUnavailable, in one readable line, if no broker answers."""
        try:
            self._admin.list_topics(timeout=timeout_s)
        except KafkaException as error:
            self._admin.poll(0)
            why = self._refused[-1] if self._refused else _reason(error)
            raise LogUnavailable(
                f"no Kafka broker answers at {self._settings.kafka_bootstrap} ({why}); "
                "check PSEPHOS_KAFKA_BOOTSTRAP and that the brokers run"
            ) from None

    def create_topics(self, partitions: int) -> None:
        """Makes the session's three topics where they are not there."""
        wanted = [
            NewTopic(topic.name, topic.partitions, topic.replication, config=dict(topic.config))
            for topic in session_topics(self._uid, partitions, self._settings.kafka_replication)
        ]
        for future in self._admin.create_topics(wanted, operation_timeout=TIMEOUT_S).values():
            _wait(future, ignore=KafkaError.TOPIC_ALREADY_EXISTS)

    def describe_votes(self, timeout_s: float = TIMEOUT_S) -> tuple[str, int] | None:
        """(topic id, partition count) of the votes topic, None if it is not there."""
        topic = votes_topic(self._uid)
        answers = self._admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)
        try:
            described = answers[topic].result(timeout=timeout_s + 5)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            self.require_brokers(timeout_s)  # NB: librdkafka asks a controller that died until it looks anew
            raise LogUnavailable(_reason(error)) from None
        return str(described.topic_id), len(described.partitions)

    def end_offsets(self, partitions: int) -> list[int]:
        """The end offset of each votes partition (the next one to be written), from the leaders."""
        return self._offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def start_offsets(self, partitions: int) -> list[int]:
        """The first offset that each votes partition still holds: 0, or the log has lost records."""
        return self._offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def _offsets(self, partitions: int, which: OffsetSpec) -> list[int]:
        """Asks again while leaders move: once at least, and for some seconds where the answer comes at once.

        NB: librdkafka asks leaders that moved by their old epoch until it looks anew, and a broker that has just
        come back does not know the new epoch for a moment.
        """
        deadline, asked = time.monotonic() + _LEADERS_MOVE_S, False
        while True:
            try:
                return self._ask_leaders(partitions, which)
            except LogUnavailable:
                if asked and time.monotonic() > deadline:
                    raise
            asked = True
            self.require_brokers()
            time.sleep(_AGAIN_S)

    def _ask_leaders(self, partitions: int, which: OffsetSpec) -> list[int]:
        topic = votes_topic(self._uid)
        ask = {TopicPartition(topic, index): which for index in range(partitions)}
        answers = self._admin.list_offsets(ask, request_timeout=TIMEOUT_S)
        return [
            int(_wait(future).offset) for _, future in sorted(answers.items(), key=lambda pair: pair[0].partition)
        ]

    def seal_votes(self) -> None:
        """From now on every producer of the votes topic is refused: no record fits into 0 bytes."""
        self._set_votes_config("max.message.bytes", "0")

    def unseal_votes(self) -> None:
        """Takes the seal away. Only for a person who follows a runbook, and for tests that tamper."""
        self._set_votes_config("max.message.bytes", "1048588")

    def delete_topics(self) -> None:
        """Deletes the session's topics; those that are gone already do not matter."""
        names = [votes_topic(self._uid), tallies_topic(self._uid), control_topic(self._uid)]
        for future in self._admin.delete_topics(names, operation_timeout=TIMEOUT_S).values():
            _wait(future, ignore=KafkaError.UNKNOWN_TOPIC_OR_PART)

    def _set_votes_config(self, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, votes_topic(self._uid), incremental_configs=[entry])
        for future in self._admin.incremental_alter_configs([resource]).values():
            _wait(future)


def read_records(
    settings: Settings, topic: str, partition: int, start: int, end: int, *, batch: int = 10_000
) -> Iterator[Any]:
    """Messages of one partition with start <= offset < end, in order, by a consumer of its own.

    Raises LogUnavailable if the log has none of them any more or does not answer for 30 s.
    """
    for messages in read_batches(settings, topic, partition, start, end, batch=batch):
        yield from messages


def read_batches(
    settings: Settings, topic: str, partition: int, start: int, end: int, *, batch: int = 10_000
) -> Iterator[list[Any]]:
    """The same, as lists of `batch` messages at most."""
    consumer = Consumer(consumer_config(settings))
    try:
        consumer.list_topics(topic, timeout=TIMEOUT_S)  # else librdkafka looks for the leader half a second later
        consumer.assign([TopicPartition(topic, partition, start)])
        at = start
        while at < end:
            messages = consumer.consume(min(batch, end - at), timeout=30.0)  # it waits for as many as asked for
            if not messages:
                raise LogUnavailable(f"{topic}[{partition}]: no record at offset {at} within 30 s")
            records = _below(messages, end, f"{topic}[{partition}] at offset {at}")
            if records:
                at = records[-1].offset() + 1
                yield records
            if messages[-1].error() is None and _offset(messages[-1]) >= end:
                return
    except KafkaException as error:
        raise LogUnavailable(f"{topic}[{partition}]: {_reason(error)}") from None
    finally:
        consumer.close()


def _below(messages: list[Any], end: int, where: str) -> list[Any]:
    """The records below `end`: without those from there on, and without the news that the log ends here.

    Raises LogUnavailable for any other error.
    """
    errors = [message.error() for message in messages]
    for error in errors:
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise LogUnavailable(f"{where}: {error.str()}")
    if errors.count(None) < len(errors):
        messages = [message for message in messages if message.error() is None]
    if messages and _offset(messages[-1]) >= end:
        messages = [message for message in messages if _offset(message) < end]
    return messages


def _offset(message: Any) -> int:
    offset = message.offset()
    assert offset is not None
    return int(offset)


def _wait(future: "Future[_T]", ignore: int | None = None, timeout_s: float = TIMEOUT_S + 5) -> Any:
    try:
        return future.result(timeout=timeout_s)
    except KafkaException as error:
        if ignore is not None and error.args[0].code() == ignore:
            return None
        raise LogUnavailable(_reason(error)) from None


def _hear(refused: list[str], error: KafkaError) -> None:
    """A wrong password, or a certificate: of them a call itself says only that it took too long."""
    if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
        refused[:] = [error.str()]


def _reason(error: KafkaException) -> str:
    cause = error.args[0]
    return cause.str() if isinstance(cause, KafkaError) else str(cause)
