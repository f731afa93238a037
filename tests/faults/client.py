"""A client that writes down what was acknowledged: on disk (fsync) before it believes it.

It appends vote records straight to the log, as ingest does, and never gives up: what was not acknowledged is sent
again, which is a duplicate at worst.
"""

import json
import os
import random
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Message, Producer
from tests.harness import PARTITIONS, Record, Running
from tests.waiting import PATIENCE_S

from psephos.adapters.kafka import client_config, votes_topic
from psephos.formats.votes import partition_of, record_digest

_BATCH = 500


class Journal:
    """Lines `[partition, offset, digest]` of acknowledged records, appended and synced by batches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")

    def write(self, entries: list[tuple[int, int, str]]) -> None:
        """Returns when the entries are on disk."""
        self._file.write(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class Client:
    """Sends records, all of them in the end; its journal says which were acknowledged where."""

    def __init__(self, running: Running, journal: Journal) -> None:
        self._topic = votes_topic(running.settings.session_uid)
        self._journal = journal
        self._producer = Producer(
            {
                **client_config(running.settings),
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 20_000,
            }
        )
        self._again: deque[Record] = deque()
        self._acknowledged: list[tuple[int, int, str]] = []
        self.failures = 0

    def send(self, records: list[Record], *, patience_s: float = PATIENCE_S) -> None:
        """Returns when every record is acknowledged and journaled; fails after `patience_s` seconds."""
        deadline = time.monotonic() + patience_s
        queue = deque(records)
        while queue or self._again:
            assert time.monotonic() < deadline, f"the log took no votes for {patience_s:.0f} s"
            while self._again:
                queue.append(self._again.popleft())
            for _ in range(min(_BATCH, len(queue))):
                self._produce(queue.popleft())
            self._producer.flush(30)
            self._journal.write(self._acknowledged)
            self._acknowledged = []

    def _produce(self, record: Record) -> None:
        key, value = record
        assert key is not None

        def delivered(error: Any, message: Message) -> None:
            if error is not None:
                self.failures += 1
                self._again.append(record)
            else:
                where = message.partition(), message.offset()
                self._acknowledged.append((where[0] or 0, where[1] or 0, record_digest(key, value).hex()))

        self._producer.produce(self._topic, value, key, partition_of(key, PARTITIONS), on_delivery=delivered)


class Traffic:
    """Sends in a thread of its own, at most `rate` records a second, while the test breaks things."""

    def __init__(self, client: Client, records: list[Record], rate: float, *, to_the_end: bool = True) -> None:
        """`to_the_end`: all records are sent, also when the block has ended before."""
        self.client = client
        self._to_the_end = to_the_end
        self.sent = 0
        self._records = records
        self._rate = rate
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None or not self._to_the_end:
            self._stop.set()
        self.finish()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def finish(self) -> None:
        """Waits until all is sent. Raises what the thread raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        began = time.monotonic()
        try:
            while self.sent < len(self._records) and not self._stop.is_set():
                due = int((time.monotonic() - began) * self._rate) + 1
                if due <= self.sent:
                    self._stop.wait(0.05)
                    continue
                chunk = self._records[self.sent : min(due, self.sent + 5_000)]
                self.client.send(chunk)
                self.sent += len(chunk)
        except BaseException as error:
            self._error = error


def ballots(running: Running, voters: int, chance: random.Random, duplicates: float = 0.1) -> list[Record]:
    """One vote a voter in random order, and duplicates, mostly for the other option, anywhere behind."""
    votes = [running.vote(f"voter-{number}", chance.randrange(2)) for number in range(voters)]
    again = [
        running.vote(f"voter-{chance.randrange(voters)}", chance.randrange(2))
        for _ in range(int(voters * duplicates))
    ]
    everything = votes + again
    chance.shuffle(everything)
    return everything
