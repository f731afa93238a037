"""A session on the shared servers with a Redis of its own, projectors and gateways as real processes.

Tests write what the tally would: blocks into the ledger, tally records into the tallies topic.
"""

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import yaml
from confluent_kafka import Producer
from tests.roles import program
from tests.waiting import READY_S, wait_until

from psephos.adapters.dynamodb import Ledger
from psephos.adapters.kafka import client_config, tallies_topic, votes_topic
from psephos.control import SessionKeys, make_keys, prepare, read_keys, set_phase
from psephos.domain.counting import CountingRules, count, outcome_json, totals
from psephos.domain.results import cells_of, encode_document, sign_result, turnout
from psephos.domain.session import Session, parse_session
from psephos.formats.blocks import (
    NOTHING,
    AcceptedVote,
    Block,
    RecordClass,
    State,
    block_hash,
    decode_block,
    encode_block,
)
from psephos.formats.control import Phase
from psephos.formats.receipts import Receipt, ReceiptSigner
from psephos.formats.tallies import TallyRecord, encode_tally, tally_key
from psephos.formats.votes import WEIGHT_ONE, encode_vote, record_digest, voter_key
from psephos.platform.settings import Settings, load_settings
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends, Redis

PARTITIONS = 2
Option = int | tuple[int, ...]  # an option's index; a tuple: in order of preference


class Answer(NamedTuple):
    """An HTTP answer: status, headers (names in lower case), body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def fetch(url: str, **headers: str) -> Answer:
    """GET; header names with underscores for hyphens."""
    request = urllib.request.Request(
        url, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return Answer(answer.status, _lower(answer.headers), answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, _lower(error.headers), error.read())


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Role:
    """`python -m psephos.<role>` as a child process."""

    def __init__(self, readside: "ReadSide", role: str, **variables: object) -> None:
        self.name = role
        self.admin_port, self.port = free_port(), free_port()
        self.log = readside.folder / f"{role}-{self.admin_port}.log"
        own = {"admin_port": self.admin_port, "gateway_port": self.port, **variables}
        env = {**readside.environ, **{f"PSEPHOS_{name.upper()}": str(value) for name, value in own.items()}}
        self.process = program(role, f"psephos.roles.{role}", self.log, env)
        self.process.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def v1(self, path: str = "") -> str:
        return f"{self.url}/v1/sessions/test{path}"

    def wait_ready(self) -> "Role":
        wait_until(self.ready, f"{self.name} is ready; its log: {self.log.read_text()[-2000:]}", READY_S)
        return self

    def ready(self) -> bool:
        assert self.process.running, self.log.read_text()[-2000:]
        try:
            return fetch(f"http://127.0.0.1:{self.admin_port}/readyz").status == 200
        except OSError:
            return False

    def metric(self, name: str) -> float:
        """A sample's value, 0 where there is none so far; `name` with its labels."""
        lines = fetch(f"http://127.0.0.1:{self.admin_port}/metrics").body.decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)

    def said(self) -> bytes:
        """Its standard error so far."""
        return self.log.read_bytes()

    def kill(self) -> None:
        self.process.kill()

    def terminate(self) -> None:
        self.process.terminate()

    def end(self) -> None:
        self.process.kill()


