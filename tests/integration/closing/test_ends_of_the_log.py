"""First and last offsets of the votes topic, as closing, projector and recount read them."""

from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.harness import PARTITIONS, Running
from tests.servers import Servers

from psephos.adapters.kafka import client_config, votes_topic


def test_starts_and_ends_are_the_logs_own_also_of_what_is_not_committed_and_what_was_deleted(
    backends: Servers, unique: Callable[[str], str], tmp_path: Path
) -> None:
    running = Running(backends, unique("ends"), tmp_path)  # type: ignore[arg-type]
    topic = votes_topic(running.settings.session_uid)
    assert running.admin.end_offsets(PARTITIONS) == [0, 0, 0, 0]
    running.produce([(None, b"x")] * 5, partition=1)
    assert running.admin.end_offsets(PARTITIONS) == [0, 5, 0, 0]
    assert running.admin.start_offsets(PARTITIONS) == [0, 0, 0, 0]

    producer = Producer({**client_config(running.settings), "transactional.id": unique("open")})
    producer.init_transactions(30)
    producer.begin_transaction()
    for _ in range(3):
        producer.produce(topic, b"x", partition=2)
    assert producer.flush(30) == 0
    assert running.admin.end_offsets(PARTITIONS) == [0, 5, 3, 0], "records of an open transaction are in the log"
    producer.abort_transaction(30)

    admin = AdminClient(client_config(running.settings))
    for future in admin.delete_records([TopicPartition(topic, 1, 4)]).values():
        future.result(30)
    assert running.admin.start_offsets(PARTITIONS) == [0, 4, 0, 0]
    assert running.admin.end_offsets(PARTITIONS)[1] == 5
