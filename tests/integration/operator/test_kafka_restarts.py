"""A broker that restarts under processes that ask it for everything, again and again.

The same restarts end a process that asks who owns the partitions as the operator once did: librdkafka aborts it.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from tests.integration.operator.asking import PARTITIONS, operator_settings
from tests.waiting import READY_S, wait_until

from psephos.adapters.kafka import LogAdmin, tally_group, votes_topic
from psephos.platform.child_process import ChildProcess
from psephos_lab.java import ensure_jars
from psephos_lab.ports import free_port
from psephos_lab.servers import Kafka
from psephos_operator.reconcile.backends import Backends

ROOT = Path(__file__).parents[3]
ABORTED = -6  # SIGABRT
ASSERTION = "rd_kafka_enq_once_del_source_return"
AWAY_S = 20.0  # twice the question's time-out: what has timed out is what aborts
LONG_AWAY = 5  # the first restart of so many takes that long, and each while nothing has aborted
MORE = 5  # restarts, where the fault has not shown itself by then: the product has to survive them too
quiet = logging.getLogger("quiet")
quiet.propagate = False
quiet.addHandler(logging.NullHandler())
SPINNING = 2  # processes that take all the CPU they get


@pytest.mark.timeout(600)
def test_who_asks_for_anything_survives_3_restarts_that_end_who_asked_for_owners_before(tmp_path: Path) -> None:
    restart_under_questions(tmp_path, restarts=3)


@pytest.mark.long
@pytest.mark.timeout(5_400)
def test_who_asks_for_anything_survives_50_restarts_with_load_beside_it(tmp_path: Path) -> None:
    with spinning(tmp_path):
        restart_under_questions(tmp_path, restarts=50)


def restart_under_questions(folder: Path, restarts: int) -> None:
    uid = "restarted-1"
    with one_broker(folder) as kafka:
        given = operator_settings(kafka.address)
        LogAdmin(given.role_settings(uid)).create_topics(PARTITIONS)
        with owner(kafka.address, uid) as poll, asking(folder, kafka, uid) as (product, mutant):
            hands, aborted = Backends(given), 0

            def owned() -> bool:
                poll()
                return hands.owned(uid) == PARTITIONS

            wait_until(owned, "the worker owns all", READY_S)
            wait_until(
                lambda: min(product.answers().values(), default=0), "each request has been answered", READY_S
            )
            for number in range(1, restarts + MORE + 1):
                if number > restarts and aborted:
                    break
                restart(kafka, AWAY_S if number % LONG_AWAY == 1 or not aborted else 0.0)
                wait_until(product.answering_again(), "each request is answered again", READY_S)
                wait_until(owned, "the worker owns all again", READY_S)
                if not mutant.process.running:
                    aborted += mutant.aborted()
                    mutant.process.start()
                print(f"{number} restarts: product 0 aborts, mutant {aborted}", flush=True)
            print(f"answers to the product: {product.answers()}")
            assert aborted, "these restarts do not show the fault"


def restart(kafka: Kafka, away_s: float) -> None:
    """Kills the broker and starts it again `away_s` later."""
    back_at = time.monotonic() + away_s
    kafka.kill()
    wait_until(lambda: time.monotonic() >= back_at, "time has passed", away_s + 5)
    kafka.start()
    kafka.wait_ready(READY_S)


class Asking:
    """A process that asks, and what it has written."""

    def __init__(self, kind: str, folder: Path, kafka: Kafka, uid: str) -> None:
        self.log = folder / f"{kind}.log"
        command = [sys.executable, "-m", "tests.integration.operator.asking", kind, kafka.address, uid]
        self.process = ChildProcess(kind, command, self.log, cwd=ROOT)
        self.process.start()

    def answers(self) -> dict[str, int]:
        """How often each request has been answered. Fails if the process has ended."""
        assert self.process.running, f"exit code {self.process.exit_code}: {self.process.last_words()}"
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return json.loads(lines[-1]) if lines else {}

    def answering_again(self) -> Callable[[], bool]:
        """Tells whether each request has been answered since now."""
        before = self.answers()

        def each() -> bool:
            now = self.answers()
            return all(now[name] > number for name, number in before.items())

        return each

    def aborted(self) -> bool:
        """By librdkafka, by that assertion. Fails if it ended otherwise."""
        assert self.process.exit_code == ABORTED, f"exit code {self.process.exit_code}, see {self.log}"
        assert ASSERTION in self.log.read_text()
        return True


@contextmanager
def one_broker(folder: Path) -> Iterator[Kafka]:
    kafka = Kafka([free_port()], folder / "kafka", folder / "logs", ensure_jars())
    try:
        kafka.start()
        kafka.wait_ready(READY_S)
        yield kafka
    finally:
        kafka.kill()


@contextmanager
def owner(bootstrap: str, uid: str) -> Iterator[Callable[[], object]]:
    """A member of the tally's group that owns all partitions, as long as it is polled."""
    worker = Consumer({"bootstrap.servers": bootstrap, "group.id": tally_group(uid)}, logger=quiet)
    worker.subscribe([votes_topic(uid)])
    try:
        yield lambda: worker.poll(0.1)
    finally:
        worker.close()


@contextmanager
def asking(folder: Path, kafka: Kafka, uid: str) -> Iterator[tuple[Asking, Asking]]:
    product, mutant = (Asking(kind, folder, kafka, uid) for kind in ("product", "mutant"))
    try:
        yield product, mutant
    finally:
        product.process.kill()
        mutant.process.kill()


@contextmanager
def spinning(folder: Path) -> Iterator[None]:
    command = [sys.executable, "-c", "while True: pass"]
    load = [ChildProcess(f"load {number}", command, folder / "load.log") for number in range(SPINNING)]
    try:
        for process in load:
            process.start()
        yield
    finally:
        for process in load:
            process.kill()