class ReadSide:
    """One prepared and open session."""

    def __init__(self, backends: Backends, redis: Redis, uid: str, folder: Path, spec: Mapping[str, Any]) -> None:
        self.folder, self.redis = folder, redis
        self.document = {
            "apiVersion": "psephos.dev/v1alpha1",
            "kind": "VotingSession",
            "metadata": {"name": "test"},
            "spec": {
                "title": "A test of the read side",
                "ballot": {
                    "type": "single",
                    "options": [{"id": "ada", "label": "Ada"}, {"id": "bob", "label": "Bob"}],
                },
                "voters": {"tokens": {"issuer": "i", "audience": "a"}},
                "capacity": {"partitions": PARTITIONS},
                **spec,
            },
        }
        (folder / "session.yaml").write_text(yaml.safe_dump(self.document))
        self.session: Session = parse_session(self.document)
        self.environ = {
            "PSEPHOS_SESSION_FILE": str(folder / "session.yaml"),
            "PSEPHOS_SESSION_UID": uid,
            "PSEPHOS_KAFKA_BOOTSTRAP": backends.kafka_bootstrap,
            "PSEPHOS_KAFKA_REPLICATION": "1",
            "PSEPHOS_DYNAMODB_ENDPOINT": backends.dynamodb_endpoint,
            "PSEPHOS_REDIS_URL": redis.url,
            "PSEPHOS_DATA_DIR": str(folder),
            "PSEPHOS_HOST": "127.0.0.1",
            **{f"PSEPHOS_{name.upper()}": str(path) for name, path in make_keys(folder / "keys").items()},
        }
        self.settings: Settings = load_settings(self.environ)
        self.keys: SessionKeys = read_keys(self.settings)
        self.ledger = Ledger.of(self.settings)
        self.genesis = prepare(self.settings, self.session, self.keys)
        self._previous = [self.genesis.hash] * PARTITIONS
        self._states = [State.empty(cells_of(self.session)) for _ in range(PARTITIONS)]
        self._ends, self._produced = [0] * PARTITIONS, [0] * PARTITIONS
        self._producer = Producer({**client_config(self.settings), "acks": "all", "linger.ms": 0})
        self.roles: list[Role] = []

    def start(self, role: str, **variables: object) -> Role:
        self.roles.append(Role(self, role, **variables))
        return self.roles[-1]

    def serve(self) -> Role:
        """A projector and a gateway, both ready; answers the gateway."""
        started = [self.start("projector"), self.start("gateway")]
        return [role.wait_ready() for role in started][1]

    def vote(self, subject: str, option: int) -> tuple[bytes, bytes]:
        """A record: voter and value."""
        return voter_key(self.keys.session, subject), encode_vote(
            option.to_bytes(2, "big"), time.time_ns() // 10**6
        )

    def append(
        self,
        partition: int,
        options: Sequence[Option] = (),
        others: Sequence[RecordClass] = (),
        *,
        supersedes: Mapping[int, int] | None = None,
        tell: bool = True,
    ) -> list[Receipt]:
        """One block: a vote for each of `options`, then records of other classes. The receipts of the votes.

        NB: a vote that supersedes another adds to the tallies, but takes nothing away from them.

        supersedes: by place in `options`, the offset that this vote replaces. tell: publish the tallies.
        """
        base, supersedes = self._ends[partition], supersedes or {}
        accepted, receipts, now = [], [], time.time_ns() // 10**6
        for place, option in enumerate(options):
            voter = voter_key(self.keys.session, f"{partition}/{base + place}")
            ballot = b"".join(index.to_bytes(2, "big") for index in _preferences(option))
            replaced = supersedes.get(place, NOTHING)
            accepted.append(AcceptedVote(base + place, voter, ballot, now, WEIGHT_ONE, 0, b"", replaced))
            digest = record_digest(voter, encode_vote(ballot, now))[:16]
            receipts.append(Receipt(self.genesis.hash[:8], partition, base + place, digest))
        end = base + len(options) + len(others)
        state = self._advance(partition, options, others, len(supersedes))
        block = Block(
            self.settings.session_uid, partition, self._previous[partition], base, end, b"d" * 32, b"l" * 32,
            accepted, [(base + len(options) + at, code) for at, code in enumerate(others)], state,
        )  # fmt: skip
        payload = encode_block(block)
        self.ledger.put_block(partition, base, payload)
        self._previous[partition], self._states[partition], self._ends[partition] = block_hash(payload), state, end
        if tell:
            self.tell(partition, base, now)
        return receipts

    def tell(self, partition: int, base: int = 0, received_at: int = 0) -> None:
        """Publishes a partition's tallies as they stand."""
        record = TallyRecord(partition, base, self._ends[partition], received_at, self._states[partition])
        topic = tallies_topic(self.settings.session_uid)
        self._producer.produce(topic, encode_tally(record), tally_key(partition), partition)
        assert self._producer.flush(20) == 0

    def produce(self, partition: int, records: int) -> None:
        """Records in the votes topic behind all that has been appended: something for the tally to count."""
        behind = self._ends[partition] + records
        for number in range(self._produced[partition], behind):
            voter, value = self.vote(f"{partition}/{number}", 0)
            self._producer.produce(votes_topic(self.settings.session_uid), value, voter, partition)
        assert self._producer.flush(20) == 0
        self._produced[partition] = behind

    def totals(self) -> dict[str, int]:
        """Votes by option, of all that was appended, in a session with one segment."""
        sums = [sum(column) for column in zip(*(state.tallies for state in self._states), strict=True)]
        return {option: total // WEIGHT_ONE for option, total in zip(self.session.option_ids, sums, strict=True)}

    def records(self) -> int:
        """Records appended so far: the sum of the partitions' ends."""
        return sum(self._ends)

    def receipt(self, receipt: Receipt) -> str:
        return ReceiptSigner(self.keys.session).sign([receipt])[0]

    def finish(self) -> dict[str, Any]:
        """Closes, and seals what has been appended as the final result. Answers the result document."""
        for phase in (Phase.CLOSING, Phase.RECOUNTING):
            number = set_phase(self.settings, phase).number
        document = self.seal(number + 1)
        set_phase(self.settings, Phase.FINAL)
        return document

    def seal(self, number: int) -> dict[str, Any]:
        rules = CountingRules.of(self.session)
        patterns: dict[bytes, int] = {}
        for partition in range(PARTITIONS):
            for stored in self.ledger.blocks(partition):
                for vote in decode_block(stored.payload).accepted:
                    patterns[vote.ballot] = patterns.get(vote.ballot, 0) + vote.weight
        classes = [sum(column) for column in zip(*(state.classes for state in self._states), strict=True)]
        ids = self.session.option_ids
        document = sign_result(
            {
                "session": self.session.name,
                "epoch": self.genesis.epoch,
                "version": sum(self._ends) + number,
                "state": "Final",
                "turnout": msgspec.to_builtins(turnout(classes, sum(s.voters for s in self._states))),
                "totals": {
                    id_: total // WEIGHT_ONE for id_, total in zip(ids, totals(rules, patterns), strict=True)
                },
                "segments": None,
                "outcome": outcome_json(count(rules, patterns), ids),
            },
            self.keys.signing,
        )
        self.ledger.put_once("final", encode_document(document))
        return document

    def _advance(
        self, partition: int, options: Sequence[Option], others: Sequence[RecordClass], superseded: int
    ) -> State:
        old = self._states[partition]
        tallies, classes = list(old.tallies), list(old.classes)
        for option in options:
            for index in _preferences(option)[:1]:
                tallies[index] += WEIGHT_ONE
        for code in (*[RecordClass.ACCEPTED] * len(options), *others, *[RecordClass.SUPERSEDED] * superseded):
            classes[code] += 1
        return State(tuple(tallies), tuple(classes), old.voters + len(options), NOTHING)


def _preferences(option: Option) -> tuple[int, ...]:
    return option if isinstance(option, tuple) else (option,)


@contextmanager
def running(backends: Backends, folder: Path, spec: Mapping[str, Any]) -> Iterator[ReadSide]:
    """A session with two options, unless `spec` says otherwise, and a Redis that a test may kill."""
    redis = Redis(free_port(), folder / "redis", folder)
    redis.start()
    try:
        redis.wait_ready()
        session = ReadSide(backends, redis, f"readside-{uuid.uuid4().hex[:12]}", folder, spec)
        yield session
        for role in session.roles:
            role.end()
    finally:
        redis.stop()


@pytest.fixture
def readside(backends: Backends, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ReadSide]:
    """A test's own session; parametrize with members of `spec` for another kind."""
    with running(backends, tmp_path, getattr(request, "param", {})) as session:
        yield session
