"""How the local stack starts, stops, breaks and comes back."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
import redis
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.guards.leftovers import BOUND, runs
from tests.waiting import PATIENCE_S, READY_S, wait_until

from psephos_lab.ports import listeners
from psephos_lab.servers import Backends, Kafka, StackError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

HOLD = Path(__file__).with_name("hold.py")
LOOPBACK_V4 = {"0100007F", "0000000000000000FFFF00000100007F"}  # as /proc/net/tcp and tcp6 show 127.0.0.1


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    """Servers that these tests may kill; every test leaves them running."""
    with Backends(tmp_path_factory.mktemp("own")) as running:
        yield running


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a stack, in a process group of its own, as a terminal would start it."""
    started = subprocess.Popen(
        [*BOUND, sys.executable, str(HOLD), str(tmp_path / "stack")],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    yield started
    started.kill()
    started.communicate()


def create_topic(kafka: Kafka, name: str, *, replicas: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.address})
    admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=replicas)])[name].result(PATIENCE_S)


def write(kafka: Kafka, topic: str, value: bytes, *, timeout: float = PATIENCE_S) -> KafkaError | None:
    """Returns None when all replicas in sync have it, else why not within ``timeout`` seconds."""
    producer = Producer(
        {
            "bootstrap.servers": kafka.address,
            "acks": "all",
            "message.timeout.ms": int(timeout * 1_000),
            "log_level": 0,
        }
    )
    outcome: list[KafkaError | None] = []
    producer.produce(topic, value, partition=0, on_delivery=lambda error, _message: outcome.append(error))
    producer.flush(2 * timeout)
    return outcome[0]


def read_all(kafka: Kafka, topic: str) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": "reader", "log_level": 0})
    try:
        _low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=PATIENCE_S)
        consumer.assign([TopicPartition(topic, 0, 0)])
        values: list[bytes | None] = []
        for message in consumer.consume(high, timeout=PATIENCE_S):
            assert message.error() is None
            values.append(message.value())
        return values
    finally:
        consumer.close()


def tables(backends: Backends) -> list[str]:
    return list(dynamodb(backends).list_tables()["TableNames"])


def dynamodb(backends: Backends) -> "DynamoDBClient":
    return boto3.client(
        "dynamodb",
        endpoint_url=backends.dynamodb_endpoint,
        region_name="local",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )


def create_table(backends: Backends, name: str) -> None:
    dynamodb(backends).create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


def gone(pids: list[int]) -> bool:
    """Whether none of the processes runs; one that waits to be reaped does not."""
    return not any(runs(pid) for pid in pids)


def test_every_server_listens_on_loopback_only(own: Backends) -> None:
    broker = own.kafka.brokers[0]
    for port in (broker.port, broker.node.controller_port, own.redis.port, own.dynamodb.port):
        addresses = {address for address, _inode in listeners(port)}
        assert addresses
        assert addresses <= LOOPBACK_V4


def test_the_virtual_machines_take_their_classes_from_the_archives_that_setup_made(own: Backends) -> None:
    for server, archive in ((own.kafka.brokers[0], "kafka.jsa"), (own.dynamodb, "dynamodb.jsa")):
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text().split()
        assert archive in {Path(path).name for path in mapped}, f"{server.name} starts slowly: run `make setup`"


def test_topics_are_not_created_by_being_named(own: Backends) -> None:
    consumer = Consumer({"bootstrap.servers": own.kafka_bootstrap, "group.id": "reader", "log_level": 0})
    with pytest.raises(KafkaException, match=r"Unknown (topic|partition)"):
        consumer.get_watermark_offsets(TopicPartition("never-created", 0), timeout=PATIENCE_S)
    consumer.close()
    assert "never-created" not in AdminClient({"bootstrap.servers": own.kafka_bootstrap}).list_topics().topics


