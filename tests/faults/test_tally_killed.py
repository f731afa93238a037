"""SIGKILL: at each named step of a round, at any moment, to workers that come and go."""

import signal
import time

import pytest
from tests.faults.client import Client, Traffic, ballots
from tests.faults.conftest import Drill, wait, watched
from tests.faults.oracle import aborted_tallies
from tests.faults.transactions import Another
from tests.harness import Record, Role

from psephos.roles.tally.crash import CRASH, STEPS
from psephos.roles.tally.publisher import TRANSACTION_TIMEOUT_MS

ROW = "tally killed"
BROKER_CHECK_S = 1  # how often the local brokers look for transactions that are over their time
SLACK_S = 45  # a busy machine; in all it is still less than the minute that librdkafka takes by itself


@pytest.mark.fault(ROW, "tally killed at each step of a round, under lag")
@pytest.mark.timeout(900)
def test_a_tally_killed_at_any_step_of_a_round_goes_on_with_the_same_chain(drill: Drill) -> None:
    running = drill.session()
    client = drill.client(running)
    steps = list(STEPS) * drill.pick(1, 6)
    drill.chance.shuffle(steps)
    steps.remove("after-put")
    steps.append("after-put")  # a worker that is killed while it recovers could leave nothing to recover behind it
    size = 1_000
    records = ballots(running, size * len(steps), drill.chance)
    lags = []
    for number, step in enumerate(steps):
        part = records[number * size : (number + 1) * size]
        client.send(part[: size // 2])  # nobody counts them yet: there is a lag to be killed under
        worker = running.start_worker(0, **{CRASH: f"{step}:{drill.chance.randint(1, 2)}"})
        with Traffic(client, part[size // 2 :], rate=1_000) as traffic:
            traffic.finish()  # it may die meanwhile
        wait(lambda: _dead(worker, client, records), f"dead at {step}")  # noqa: B023
        assert worker.process.exit_code == -signal.SIGKILL, worker.process.last_words()
        lags.append(running.lag())
    client.send(records[size * len(steps) :])
    drill.healed()
    running.start_worker(0)
    drill.wait_counted(running)
    behind = sum(event["blocks"] for event in running.events("partition recovered"))
    drill.conclude(
        running,
        injected=len(steps),
        path=lambda: {
            "kills under lag": sum(lag > 0 for lag in lags),
            "blocks found behind the store": behind,
            "open transactions aborted": aborted_tallies(watched(running)),
        },
    )


def _dead(worker: Role, client: Client, records: list[Record]) -> bool:
    """Whether it is; until then it gets another round, with votes that it has had already."""
    if not worker.process.running:
        return True
    client.send(records[:20])
    return False


@pytest.mark.fault(ROW, "random kills, three workers come and go")
@pytest.mark.timeout(3_600)
def test_workers_that_are_killed_at_random_moments_count_every_vote_once(drill: Drill) -> None:
    kills, voters = drill.pick(8, 100), drill.pick(20_000, 200_000)
    running = drill.session()
    client = drill.client(running)
    records = ballots(running, voters, drill.chance)
    ordinals, spare = [0, 1, 2], [3]
    workers = {ordinal: running.start_worker(ordinal) for ordinal in ordinals}
    lags: list[int] = []
    with Traffic(client, records, rate=len(records) / (kills * 3.0)) as traffic:
        for _ in range(kills):
            ordinal = drill.chance.choice(ordinals)
            worker = workers[ordinal]
            wait(lambda: worker.events("partitions assigned"), "a victim that is a member")  # noqa: B023
            _pause(drill.chance.uniform(0.0, 2.0))
            worker.kill()
            lags.append(running.lag())
            if drill.chance.random() < 0.2:  # another one comes in its place
                spare.append(ordinal)
                ordinals.remove(ordinal)
                ordinal = spare.pop(0)
                ordinals.append(ordinal)
            workers[ordinal] = running.start_worker(ordinal)
        drill.healed()
        traffic.finish()
    drill.wait_counted(running, 300)
    drill.conclude(
        running,
        injected=kills,
        path=lambda: {
            "kills under lag": sum(lag > 0 for lag in lags),
            "recoveries": len(running.events("partition recovered")),
            "workers that wrote": len({event["worker"] for event in running.events("block")}),
        },
    )


@pytest.mark.fault("broker", "write transaction left open by a killed worker")
def test_a_transaction_left_open_hides_the_tallies_of_others_for_its_time_out_at_most(drill: Drill) -> None:
    """Measured with a transaction of another producer in the same partition of the tallies topic."""
    running = drill.session()
    drill.client(running).send(ballots(running, 2_000, drill.chance))
    another = Another(running)
    dying = running.start_worker(0, **{CRASH: "in-transaction:1"})
    wait(lambda: not dying.process.running, "dead with its transaction open", every=0.01)
    began = time.monotonic()
    partition = another.open_partition()
    offset = another.publish(partition)
    hidden_at_first = not another.sees(partition, offset)
    wait(lambda: another.sees(partition, offset), "the other's tally")
    hidden_s = time.monotonic() - began
    another.close()
    drill.healed()
    running.start_worker(1)
    drill.conclude(
        running,
        injected=1,
        path=lambda: {
            "hidden at first": float(hidden_at_first),
            "hidden s": round(hidden_s, 1),
            "tallies aborted": aborted_tallies(watched(running)),
        },
    )
    assert hidden_s < TRANSACTION_TIMEOUT_MS / 1000 + BROKER_CHECK_S + SLACK_S


def _pause(seconds: float) -> None:
    """The moment of a kill is drawn, not waited for."""
    time.sleep(seconds)
