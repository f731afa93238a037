"""The log under the ledger is cut, deleted or made anew: the worker stops with a reason, it never skips."""

import os

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from tests.faults.client import ballots
from tests.faults.conftest import Drill, wait
from tests.harness import PARTITIONS, Role, Running
from tests.waiting import READY_S

from psephos.adapters.kafka import client_config, votes_topic
from psephos_lab.servers import Backends

ROW = "log"


def stopped(worker: Role) -> set[int]:
    """Partitions that this worker gave up as LogTruncated."""
    return {event["partition"] for event in worker.events("partition stopped") if event["code"] == "LogTruncated"}


def counted(drill: Drill, running: Running, voters: int = 2_000) -> Role:
    """A session whose log has been counted, and its worker."""
    drill.client(running).send(ballots(running, voters, drill.chance))
    worker = running.start_worker(0)
    drill.wait_counted(running)
    return worker


@pytest.mark.fault(ROW, "log truncated from its beginning (retention)")
def test_a_log_whose_counted_records_were_deleted_stops_each_partition_as_log_truncated(drill: Drill) -> None:
    running = drill.session()
    counted(drill, running).stop()
    ends = running.ends()
    topic = votes_topic(running.settings.session_uid)
    cut = [TopicPartition(topic, partition, ends[partition]) for partition in range(PARTITIONS)]
    admin = AdminClient(client_config(running.settings))
    for future in admin.delete_records(cut).values():
        future.result(30)
    worker = running.start_worker(0)
    wait(lambda: len(stopped(worker)) == PARTITIONS, "all partitions stopped")
    assert all("LogTruncated" in reason for reason in worker.reasons().values())
    assert worker.process.running
    drill.judge_ledger(running, injected=PARTITIONS, path=lambda: {"LogTruncated": len(stopped(worker))})


@pytest.mark.long
@pytest.mark.parametrize("state", ["stopped", "running"])
@pytest.mark.fault(ROW, "log lost its end (a leader's disk restored from an old copy)")
def test_a_log_that_lost_its_end_stops_as_log_truncated_and_nothing_that_comes_then_is_counted(
    drill: Drill, state: str
) -> None:
    """On topics without replicas: all brokers are killed, the newest half of each partition's log is cut off."""
    drill.name = f"log lost its end while the worker was {state}"
    running = drill.session(replication=1)
    worker = counted(drill, running)
    heads = running.head_ends()
    worker.pause() if state == "running" else worker.stop()
    cut_logs(drill.cluster, running.settings.session_uid)
    ends = running.ends()
    assert all(end < head for end, head in zip(ends, heads, strict=True)), f"the log ends at {ends}"
    running.produce(ballots(running, 6_000, drill.chance, duplicates=0))  # it grows past the head again
    assert all(end > head for end, head in zip(running.ends(), heads, strict=True))
    if state == "running":
        worker.resume()
    else:
        worker = running.start_worker(0)
    wait(lambda: len(stopped(worker)) == PARTITIONS, "all partitions stopped")
    assert running.head_ends() == heads
    drill.judge_ledger(running, injected=PARTITIONS, path=lambda: {"LogTruncated": len(stopped(worker))})


def cut_logs(cluster: Backends, uid: str) -> None:
    """Kills all brokers and starts them again on half of what they had."""
    cluster.kafka.kill()
    for broker in cluster.kafka.brokers:
        for segment in (broker.folder / "data").glob(f"psephos.{uid}.votes-*/*.log"):
            os.truncate(segment, segment.stat().st_size // 2)
    cluster.kafka.start()
    cluster.kafka.wait_ready(READY_S)


@pytest.mark.long
@pytest.mark.fault(ROW, "log deleted and made anew while no worker runs")
def test_a_log_that_was_made_anew_is_refused_at_the_start_by_its_topic_id(drill: Drill) -> None:
    running = drill.session()
    counted(drill, running).stop()
    heads = running.head_ends()
    make_anew(running)
    running.produce(ballots(running, 4_000, drill.chance))
    worker = running.start_worker(0)
    wait(lambda: not worker.process.running, "refused")
    refused = worker.process.exit_code == 2 and "topic id" in worker.log.read_text()
    assert running.head_ends() == heads
    drill.judge_ledger(running, injected=1, path=lambda: {"refused by topic id": float(refused)})


@pytest.mark.fault(ROW, "log deleted and made anew under a running worker")
def test_a_log_that_is_made_anew_under_a_running_worker_is_never_counted(drill: Drill) -> None:
    """The new log grows past the old head at once: offsets alone would look right."""
    running = drill.session()
    worker = counted(drill, running)
    heads = running.head_ends()
    worker.pause()
    make_anew(running)
    running.produce(ballots(running, 4_000, drill.chance, duplicates=0))
    assert min(running.ends()) > max(heads)
    worker.resume()
    wait(lambda: len(stopped(worker)) == PARTITIONS or not worker.process.running, "stopped with a reason", 120)
    assert running.head_ends() == heads, "records of another log were counted"
    ended = worker.process.exit_code == 2 and "topic id" in worker.log.read_text()
    drill.judge_ledger(
        running, injected=1, path=lambda: {"LogTruncated or refused": float(ended) or len(stopped(worker))}
    )


def make_anew(running: Running) -> None:
    running.admin.delete_topics()
    wait(lambda: running.admin.describe_votes() is None, "topic deleted")
    running.admin.create_topics(PARTITIONS)
    wait(running.admin.describe_votes, "topic made again")