def test_a_killed_broker_comes_back_on_its_port_with_every_acknowledged_record(own: Backends) -> None:
    create_topic(own.kafka, "survives")
    assert write(own.kafka, "survives", b"before") is None
    broker, address = own.kafka.brokers[0], own.kafka_bootstrap
    broker.kill()
    assert not broker.ready()
    broker.start()
    own.kafka.wait_ready()
    assert own.kafka_bootstrap == address
    assert write(own.kafka, "survives", b"after") is None
    assert read_all(own.kafka, "survives") == [b"before", b"after"]


def test_a_killed_redis_comes_back_empty_on_its_port(own: Backends) -> None:
    client = redis.Redis.from_url(own.redis_url)
    client.set("frame", "1")
    own.redis.kill()
    with pytest.raises(redis.ConnectionError):
        client.get("frame")
    own.redis.start()
    own.redis.wait_ready()
    assert client.get("frame") is None
    client.close()


def test_a_paused_redis_keeps_its_connections_and_answers_when_resumed(own: Backends) -> None:
    client = redis.Redis.from_url(own.redis_url, socket_timeout=2)
    client.set("frame", "1")
    own.redis.pause()
    assert not own.redis.ready()
    with pytest.raises(redis.TimeoutError):
        client.get("frame")
    own.redis.resume()
    own.redis.wait_ready()
    assert client.get("frame") == b"1"
    client.close()


def test_a_killed_dynamodb_keeps_its_tables_and_a_fresh_one_has_none(own: Backends) -> None:
    create_table(own, "ledger")
    own.dynamodb.kill()
    own.dynamodb.restart()
    assert tables(own) == ["ledger"]
    own.dynamodb.restart(fresh=True)
    assert tables(own) == []


def test_a_server_that_ended_says_why_in_one_line(own: Backends) -> None:
    broker = own.kafka.brokers[0]
    broker.stop()
    broker.config = {"log.segment.bytes": "nonsense"}
    broker.start()
    with pytest.raises(StackError) as error:
        broker.wait_ready()
    assert "Kafka broker 1 ended with exit code 1" in str(error.value)
    assert "nonsense" in str(error.value)
    assert "\n" not in str(error.value)
    broker.config = {}
    broker.restart()


def test_a_stack_keeps_its_topics_and_tables_when_started_again_in_its_folder(tmp_path: Path) -> None:
    with Backends(tmp_path) as first:
        create_topic(first.kafka, "kept")
        assert write(first.kafka, "kept", b"vote") is None
        create_table(first, "kept")
    with Backends(tmp_path) as second:
        assert read_all(second.kafka, "kept") == [b"vote"]
        assert tables(second) == ["kept"]
        assert redis.Redis.from_url(second.redis_url).dbsize() == 0


def test_three_brokers_take_votes_while_one_is_dead_and_refuse_them_with_two_dead(tmp_path: Path) -> None:
    with Backends(tmp_path, brokers=3, dynamodb_in_memory=True) as backends:
        create_topic(backends.kafka, "votes", replicas=3)
        assert write(backends.kafka, "votes", b"all three") is None
        first, second, _third = backends.kafka.brokers
        first.kill()
        assert write(backends.kafka, "votes", b"two of three") is None
        second.pause()
        assert write(backends.kafka, "votes", b"one of three", timeout=4) is not None
        second.resume()
        first.start()
        backends.kafka.wait_ready()
        assert write(backends.kafka, "votes", b"all again") is None
        values = read_all(backends.kafka, "votes")
        assert [value for value in values if value != b"one of three"] == [
            b"all three",
            b"two of three",
            b"all again",
        ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_stop_every_server(holder: subprocess.Popen[str], number: signal.Signals) -> None:
    assert holder.stdout is not None
    pids = [int(pid) for pid in holder.stdout.readline().split()]
    assert len(pids) == 3
    os.killpg(holder.pid, number)
    said, _ = holder.communicate(timeout=READY_S)
    assert said == "stopped\n"
    assert holder.returncode == 0
    assert gone(pids)


def test_a_killed_parent_leaves_no_server(holder: subprocess.Popen[str]) -> None:
    assert holder.stdout is not None
    pids = [int(pid) for pid in holder.stdout.readline().split()]
    assert len(pids) == 3
    assert not gone(pids)
    holder.kill()
    wait_until(lambda: gone(pids), "every server is gone")
