"""Creates, describes, seals, deletes a session's topics. Calls block; roles with a loop run them in a thread."""

import time
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from psephos.adapters.kafka import admin_process
from psephos.adapters.kafka.admin_child import (
    Config,
    CountOwned,
    CreateTopics,
    DeleteTopics,
    DescribeTopic,
    Request,
    RequestFailed,
    SetTopicConfig,
    Topic,
    perform,
)
from psephos.adapters.kafka.client import (
    LogUnavailable,
    client_config,
    connection_config,
    consumer_config,
    control_topic,
    tallies_topic,
    tally_group,
    votes_topic,
)
from psephos.adapters.kafka.topics import session_topics
from psephos.platform.settings import Settings

TIMEOUT_S = 20.0
_OWNED_S = 10.0  # a coordinator that takes longer counts as silent
_SOCKET_MS = 10_000  # after this a broker that hangs is given up; the client would wait a minute by default
_LEADERS_MOVE_S = 15.0  # about what a broker on a busy machine takes to learn which partitions it leads
_LEADER_S = 5.0  # a leader that takes longer is looked up again
_AGAIN_S = 0.2


class LogAdmin:
    """One session's topics. Methods raise LogUnavailable if no broker answers in time.

    Admin requests are made by a child process, since librdkafka may abort the process that makes them (see
    `psephos.adapters.kafka.admin_child`). `isolated=False`: by this process, for callers that do nothing else yet,
    or ask so often that they can't wait for another process; only for requests that have been tested with
    restarting brokers.
    Queries to leaders are not admin requests.
    """

    def __init__(self, settings: Settings, *, isolated: bool = True) -> None:
        self._settings = settings
        self._uid = settings.session_uid
        self._isolated = isolated
        self._refused: list[str] = []
        self._looked = False
        self._limits: Config = {"socket.timeout.ms": _SOCKET_MS}

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient({**client_config(self._settings), **self._limits, **self._errors})

    @cached_property
    def _reader(self) -> Consumer:
        """A consumer that joins no group and commits nothing. An end is the leader's, not the committed one."""
        uncommitted = {"isolation.level": "read_uncommitted"}
        return Consumer({**consumer_config(self._settings), **uncommitted, **self._limits, **self._errors})

    @property
    def _errors(self) -> dict[str, Any]:
        """NB: the callback is not a method of this object: a reference cycle would keep the client's threads."""
        return {"error_cb": partial(_hear, self._refused)}

    def require_brokers(self, timeout_s: float = 10.0) -> None:
        """Raises LogUnavailable, in one readable line, if no broker answers."""
        client = self._reader if self._isolated else self._admin
        try:
            client.list_topics(timeout=timeout_s)
        except KafkaException as error:
            client.poll(0)
            why = self._refused[-1] if self._refused else _reason(error)
            raise LogUnavailable(
                f"no Kafka broker answers at {self._settings.kafka_bootstrap} ({why}); "
                "check PSEPHOS_KAFKA_BOOTSTRAP and that the brokers run"
            ) from None

    def create_topics(self, partitions: int) -> None:
        """Creates those of the session's three topics that do not exist."""
        topics = [
            Topic(topic.name, topic.partitions, topic.replication, dict(topic.config))
            for topic in session_topics(self._uid, partitions, self._settings.kafka_replication)
        ]
        self._ask(CreateTopics(TIMEOUT_S, topics))

    def describe_votes(self, timeout_s: float = TIMEOUT_S) -> tuple[str, int] | None:
        """(topic id, partition count) of the votes topic; None if it does not exist."""
        try:
            topic_id, partitions = self._perform(DescribeTopic(timeout_s, votes_topic(self._uid)))
        except RequestFailed as error:
            if error.code == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            self.require_brokers(timeout_s)  # NB: until librdkafka looks again, it asks a dead controller
            raise LogUnavailable(str(error)) from None
        return topic_id, partitions

    def count_owned(self) -> int:
        """Number of votes partitions that the tally workers own together.

        A worker that was killed or cut off counts for another 10 s: until its session time-out has expired
        (`psephos.roles.tally.worker.SESSION_TIMEOUT_MS`). During a rebalance none is owned.

        NB: runs in a child process whatever `isolated` says: this is the request that was seen to abort.
        """
        request = CountOwned(_OWNED_S, tally_group(self._uid), votes_topic(self._uid))
        try:
            return int(admin_process.shared.ask(self._connection(), request))
        except RequestFailed as error:
            raise LogUnavailable(str(error)) from None

    def end_offsets(self, partitions: int) -> list[int]:
        """The end offset of each votes partition (the next one to be written), from the leaders."""
        return self._offsets(partitions, OFFSET_END)

    def start_offsets(self, partitions: int) -> list[int]:
        """The first offset that each votes partition still holds: 0, unless the log has lost records."""
        return self._offsets(partitions, OFFSET_BEGINNING)

    def _offsets(self, partitions: int, which: int) -> list[int]:
        """Retries while leaders move: at least once, and for some seconds if each attempt fails at once.

        NB: librdkafka asks leaders that moved with their old epoch until it refreshes its metadata, and a broker
        that has just come back does not know the new epoch for a moment.
        """
        deadline, asked = time.monotonic() + _LEADERS_MOVE_S, False
        while True:
            try:
                return self._ask_leaders(partitions, which)
            except LogUnavailable:
                if asked and time.monotonic() > deadline:
                    raise
            asked, self._looked = True, False
            self.require_brokers()
            time.sleep(_AGAIN_S)

    def _ask_leaders(self, partitions: int, which: int) -> list[int]:
        """Asks once. NB: in the protocol, a first or last offset is requested as that of a time below 0."""
        topic = votes_topic(self._uid)
        asked = [TopicPartition(topic, index, which) for index in range(partitions)]
        try:
            if not self._looked:  # else librdkafka looks up the leaders a second later
                self._reader.list_topics(topic, timeout=_LEADER_S)
                self._looked = True
            found = self._reader.offsets_for_times(asked, timeout=_LEADER_S)
        except KafkaException as error:
            raise LogUnavailable(_reason(error)) from None
        for part in found:
            if part.error is not None or part.offset < 0:
                why = part.error.str() if part.error is not None else "its leader says nothing"
                raise LogUnavailable(f"{topic}[{part.partition}]: {why}")
        return [part.offset for part in sorted(found, key=lambda part: part.partition)]

    def seal_votes(self) -> None:
        """Seals the votes topic: from now on every producer is refused, since no record fits into 0 bytes."""
        self._set_votes_config("max.message.bytes", "0")

    def unseal_votes(self) -> None:
        """Removes the seal. Only for a person who follows a runbook, and for tests that tamper."""
        self._set_votes_config("max.message.bytes", "1048588")

    def delete_topics(self) -> None:
        """Deletes the session's topics; ignores those that are already gone."""
        names = [votes_topic(self._uid), tallies_topic(self._uid), control_topic(self._uid)]
        self._ask(DeleteTopics(TIMEOUT_S, names))

    def _set_votes_config(self, name: str, value: str) -> None:
        self._ask(SetTopicConfig(TIMEOUT_S, votes_topic(self._uid), name, value))

    def _ask(self, request: Request) -> None:
        try:
            self._perform(request)
        except RequestFailed as error:
            raise LogUnavailable(str(error)) from None

    def _perform(self, request: Request) -> Any:
        """Makes a request. Raises RequestFailed; LogUnavailable if the child ends."""
        if self._isolated:
            return admin_process.shared.ask(self._connection(), request)
        return perform(self._admin, request)

    def _connection(self) -> Config:
        return {**connection_config(self._settings), **self._limits}


def read_records(
    settings: Settings, topic: str, partition: int, start: int, end: int, *, batch: int = 10_000
) -> Iterator[Any]:
    """Messages of one partition with start <= offset < end, in order, read by a consumer of its own.

    Raises LogUnavailable if the log no longer has any of them or does not answer for 30 s.
    """
    for messages in read_batches(settings, topic, partition, start, end, batch=batch):
        yield from messages


def read_batches(
    settings: Settings, topic: str, partition: int, start: int, end: int, *, batch: int = 10_000
) -> Iterator[list[Any]]:
    """Like `read_records`, in lists of at most `batch` messages."""
    consumer = Consumer(consumer_config(settings))
    try:
        consumer.list_topics(topic, timeout=TIMEOUT_S)  # else librdkafka looks up the leader half a second later
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
    """The messages that are records below `end`; without those at or after it, and without end-of-log events.

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


def _hear(refused: list[str], error: KafkaError) -> None:
    """Remembers a refused password or certificate: the call itself reports only that it took too long."""
    if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
        refused[:] = [error.str()]


def _reason(error: KafkaException) -> str:
    cause = error.args[0]
    return cause.str() if isinstance(cause, KafkaError) else str(cause)
