"""The model check's Kafka is held against the real one: the same story, the same answers.

The story is what the argument for exactly once leans on: which offsets a group takes with which metadata, what a
second process of an ordinal does to the first, which calls of a transaction are refused, and how.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from tests.model import kafka
from tests.model.disk import Machine
from tests.model.processes import Clock, alone
from tests.waiting import wait_until

from psephos.adapters.kafka import LogAdmin, client_config, consumer_config, tallies_topic, votes_topic
from psephos.formats.blocks import State
from psephos.formats.tallies import TallyRecord, decode_tally, encode_tally, tally_key
from psephos.platform.settings import Settings, load_settings
from psephos.roles.tally.worker import _consumer_config
from psephos_lab.servers import Backends

PARTITIONS = 2
SESSION_S = 6  # the least that brokers take
TRANSACTION_S = 1


class Side(Protocol):
    """One of the two clusters."""

    settings: Settings

    def consumer(self, ordinal: str) -> Any:
        """A member of the tally's group as a worker of this ordinal makes it, not subscribed yet."""

    def producer(self, name: str, timeout_s: int) -> Any: ...

    def append(self, partition: int, value: bytes) -> None:
        """A record at the end of a votes partition."""

    def session_ends(self, ordinal: str) -> None:
        """From here on the group may give its partitions away, sooner or later."""

    def transaction_ends(self, name: str) -> None:
        """Returns when the coordinator has ended the open transaction of this producer."""

    def published(self) -> list[int]:
        """Ends of the committed tallies. Which partition moved to whom is the assignor's choice."""


class Member:
    """A consumer, and what it owns and has been handed."""

    def __init__(self, side: Side, ordinal: str) -> None:
        self.owned: set[int] = set()
        self.offsets: dict[int, list[int]] = {number: [] for number in range(PARTITIONS)}
        self.errors: list[str] = []
        self.consumer = side.consumer(ordinal)
        self.consumer.subscribe(
            [votes_topic(side.settings.session_uid)],
            on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked,
        )  # fmt: skip

    def _assigned(self, consumer: Any, assigned: list[TopicPartition]) -> None:
        for each in assigned:
            each.offset = 0
        consumer.incremental_assign(assigned)
        self.owned |= {each.partition for each in assigned}

    def _revoked(self, _consumer: Any, revoked: list[TopicPartition]) -> None:
        self.owned -= {each.partition for each in revoked}

    def poll(self) -> None:
        for message in self.consumer.consume(10, 0.1):
            if message.error() is not None:
                self.errors.append(message.error().name())
            else:
                self.offsets[message.partition()].append(message.offset())


def until(happened: Callable[[], bool], *members: Member) -> None:
    """Polls the members, as they must be, until it happened."""

    def asked() -> bool:
        for member in members:
            member.poll()
        return happened()

    wait_until(asked, "what the story waits for")


def heard(side: Side) -> list[Any]:
    """What a cluster answers, from the first record to a session that ended."""
    votes = votes_topic(side.settings.session_uid)

    def produce(producer: Any, partition: int) -> None:
        tally = encode_tally(TallyRecord(partition, 0, len(answers), 0, State.empty(2)))
        producer.produce(tallies_topic(side.settings.session_uid), tally, tally_key(partition), partition)

    def send(producer: Any, partition: int, metadata: Any) -> None:
        producer.send_offsets_to_transaction([TopicPartition(votes, partition, 1)], metadata, 30)

    def offered(producer: Any, partition: int, metadata: Any) -> str:
        """What becomes of a transaction with a tally of this partition."""
        producer.begin_transaction()
        produce(producer, partition)
        return finished(producer, partial(send, producer, partition, metadata))

    answers: list[Any] = []
    for number in range(PARTITIONS):
        for offset in range(4):
            side.append(number, b"%d" % offset)
    first = Member(side, "0")
    until(lambda: first.offsets == {0: [0, 1, 2, 3], 1: [0, 1, 2, 3]}, first)

    first.consumer.seek(TopicPartition(votes, 0, 2))
    first.consumer.pause([TopicPartition(votes, 1)])
    side.append(0, b"4")
    side.append(1, b"4")
    until(lambda: first.offsets[0][-1] == 4, first)
    answers.append(("sought, and paused", {number: list(of) for number, of in first.offsets.items()}))
    first.consumer.resume([TopicPartition(votes, 1)])
    until(lambda: first.offsets[1][-1] == 4, first)
    answers.append(("resumed", first.offsets[1]))

    producer = side.producer("0", 60)
    answers += [refused(producer.commit_transaction, 30), refused(producer.abort_transaction, 30)]
    captured = first.consumer.consumer_group_metadata()
    answers.append(("its own generation", offered(producer, 0, captured)))

    second = Member(side, "1")
    until(lambda: len(first.owned) == len(second.owned) == 1, first, second)
    [lost] = second.owned
    answers.append(("shared", first.owned | second.owned))
    answers.append(("an old generation", offered(producer, lost, captured)))
    fresh = first.consumer.consumer_group_metadata()
    answers.append(("fresh metadata for what another one owns", offered(producer, lost, fresh)))

    follower = side.producer("0", 60)
    answers.append(("a producer whose id another one took", offered(producer, lost, fresh)))
    answers.append(("that other one", offered(follower, lost, fresh)))

    replaced = second.consumer.consumer_group_metadata()
    again = Member(side, "1")
    until(lambda: "_FATAL" in second.errors and again.owned == {lost}, first, second, again)
    answers.append(("its metadata", offered(follower, lost, replaced)))
    answers.append(("its successor's", offered(follower, lost, again.consumer.consumer_group_metadata())))

    gone = first.consumer.consumer_group_metadata()
    first.consumer.close()
    answers.append(("closed, its session not over", offered(follower, lost, gone)))
    side.session_ends("0")
    until(lambda: len(again.owned) == PARTITIONS, again)
    answers.append(("its session over", offered(follower, lost, gone)))

    metadata = again.consumer.consumer_group_metadata()
    for name, late in (("slow", False), ("slower", True)):
        slow = side.producer(name, TRANSACTION_S)
        slow.begin_transaction()
        answers.append(refused(slow.begin_transaction))
        produce(slow, lost)
        if late:
            send(slow, lost, metadata)
        slow.flush(30)
        side.transaction_ends(name)
        rest = partial(send, slow, lost, metadata)
        answers.append((f"{name}: its time over", finished(slow, None if late else rest)))
    answers.append(sorted(side.published()))
    again.consumer.close()
    return answers


