"""Tally workers as real processes: what is in the log is in exactly one block, in exactly one class."""

import random

import pytest
from tests.harness import PARTITIONS, Record, Running
from tests.waiting import PATIENCE_S, wait_until

from psephos.formats.blocks import RecordClass
from psephos.formats.votes import MARKER_KEY, encode_marker


def ballots(running: Running, voters: int, *, duplicates: float = 0.1, seed: int = 7) -> list[Record]:
    """One vote a voter for option `number % 2`, and duplicates for the other option behind them."""
    chance = random.Random(seed)
    votes = [running.vote(f"voter-{number}", number % 2) for number in range(voters)]
    again = [
        running.vote(f"voter-{number}", 1 - number % 2) for number in range(voters) if chance.random() < duplicates
    ]
    return votes + again


def test_one_worker_counts_every_voter_once_and_ends_cleanly(running: Running) -> None:
    records = ballots(running, 2_000)
    running.produce(records)
    worker = running.start_worker(0)
    running.wait_counted()
    assert running.totals() == (1_000, 1_000)
    assert running.classes()[RecordClass.DUPLICATE] == len(records) - 2_000
    assert worker.stop() == 0
    running.check_chains()


def test_poison_records_are_classed_and_stop_nothing(running: Running) -> None:
    running.produce(
        [(None, None), (b"", b""), (b"x" * 16, b"\xc1"), running.vote("ada", 9), (MARKER_KEY, b"?")], 0
    )
    running.produce([running.vote(f"voter-{number}", 0) for number in range(100)])
    running.start_worker(0)
    running.wait_counted()
    assert running.totals() == (100, 0)
    assert sum(running.classes()[code] for code in (RecordClass.MALFORMED, RecordClass.INVALID_BALLOT)) == 5


def test_votes_behind_the_close_marker_are_late(running: Running) -> None:
    running.produce([running.vote("early", 0)])
    for partition in range(PARTITIONS):
        running.produce([(MARKER_KEY, encode_marker(1))], partition)
    running.produce([running.vote("late", 0)])
    running.start_worker(0)
    running.wait_counted()
    assert running.totals() == (1, 0)
    assert running.classes()[RecordClass.LATE] == 1
    assert running.classes()[RecordClass.CONTROL] == PARTITIONS


@pytest.mark.parametrize("running", [{"revote": "last"}], indirect=True)
def test_with_revote_last_the_last_ballot_counts_across_restarts(running: Running) -> None:
    worker = running.start_worker(0)
    for round_number in range(1, 4):
        running.produce(
            [running.vote(f"voter-{n}", (n + round_number) % 2, round_number * 1000 + n) for n in range(50)]
        )
        running.wait_counted()
        worker.kill()
        worker = running.start_worker(0)
    running.produce([running.vote(f"voter-{n}", n % 2, 1000 + n) for n in range(50)])  # old nonces again
    running.wait_counted()
    assert running.totals() == (25, 25)
    assert running.classes()[RecordClass.DUPLICATE] == 50
    assert running.classes()[RecordClass.SUPERSEDED] == 100
    assert [b.state.tallies for b in running.blocks(0)[-1:]]


def test_two_workers_share_the_partitions_and_one_killed_thrice_changes_nothing(running: Running) -> None:
    records = ballots(running, 30_000)
    workers = [running.start_worker(0), running.start_worker(1)]
    wait_until(
        lambda: all(worker.log.exists() and worker.events("partition recovered") for worker in workers), "shared"
    )
    first, records = records[:1_000], records[1_000:]
    running.produce(first)
    wait_until(lambda: _writers(running) == {"0", "1"}, "both count")
    lags = []
    third = len(records) // 3
    for part in range(3):
        for worker in workers:
            worker.pause()  # so that there is a lag to kill under
        running.produce(records[part * third : (part + 1) * third if part < 2 else len(records)])
        lags.append(running.lag())
        workers[0].resume()
        workers[1].kill()
        workers[1] = running.start_worker(1)
    running.wait_counted()
    print("lag at each kill:", lags)
    assert min(lags) > 1_000
    assert running.totals() == (15_000, 15_000)
    assert running.classes()[RecordClass.DUPLICATE] == len(first) + len(records) - 30_000
    running.check_chains()


def _writers(running: Running) -> set[str]:
    """Who has put blocks into the ledger."""
    return {event["worker"] for event in running.events("block")}


def test_a_local_store_that_is_gone_or_damaged_is_rebuilt_from_the_ledger(running: Running) -> None:
    worker = running.start_worker(0)
    running.produce(ballots(running, 1_000, duplicates=0))
    running.wait_counted()
    worker.kill()
    for partition in range(PARTITIONS):
        data = running.folder / "tally-0" / f"partition-{partition}" / "data.mdb"
        if partition % 2:
            data.unlink()
        else:
            data.write_bytes(b"damaged" * 1000)
    worker = running.start_worker(0)
    running.produce(ballots(running, 1_000, duplicates=1)[1_000:])
    running.wait_counted()
    assert running.totals() == (500, 500)
    assert running.classes()[RecordClass.DUPLICATE] == 1_000
    assert worker.metrics()["psephos_tally_stores_rebuilt_total"] >= 2


def test_a_log_that_was_made_anew_under_the_ledger_stops_the_worker_with_a_reason(running: Running) -> None:
    worker = running.start_worker(0)
    running.produce(ballots(running, 100, duplicates=0))
    running.wait_counted()
    worker.stop()
    running.admin.delete_topics()
    wait_until(lambda: running.admin.describe_votes() is None, "topic deleted")
    running.admin.create_topics(PARTITIONS)
    wait_until(running.admin.describe_votes, "topic made again")
    again = running.start_worker(0)
    assert again.process.wait(PATIENCE_S) == 2
    assert "topic id" in again.log.read_text()


def test_a_log_whose_records_were_deleted_stops_its_partition_as_log_truncated(running: Running) -> None:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    from psephos.adapters.kafka import client_config, votes_topic

    worker = running.start_worker(0)
    running.produce(ballots(running, 400, duplicates=0))
    running.wait_counted()
    worker.stop()
    topic = votes_topic(running.settings.session_uid)
    ends = running.ends()
    truncate = [TopicPartition(topic, partition, ends[partition]) for partition in range(PARTITIONS)]
    admin = AdminClient(client_config(running.settings))
    for future in admin.delete_records(truncate).values():
        future.result(PATIENCE_S)
    again = running.start_worker(0)
    reasons = wait_until(
        lambda: again.reasons() if again.log.exists() and again.events("partition stopped") else None,
        "stopped",
    )
    assert "LogTruncated" in next(iter(reasons.values()))
    assert again.process.running
