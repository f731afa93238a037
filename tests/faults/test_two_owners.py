"""Two owners of one partition at once: a worker that was stopped past its session time-out wakes up."""

import pytest
from confluent_kafka import Consumer
from tests.faults.client import ballots
from tests.faults.conftest import Drill, wait, watched
from tests.faults.oracle import aborted_tallies
from tests.faults.transactions import committed_offsets
from tests.harness import PARTITIONS, Role, Running

from psephos.adapters.kafka import client_config, votes_topic
from psephos.formats.blocks import decode_block
from psephos.formats.tallies import TallyRecord
from psephos.platform.settings import load_settings
from psephos.roles.tally.crash import STOP
from psephos.roles.tally.publisher import Publisher

ROW = "two owners"
TAKEN_OVER_S = 120  # the session time-out is 10 s


def _stopped_at(worker: Role) -> bool:
    """Whether the process stands still (state T)."""
    with open(f"/proc/{worker.process.pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"


def _stale(drill: Drill, running: Running, step: str) -> Role:
    """A worker that stood still at a step while another one took over and counted more."""
    client = drill.client(running)
    records = ballots(running, 4_000, drill.chance)
    client.send(records[:1_000])
    stale = running.start_worker(0, **{STOP: f"{step}:1"})
    wait(lambda: _stopped_at(stale), f"stopped at {step}")
    client.send(records[1_000:])  # the other one cuts its blocks elsewhere
    running.start_worker(1)
    drill.wait_counted(running, TAKEN_OVER_S)
    client.send(records[: len(records) // 2])
    drill.healed()
    stale.resume()
    return stale


@pytest.mark.fault(ROW, "stale owner resumed with a decided block")
def test_a_stale_owner_that_wakes_up_before_its_put_adopts_the_others_blocks(drill: Drill) -> None:
    running = drill.session()
    stale = _stale(drill, running, "decided")
    adopted = "adopted another owner's block"
    wait(lambda: stale.events(adopted) or not stale.process.running, "adopted or ended")
    drill.conclude(
        running,
        injected=1,
        path=lambda: {"foreign blocks adopted": len(stale.events(adopted))},
    )


@pytest.mark.long
@pytest.mark.fault(ROW, "stale owner resumed with an old round to publish")
def test_an_old_round_is_not_published_over_the_new_owners_tallies(drill: Drill) -> None:
    """Its group metadata is of the time when it fetched: the group's coordinator refuses it."""
    running = drill.session()
    stale = _stale(drill, running, "publishing")
    refused = "transaction aborted"
    wait(lambda: stale.events(refused) or not stale.process.running, "its transaction refused")
    drill.conclude(
        running,
        injected=1,
        path=lambda: {"transactions refused": len(stale.events(refused)) or float(_fenced(stale))},
    )
    wait(lambda: committed_offsets(running, PARTITIONS) == running.ends(), "the group's offsets at the end")


@pytest.mark.long
@pytest.mark.fault("broker", "transaction time-out: owner resumed inside its transaction")
def test_a_transaction_that_outlived_its_time_out_is_aborted_and_its_tallies_stay_unseen(drill: Drill) -> None:
    running = drill.session()
    stale = _stale(drill, running, "in-transaction")
    refused = "transaction aborted"
    wait(lambda: stale.events(refused) or not stale.process.running, "its commit refused")
    drill.conclude(
        running,
        injected=1,
        path=lambda: {
            "commits refused": len(stale.events(refused)) or float(_fenced(stale)),
            "tallies aborted": aborted_tallies(watched(running)),
        },
    )


def _fenced(worker: Role) -> bool:
    return worker.process.exit_code == 1 and "psephos tally: " in worker.log.read_text()


@pytest.mark.long
@pytest.mark.fault(ROW, "another process with the same ordinal")
def test_a_second_process_with_the_same_ordinal_fences_the_first(drill: Drill) -> None:
    running = drill.session()
    client = drill.client(running)
    records = ballots(running, 2_000, drill.chance)
    client.send(records[:1_000])
    first = running.start_worker(0)
    drill.wait_counted(running)
    second = running.start_worker(0, PSEPHOS_DATA_DIR=str(running.folder / "elsewhere"))
    drill.healed()
    client.send(records[1_000:])
    wait(lambda: not first.process.running, "the first one fenced")
    drill.conclude(
        running,
        injected=1,
        path=lambda: {
            "fenced": float(_fenced(first)),
            "blocks recovered by the second": sum(
                event["blocks"] for event in second.events("partition recovered")
            ),
        },
    )


@pytest.mark.long
@pytest.mark.fault(ROW, "fresh group metadata with an old round")
def test_metadata_fetched_later_would_let_an_old_round_through_so_it_is_captured_at_fetch(drill: Drill) -> None:
    """Why the worker keeps the metadata of its fetch: the coordinator accepts fresh metadata of a member even for
    partitions that another member owns.

    NB: whether the refused tally stands in the log, aborted, is chance: it may be dropped before it is sent.
    """
    running = drill.session()
    client = drill.client(running)
    client.send(ballots(running, 1_000, drill.chance))
    worker = running.start_worker(0)
    drill.wait_counted(running)
    drill.wait_published(running)
    worker.stop()
    member = _member(running, "a")
    captured = member.consumer_group_metadata()
    other = _member(running, "b", beside=member)
    fresh = member.consumer_group_metadata()
    owned = {each.partition for each in other.assignment()}
    partition = min(owned)
    head = decode_block(running.ledger.head(partition).payload)  # type: ignore[union-attr]
    old = [TallyRecord(partition, head.base, head.end, 0, head.state)]
    publisher = Publisher(load_settings({**running.environ, "PSEPHOS_WORKER": "stale"}))
    with_captured = publisher.publish(old, captured)
    with_fresh = publisher.publish(old, fresh)
    for each in (member, other):
        each.close()
    drill.healed()
    running.start_worker(1)
    drill.conclude(
        running,
        injected=1,
        path=lambda: {
            "refused with captured metadata": float(not with_captured),
            "let through with fresh metadata": float(with_fresh),
        },
    )


def _member(running: Running, name: str, beside: Consumer | None = None) -> Consumer:
    """A member of the tally's group that owns partitions; `beside` is polled until it gave some up."""
    settings = running.settings
    consumer = Consumer(
        {
            **client_config(settings),
            "group.id": f"psephos.{settings.session_uid}.tally",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([votes_topic(settings.session_uid)])

    def owns() -> bool:
        for each in (consumer, beside):
            if each is not None:
                each.poll(0.1)
        return bool(consumer.assignment())

    wait(owns, f"member {name} owns partitions", 60)
    return consumer
