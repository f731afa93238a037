"""A broker that restarts under the operator, which asks it for the owners of partitions again and again."""

from pathlib import Path

import pytest
from confluent_kafka import Consumer
from tests.waiting import wait_until

from psephos.dev.servers import Backends as Servers
from psephos.log import LogAdmin, tally_group, votes_topic
from psephos_operator.backends import Backends
from psephos_operator.settings import load_operator_settings

PARTITIONS, RESTARTS = 3, 3


@pytest.mark.timeout(180)
def test_owners_are_known_again_each_time_kafka_comes_back(tmp_path: Path) -> None:
    with Servers(tmp_path / "own", dynamodb_in_memory=True) as servers:
        given = load_operator_settings(
            {},
            image="x",
            kafka_bootstrap=servers.kafka_bootstrap,
            kafka_replication=1,
            dynamodb_endpoint=servers.dynamodb_endpoint,
            redis_url=servers.redis_url,
        )
        uid, hands = "restarted-1", Backends(given)
        LogAdmin(given.role_settings(uid)).create_topics(PARTITIONS)
        worker = Consumer({"bootstrap.servers": servers.kafka_bootstrap, "group.id": tally_group(uid)})
        worker.subscribe([votes_topic(uid)])

        def owned() -> bool:
            worker.poll(0.1)
            return hands.owned(uid) == PARTITIONS

        wait_until(owned, "the worker owns all", 30)
        for restart in range(RESTARTS):
            servers.kafka.kill()
            assert restart or hands.owned(uid) is None, "nobody says who owns what while Kafka is away"
            servers.kafka.start()
            servers.kafka.wait_ready()
            wait_until(owned, "the worker owns all again", 30)
            assert hands.owned(uid) == PARTITIONS
        worker.close()