def finished(producer: Any, before: Callable[[], None] | None = None) -> str:
    """What becomes of an open transaction; `before`: what is still to do in it."""
    try:
        if before is not None:
            before()
        producer.flush(30)
        producer.commit_transaction(30)
    except KafkaException as error:
        if not error.args[0].fatal():
            producer.abort_transaction(30)
        return told(error)
    return "committed"


def refused(call: Callable[..., Any], *arguments: Any) -> str:
    try:
        call(*arguments)
    except KafkaException as error:
        return told(error)
    return "done"


def told(error: KafkaException) -> str:
    """An error by its name, and what it asks for."""
    cause = error.args[0]
    return f"{cause.name()}{' fatal' * cause.fatal()}{' abort' * cause.txn_requires_abort()}"


class Simulated:
    """The model check's cluster."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._committed: list[int] = []
        self._cluster = kafka.Cluster(PARTITIONS, Clock(), self._hear)

    def _hear(self, news: kafka.Published) -> None:
        self._committed.append(news.tally.end)

    def consumer(self, ordinal: str) -> Any:
        return kafka.Consumer(self._cluster, config_of(self.settings, ordinal))

    def producer(self, name: str, timeout_s: int) -> Any:
        made = kafka.Producer(self._cluster, {"transactional.id": name})
        made.init_transactions(30)
        return made

    def append(self, partition: int, value: bytes) -> None:
        self._cluster.append(partition, (b"key", value))

    def session_ends(self, ordinal: str) -> None:
        self._cluster.group.expel(f"tally-{ordinal}")

    def transaction_ends(self, name: str) -> None:
        self._cluster.expired.add(name)

    def published(self) -> list[int]:
        return self._committed


class Real:
    """A broker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        LogAdmin(settings).create_topics(PARTITIONS)

    def consumer(self, ordinal: str) -> Any:
        return Consumer({**config_of(self.settings, ordinal), "session.timeout.ms": SESSION_S * 1_000})

    def producer(self, name: str, timeout_s: int) -> Any:
        made = Producer(
            {
                **client_config(self.settings),
                "transactional.id": f"{self.settings.session_uid}.{name}",
                "transaction.timeout.ms": timeout_s * 1_000,
            }
        )
        made.init_transactions(30)
        return made

    def append(self, partition: int, value: bytes) -> None:
        producer = Producer(client_config(self.settings))
        producer.produce(votes_topic(self.settings.session_uid), value, b"key", partition)
        assert producer.flush(30) == 0

    def session_ends(self, ordinal: str) -> None:
        """It ends by itself: nobody beats for this member any more."""

    def transaction_ends(self, name: str) -> None:
        wait_until(lambda: self._ends("read_committed") == self._ends("read_uncommitted"), f"{name} ended")

    def published(self) -> list[int]:
        topic = tallies_topic(self.settings.session_uid)
        consumer = Consumer(
            {**consumer_config(self.settings), "isolation.level": "read_committed", "enable.partition.eof": True}
        )
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        found: list[int] = []
        done: set[int | None] = set()

        def read() -> bool:
            for message in consumer.consume(10, 0.1):
                if (error := message.error()) is None:
                    found.append(decode_tally(message.value()).end)
                elif error.code() == KafkaError._PARTITION_EOF:
                    done.add(message.partition())
            return len(done) == PARTITIONS

        wait_until(read, "all tallies")
        consumer.close()
        return found

    def _ends(self, isolation: str) -> list[int]:
        topic = tallies_topic(self.settings.session_uid)
        consumer = Consumer({**consumer_config(self.settings), "isolation.level": isolation})
        try:
            here = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            return [consumer.get_watermark_offsets(each, timeout=30)[1] for each in here]
        finally:
            consumer.close()


def config_of(settings: Settings, ordinal: str) -> dict[str, Any]:
    """As the worker of this ordinal configures its consumer."""
    return {**_consumer_config(settings), "group.instance.id": f"tally-{ordinal}"}


def test_the_simulated_cluster_answers_as_kafka_does(backends: Backends, unique: Callable[[str], str]) -> None:
    settings = load_settings(
        {
            "PSEPHOS_SESSION_FILE": "none",
            "PSEPHOS_SESSION_UID": unique("s")[:40],
            "PSEPHOS_KAFKA_BOOTSTRAP": backends.kafka_bootstrap,
            "PSEPHOS_KAFKA_REPLICATION": "1",
            "PSEPHOS_DYNAMODB_ENDPOINT": "none",
        }
    )
    simulated = alone(lambda: heard(Simulated(settings)), Machine("0"))
    assert simulated == heard(Real(settings))
