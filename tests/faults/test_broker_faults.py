"""Brokers of three are killed and paused while votes come in and are counted. Replication 3, two in sync."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from tests.faults.client import Client, Traffic, ballots
from tests.faults.conftest import Drill, wait
from tests.harness import PARTITIONS, Running
from tests.waiting import READY_S

from psephos.adapters.kafka import client_config, tally_group, votes_topic
from psephos_lab.servers import KafkaBroker

ROW = "broker"
AGAIN_S = 180  # the client gives up a coordinator that is silent after 45 s, and then begins anew
RESTARTS = 2  # of two workers in one drill
OUT_S = 8.0  # how long a broker is away: its session ends after 3 s, so that leaders move
RATE = 400


def leaders(running: Running, topic: str) -> dict[int, int]:
    """Partition to the id of its leader, as the cluster says as soon as each has one."""
    admin = AdminClient(client_config(running.settings))

    def known() -> dict[int, int]:
        try:
            partitions = admin.list_topics(topic, timeout=20).topics[topic].partitions
        except KafkaException:  # the broker that was asked is the one that went away
            return {}
        found = {number: each.leader for number, each in partitions.items()}
        return {} if -1 in found.values() else found

    each: dict[int, int] = wait(known, f"a leader for each partition of {topic}")
    return each


def broker_of(drill: Drill, node: int) -> KafkaBroker:
    return next(broker for broker in drill.cluster.kafka.brokers if broker.node.node_id == node)


@contextmanager
def counting(drill: Drill) -> Iterator[tuple[Running, Traffic]]:
    """Two workers that are started again when they end, as a cluster does, and a client that always sends."""
    running = drill.session()
    client: Client = drill.client(running)
    records = ballots(running, 100_000, drill.chance)
    with Kept(running, ordinals=2) as workers:
        client.send(records[:RATE])
        drill.wait_counted(running)
        with Traffic(client, records[RATE:], RATE, to_the_end=False) as traffic:
            yield running, traffic
        drill.wait_counted(running, AGAIN_S)
    assert len(workers.ended) <= RESTARTS, workers.ended


class Kept:
    """Workers that are started again when they end, which must be rare: a static member that was without its
    coordinator for long may be told that another one took its place.
    """

    def __init__(self, running: Running, ordinals: int) -> None:
        self.ended: list[str] = []
        self._running = running
        self._workers = [running.start_worker(ordinal) for ordinal in range(ordinals)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="kept", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stop.wait(0.5):
            for ordinal, worker in enumerate(self._workers):
                if not worker.process.running:
                    self.ended.append(worker.process.last_words())
                    self._workers[ordinal] = self._running.start_worker(ordinal)


@contextmanager
def away(drill: Drill, broker: KafkaBroker, *, paused: bool) -> Iterator[None]:
    """The broker is killed, or paused, and comes back behind the block, at least `OUT_S` seconds later."""
    until = time.monotonic() + OUT_S
    broker.pause() if paused else broker.kill()
    try:
        yield
        wait(lambda: time.monotonic() >= until, "long enough", OUT_S + 1)
    finally:
        if paused:
            broker.resume()
        else:
            broker.start()
            broker.wait_ready(READY_S)
        drill.healed()


@pytest.mark.parametrize("how", ["killed", pytest.param("paused", marks=pytest.mark.long)])
@pytest.mark.fault(ROW, "leader killed, paused")
@pytest.mark.timeout(1_200)
def test_votes_are_taken_and_counted_while_a_leader_is_away(drill: Drill, how: str) -> None:
    drill.name = f"leader of a votes partition {how}"
    with counting(drill) as (running, traffic):
        topic = votes_topic(running.settings.session_uid)
        before = leaders(running, topic)
        node = before[drill.chance.randrange(PARTITIONS)]
        sent, ends = traffic.sent, sum(running.head_ends())
        with away(drill, broker_of(drill, node), paused=how == "paused"):
            wait(lambda: node not in leaders(running, topic).values(), "other leaders")
            moved = sum(leaders(running, topic)[number] != leader for number, leader in before.items())
            wait(lambda: traffic.sent > sent + RATE, "votes acknowledged without it", AGAIN_S)
            wait(lambda: sum(running.head_ends()) > ends + RATE, "votes counted without it", AGAIN_S)
    drill.conclude(running, injected=1, path=lambda: {"leaders moved": moved})


@pytest.mark.long
@pytest.mark.fault(ROW, "coordinators of the group and of a transaction killed")
@pytest.mark.timeout(1_200)
def test_the_coordinators_of_the_group_and_of_transactions_move_and_counting_goes_on(drill: Drill) -> None:
    with counting(drill) as (running, _):
        uid = running.settings.session_uid
        moved = 0
        for topic, key in (
            ("__consumer_offsets", tally_group(uid)),
            ("__transaction_state", f"psephos.{uid}.tally.0"),
        ):
            found = leaders(running, topic)
            number = java_hash(key) % len(found)
            node = found[number]
            ends = sum(running.head_ends())
            with away(drill, broker_of(drill, node), paused=False):
                wait(lambda: leaders(running, topic)[number] != node, "another coordinator")  # noqa: B023
                moved += 1
                wait(lambda: sum(running.head_ends()) > ends + RATE, "votes counted meanwhile", AGAIN_S)  # noqa: B023
    drill.conclude(running, injected=2, path=lambda: {"coordinators moved": moved})


@pytest.mark.long
@pytest.mark.fault(ROW, "all brokers killed at once")
@pytest.mark.timeout(1_200)
def test_all_brokers_killed_at_once_lose_no_acknowledged_vote(drill: Drill) -> None:
    with counting(drill) as (running, traffic):
        sent = traffic.sent
        drill.cluster.kafka.kill()
        drill.cluster.kafka.start()
        drill.cluster.kafka.wait_ready(READY_S)
        drill.healed()
        wait(lambda: traffic.sent > sent + RATE, "votes acknowledged again", AGAIN_S)
        gap = traffic.sent - sent
    drill.conclude(running, injected=3, path=lambda: {"records acknowledged afterwards": gap})


def java_hash(text: str) -> int:
    """`Utils.abs(groupId.hashCode())`: which partition of an internal topic a key belongs to."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return (value - (1 << 32) if value >= 1 << 31 else value) & 0x7FFFFFFF
