"""A session on real servers, with genesis and topics, and roles as real processes: kill, pause, ask, read."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Producer
from tests.roles import program
from tests.waiting import PATIENCE_S, wait_until

from psephos.adapters.dynamodb import Ledger
from psephos.adapters.kafka import LogAdmin, client_config, votes_topic, write_control
from psephos.domain.genesis import Genesis, encode_genesis, key_fingerprint, lot_commitment
from psephos.domain.session import Session, parse_session, rules_hash
from psephos.formats.blocks import Block, block_hash, decode_block
from psephos.formats.control import Control, Phase
from psephos.formats.receipts import receipt_key
from psephos.formats.votes import VOTER_BYTES, encode_vote, partition_of, voter_key
from psephos.platform.settings import Settings, load_settings
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

KEY = b"k" * 32
TOKEN_KEY = b"t" * 32
PARTITIONS = 4
Record = tuple[bytes | None, bytes | None]


class Running:
    """One prepared session: produce records, start workers, read its ledger."""

    def __init__(
        self,
        backends: Backends,
        name: str,
        folder: Path,
        *,
        replication: int = 1,
        dynamodb_endpoint: str | None = None,
        grace: str = "10s",
        **voters: Any,
    ) -> None:
        """`dynamodb_endpoint`: what roles use instead of the server itself, a proxy for example."""
        self.folder = folder
        (folder / "session-key").write_bytes(KEY)
        (folder / "token-key").write_bytes(TOKEN_KEY)
        self.document = {
            "apiVersion": "psephos.dev/v1alpha1",
            "kind": "VotingSession",
            "metadata": {"name": "test"},
            "spec": {
                "ballot": {
                    "type": "single",
                    "options": [{"id": "ada", "label": "A"}, {"id": "bob", "label": "B"}],
                },
                "voters": {"tokens": {"issuer": "i", "audience": "a"}, **voters},
                "capacity": {"partitions": PARTITIONS},
                "closeGrace": grace,
            },
        }
        (folder / "session.yaml").write_text(yaml.safe_dump(self.document))
        self.session: Session = parse_session(self.document)
        self.environ = {
            "PSEPHOS_SESSION_FILE": str(folder / "session.yaml"),
            "PSEPHOS_SESSION_UID": name,
            "PSEPHOS_SESSION_KEY_FILE": str(folder / "session-key"),
            "PSEPHOS_TOKEN_KEY_FILE": str(folder / "token-key"),
            "PSEPHOS_KAFKA_BOOTSTRAP": backends.kafka_bootstrap,
            "PSEPHOS_KAFKA_REPLICATION": str(replication),
            "PSEPHOS_DYNAMODB_ENDPOINT": backends.dynamodb_endpoint,
            "PSEPHOS_REDIS_URL": backends.redis_url,
            "PSEPHOS_DATA_DIR": str(folder),
            "PSEPHOS_HOST": "127.0.0.1",
        }
        self.settings: Settings = load_settings(self.environ)
        if dynamodb_endpoint is not None:
            self.environ["PSEPHOS_DYNAMODB_ENDPOINT"] = dynamodb_endpoint
        self.ledger = Ledger.of(self.settings)
        self.admin = LogAdmin(self.settings)
        self.genesis = self._prepare()
        self.workers: list[Role] = []

    def _prepare(self) -> Genesis:
        self.ledger.create_table()
        self.admin.create_topics(PARTITIONS)
        topic_id, partitions = wait_until(self.admin.describe_votes, "votes topic")
        genesis = Genesis(
            session=self.settings.session_uid, name=self.session.name, partitions=partitions, topic_id=topic_id,
            key_fingerprint=key_fingerprint(KEY), rules_hash=rules_hash(self.session).hex(), public_key="",
            receipt_key=receipt_key(KEY), lot_commitment=lot_commitment(b""),
        )  # fmt: skip
        self.ledger.put_once("genesis", encode_genesis(genesis))
        return genesis

    def open(self, closes_at: int | None = None, number: int = 1) -> None:
        """Writes a control record of an open session; `closes_at`: milliseconds since 1970."""
        grace_ms = int(self.session.spec.close_grace.total_seconds() * 1000)
        control = Control(phase=Phase.OPEN, number=number, closes_at=closes_at, grace_ms=grace_ms)
        write_control(self.settings, control)

    def vote(self, subject: str, option: int, nonce: int = 0) -> Record:
        value = encode_vote(option.to_bytes(2, "big"), 1_000, nonce=nonce.to_bytes(16, "big") if nonce else b"")
        return voter_key(KEY, subject), value

    def produce(self, records: Sequence[Record], partition: int | None = None) -> None:
        """Appends records, each to its voter's partition unless told otherwise; returns when acknowledged."""
        producer = Producer(
            {**client_config(self.settings), "acks": "all", "enable.idempotence": True,
             "queue.buffering.max.messages": 1_000_000, "linger.ms": 5}
        )  # fmt: skip
        for key, value in records:
            number = partition
            if number is None:
                number = partition_of(key, PARTITIONS) if key is not None and len(key) == VOTER_BYTES else 0
            producer.produce(votes_topic(self.settings.session_uid), value, key, number)
        assert producer.flush(60) == 0

    def ends(self) -> list[int]:
        return self.admin.end_offsets(PARTITIONS)

    def head_ends(self) -> list[int]:
        heads = [self.ledger.head(partition) for partition in range(PARTITIONS)]
        return [0 if head is None else decode_block(head.payload).end for head in heads]

    def lag(self) -> int:
        return sum(self.ends()) - sum(self.head_ends())

    def wait_counted(self, timeout: float = PATIENCE_S) -> None:
        ends = self.ends()
        wait_until(lambda: self.head_ends() == ends, f"heads at {ends}", timeout)

    def blocks(self, partition: int) -> list[Block]:
        return [decode_block(stored.payload) for stored in self.ledger.blocks(partition)]

    def check_chains(self) -> None:
        """Each partition's chain starts at 0 with the genesis: no gap, overlap or fork."""
        for partition in range(PARTITIONS):
            previous, end = self.genesis.hash, 0
            for stored in self.ledger.blocks(partition):
                block = decode_block(stored.payload)
                assert (block.base, block.previous, stored.base) == (end, previous, end)
                assert block.state.records == block.end
                previous, end = block_hash(stored.payload), block.end

    def totals(self) -> tuple[int, ...]:
        """Whole votes by option, over the heads."""
        heads = [self.ledger.head(partition) for partition in range(PARTITIONS)]
        states = [decode_block(head.payload).state for head in heads if head is not None]
        return tuple(sum(column) // 1_000_000 for column in zip(*(state.tallies for state in states), strict=True))

    def classes(self) -> list[int]:
        heads = [self.ledger.head(partition) for partition in range(PARTITIONS)]
        states = [decode_block(head.payload).state for head in heads if head is not None]
        return [sum(column) for column in zip(*(state.classes for state in states), strict=True)]

    def start(self, role: str, name: str = "0", **environ: str) -> "Role":
        """Any role; ended with the workers."""
        process = Role(role, self, name, **environ)
        self.workers.append(process)
        return process

    def start_worker(self, ordinal: int, *, wrapper: Sequence[str] = (), **environ: str) -> "Role":
        """A tally worker; `environ` is added to its variables, `wrapper` runs the command that follows it."""
        worker = Role("tally", self, str(ordinal), wrapper, **environ)
        self.workers.append(worker)
        return worker

    def events(self, name: str, role: str = "tally") -> list[dict[str, Any]]:
        """Log lines of all processes of a role that ever ran, also of those that were killed."""
        return [event for log in sorted(self.folder.glob(f"{role}-*.log")) for event in _events(log, name)]

    def stop_workers(self) -> None:
        for worker in self.workers:
            worker.end()


class Role:
    """`python -m psephos.<role>` as a child process that never outlives us."""

    def __init__(
        self, role: str, running: Running, ordinal: str, wrapper: Sequence[str] = (), **environ: str
    ) -> None:
        self.admin_port = free_port()
        self.log = running.folder / f"{role}-{ordinal}.log"
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        env = {
            **running.environ,
            "PSEPHOS_WORKER": ordinal,
            "PSEPHOS_ADMIN_PORT": str(self.admin_port),
            "PYTHONFAULTHANDLER": "1",  # `explain` asks for stacks
            **environ,
        }
        self.process = program(f"{role}-{ordinal}", f"psephos.roles.{role}", self.log, env, wrapper=wrapper)
        self.process.start()

    def metrics(self) -> dict[str, float]:
        """Samples by name and labels as they stand in /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return {
            name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")
        }

    def metric(self, name: str) -> float:
        """One sample, 0 where it is not there yet or nothing answers."""
        try:
            return self.metrics().get(name, 0.0)
        except OSError:
            return 0.0

    def alive(self) -> bool:
        """What /livez says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/livez", timeout=30) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def reasons(self) -> dict[str, str]:
        """Why /readyz says no; empty if it says yes."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=30) as answer:
                return dict(json.load(answer)["reasons"])
        except urllib.error.HTTPError as error:
            return dict(json.load(error)["reasons"])
        except OSError:
            return {"start": "nothing listens yet"}

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of this process."""
        return list(_events(self.log, name, self._log_start))

    def kill(self) -> None:
        self.process.kill()

    def explain(self) -> None:
        """Ends a running process so that its log says where each thread stood, after its metrics."""
        if not self.process.running or self.process.pid is None:
            return
        try:
            figures = json.dumps({"event": "metrics", **self.metrics()}) + "\n"
        except OSError as error:
            figures = f"no metrics: {error}\n"
        with self.log.open("a") as log:
            log.write(figures)
        os.kill(self.process.pid, signal.SIGABRT)
        self.process.wait(5)

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.process.resume()

    def stop(self, timeout: float = PATIENCE_S) -> int | None:
        """SIGTERM; the exit code. SIGKILL after the time-out."""
        return self.process.stop(timeout)

    def end(self) -> None:
        self.process.kill()


def _events(log: Path, name: str, start: int = 0) -> Iterator[dict[str, Any]]:
    if not log.exists():
        return
    with log.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            if line.startswith(b"{") and line.endswith(b"}\n"):
                event = json.loads(line)
                if event["event"] == name:
                    yield event
