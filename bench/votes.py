"""A session of the benchmarks on real servers, and its votes in the log: produced once, read by contenders."""

import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Producer

from bench.running import Progress
from psephos.adapters.kafka import LogAdmin, client_config, votes_topic
from psephos.control import make_keys, prepare, read_keys
from psephos.domain.session import parse_session
from psephos.formats.votes import VOTER_BYTES, WEIGHT_ONE, encode_vote, partition_of
from psephos.platform.clock import now_ms
from psephos.platform.settings import load_settings
from psephos_lab.servers import Backends

OPTIONS = 10
DUPLICATES = 0.1  # of the records: votes of voters who have voted
_A_MILLISECOND = 100  # votes: as 100,000 a second would arrive
_WAITS = 50_000  # records between two looks at delivery reports
Record = tuple[int, bytes, bytes]  # partition, key, value


class Session:
    """A prepared session with its topics. `ledger` names a table: another one is another ledger of one log."""

    def __init__(self, backends: Backends, folder: Path, *, partitions: int = 4, **voters: Any) -> None:
        self.backends = backends
        self.partitions = partitions
        self.votes = 0
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        tokens = {"issuer": "https://id.example", "audience": "bench"}
        spec = {
            "ballot": {"type": "single", "options": [{"id": f"option-{n}"} for n in range(OPTIONS)]},
            "voters": {"tokens": tokens, **voters},
            "capacity": {"partitions": partitions},
            "recount": {"parallelism": 1},
        }
        document = {"apiVersion": "psephos.dev/v1alpha1", "kind": "VotingSession", "metadata": {"name": "bench"}}
        path = folder / "session.yaml"
        path.write_text(yaml.safe_dump({**document, "spec": spec}))
        self.session = parse_session(path.read_bytes())
        files = make_keys(folder / "keys")
        self._environ = {
            "PSEPHOS_SESSION_FILE": str(path),
            "PSEPHOS_SESSION_UID": f"bench-{secrets.token_hex(4)}",
            "PSEPHOS_KAFKA_BOOTSTRAP": backends.kafka_bootstrap,
            "PSEPHOS_KAFKA_REPLICATION": "1",
            "PSEPHOS_DYNAMODB_ENDPOINT": backends.dynamodb_endpoint,
            "PSEPHOS_REDIS_URL": backends.redis_url,
            "PSEPHOS_HOST": "127.0.0.1",
            **{f"PSEPHOS_{name.upper()}": str(file) for name, file in files.items()},
        }
        self.settings = load_settings(self.environ())
        prepare(self.settings, self.session, read_keys(self.settings))

    @property
    def topic(self) -> str:
        return votes_topic(self.settings.session_uid)

    def environ(self, ledger: str = "psephos") -> dict[str, str]:
        """What a role needs to run on this table, with stores of its own."""
        return {
            **self._environ,
            "PSEPHOS_DYNAMODB_TABLE": ledger,
            "PSEPHOS_DATA_DIR": str(self._folder / f"data-{ledger}"),
        }

    def fresh_ledger(self) -> dict[str, str]:
        """The environment of an empty ledger of one log."""
        environ = self.environ(f"ledger-{secrets.token_hex(4)}")
        settings = load_settings(environ)
        prepare(settings, self.session, read_keys(settings), make_topics=False)
        return environ

    def ends(self) -> list[int]:
        return LogAdmin(self.settings).end_offsets(self.partitions)

    def produce(self, votes: int, *, seed: int = 1, nonces: bool = False, duplicates: float = DUPLICATES) -> None:
        """Appends so many votes, a tenth of them duplicates; returns when all are acknowledged."""
        config = {
            "acks": "all",
            "linger.ms": 20,
            "queue.buffering.max.messages": 2_000_000,
            "batch.num.messages": 2_000,
        }
        producer = Producer({**client_config(self.settings), **config})
        topic, produce, progress = self.topic, producer.produce, Progress("votes in the log", votes)
        made = records(votes, self.partitions, seed, nonces=nonces, duplicates=duplicates)
        for number, (partition, key, value) in enumerate(made):
            if number % _WAITS == 0:
                producer.flush(60)
                progress.at(number)
            produce(topic, value, key, partition)
        if producer.flush(60):
            raise TimeoutError("the log did not acknowledge all votes within a minute")
        self.votes += votes


def records(
    votes: int, partitions: int, seed: int, *, nonces: bool = False, duplicates: float = DUPLICATES
) -> Iterator[Record]:
    """Votes by random voters, the same ones for the same seed; `nonces`: each with an Idempotency-Key's."""
    chance, began = random.Random(seed), now_ms()  # noqa: S311
    ballots = [option.to_bytes(2, "big") for option in range(OPTIONS) for _ in range(OPTIONS - option)]
    voters = bytearray()  # one behind the other: a list would take gigabytes for many
    for number in range(votes):
        if voters and chance.random() < duplicates:
            at = int(chance.random() * (len(voters) // VOTER_BYTES)) * VOTER_BYTES
            voter = bytes(voters[at : at + VOTER_BYTES])
        else:
            voter = chance.randbytes(VOTER_BYTES)
            voters += voter
        nonce = os.urandom(16) if nonces else b""
        value = encode_vote(chance.choice(ballots), began + number // _A_MILLISECOND, WEIGHT_ONE, 0, nonce)
        yield partition_of(voter, partitions), voter, value
