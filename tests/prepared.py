"""A session that was really prepared, on the shared servers: votes go into its log, honest chains beside it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Producer
from tests.controllers import close_and_seal, close_to_recounting
from tests.reference import Record, build

from psephos.adapters.dynamodb import Ledger
from psephos.adapters.dynamodb.ledger import dynamodb_client
from psephos.adapters.kafka import LogAdmin, client_config, read_records, votes_topic
from psephos.control import make_keys, prepare, read_keys, set_phase
from psephos.domain.session import parse_session
from psephos.formats.blocks import Block, encode_block
from psephos.formats.control import Phase
from psephos.formats.votes import VOTER_BYTES, encode_vote, nonce_of, partition_of, voter_key
from psephos.platform.settings import load_settings
from psephos_lab.servers import Backends

PARTITIONS = 2
LONG_AGO = "2020-01-01T00:00:00Z"


class Prepared:
    """One session with keys, topics, genesis and control record."""

    def __init__(self, backends: Backends, uid: str, folder: Path, **spec: Any) -> None:
        """`spec` replaces members of the session's spec; without closesAt it has been over for long."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        tokens = {"issuer": "https://id.example", "audience": "test"}
        document: dict[str, Any] = {
            "apiVersion": "psephos.dev/v1alpha1",
            "kind": "VotingSession",
            "metadata": {"name": "test"},
            "spec": {
                "ballot": {"type": "single", "min": 0, "options": [{"id": "ada"}, {"id": "bob"}, {"id": "cyd"}]},
                "voters": {"tokens": tokens},
                "capacity": {"partitions": PARTITIONS},
                "closeGrace": "1s",
                "closesAt": LONG_AGO,
                **spec,
            },
        }
        path = folder / "session.yaml"
        path.write_text(yaml.safe_dump({**document, "spec": {k: v for k, v in document["spec"].items() if v}}))
        self.session = parse_session(path.read_bytes())
        files = make_keys(folder / "keys")
        self.environ = {
            "PSEPHOS_SESSION_FILE": str(path),
            "PSEPHOS_SESSION_UID": uid,
            "PSEPHOS_KAFKA_BOOTSTRAP": backends.kafka_bootstrap,
            "PSEPHOS_KAFKA_REPLICATION": "1",
            "PSEPHOS_DYNAMODB_ENDPOINT": backends.dynamodb_endpoint,
            "PSEPHOS_REDIS_URL": backends.redis_url,
            "PSEPHOS_DATA_DIR": str(folder / "data"),
            "PSEPHOS_HOST": "127.0.0.1",
            **{f"PSEPHOS_{name.upper()}": str(file) for name, file in files.items()},
        }
        self.settings = load_settings(self.environ)
        self.keys = read_keys(self.settings)
        self.genesis = prepare(self.settings, self.session, self.keys)
        self.ledger = Ledger.of(self.settings)
        self.admin = LogAdmin(self.settings)

    # --- The log

    def vote(self, subject: str, ballot: bytes = b"\x00\x00", key: str = "") -> Record:
        voter = voter_key(self.keys.session, subject)
        return voter, encode_vote(ballot, 1_700_000_000_000, nonce=nonce_of(voter, key) if key else b"")

    def home(self, record: Record) -> int:
        """The partition that this record belongs into; 0 for one that belongs nowhere."""
        key = record[0]
        return partition_of(key, PARTITIONS) if key is not None and len(key) == VOTER_BYTES else 0

    def produce(self, records: Sequence[Record], partition: int | None = None) -> None:
        """Appends records, each to its own partition unless told otherwise; returns when acknowledged."""
        failed = self._append(records, partition)
        assert not failed, failed[0]

    def takes(self, record: Record, partition: int) -> bool:
        """Appends a record; whether the log took it."""
        return not self._append([record], partition)

    def _append(self, records: Sequence[Record], partition: int | None) -> list[Any]:
        failed: list[Any] = []
        producer = Producer({**client_config(self.settings), "acks": "all", "linger.ms": 5})
        for record in records:
            where = self.home(record) if partition is None else partition
            producer.produce(
                votes_topic(self.settings.session_uid),
                record[1],
                record[0],
                where,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
        assert producer.flush(30) == 0
        return failed

    def ends(self) -> tuple[int, ...]:
        return tuple(self.admin.end_offsets(PARTITIONS))

    def records(self, partition: int) -> list[Record]:
        """The raw log of a partition."""
        end = self.ends()[partition]
        topic = votes_topic(self.settings.session_uid)
        if end == 0:
            return []
        return [(m.key(), m.value()) for m in read_records(self.settings, topic, partition, 0, end)]

    # --- The ledger

    def chain(self, partition: int, cut: int = 20) -> list[Block]:
        """The honest chain over the log as it is, a block for every `cut` records."""
        records = self.records(partition)
        cuts = range(cut, len(records), cut)
        return build(
            self.session, self.genesis.session, self.genesis.hash, PARTITIONS, partition, records, list(cuts)
        )

    def write(self, partition: int, blocks: Sequence[Block]) -> None:
        for block in blocks:
            self.ledger.put_block(partition, block.base, encode_block(block))

    def write_chains(self) -> None:
        for partition in range(PARTITIONS):
            self.write(partition, self.chain(partition))

    def overwrite(self, kind: str, sort: int, payload: bytes) -> None:
        """As nobody may: replaces an item."""
        client = dynamodb_client(self.settings)
        item: Any = {**self._key(kind, sort), "b": {"B": payload}}
        client.put_item(TableName=self.settings.dynamodb_table, Item=item)

    def delete(self, kind: str, sort: int) -> None:
        """As nobody may: removes an item."""
        dynamodb_client(self.settings).delete_item(
            TableName=self.settings.dynamodb_table, Key=self._key(kind, sort)
        )

    def _key(self, kind: str, sort: int) -> Any:
        return {"pk": {"S": f"{self.genesis.session}#{kind}"}, "sk": {"N": str(sort)}}

    # --- The protocol

    def seal(self) -> tuple[int, ...]:
        """Closes and seals, without waiting for a tally."""
        return close_and_seal(self.settings)

    def finish(self) -> tuple[int, ...]:
        """Seals, writes honest chains, and ends in phase Recounting."""
        self.seal()
        self.write_chains()
        return close_to_recounting(self.settings)

    def conclude(self, phase: Phase) -> None:
        """What a controller does after a recount."""
        set_phase(self.settings, phase)

    def recount_process(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """`psephos recount` as a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "psephos.roles.recount", *arguments],
            env={**os.environ, **self.environ},
            capture_output=True,
            timeout=120,
            check=False,
        )
