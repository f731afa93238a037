"""A prepared session and its ingest as a real process."""

import asyncio
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from confluent_kafka import Message
from tests.roles import program
from tests.waiting import PATIENCE_S, wait_until

from psephos.adapters.kafka import LogAdmin, LogUnavailable, read_control, votes_topic, write_control
from psephos.adapters.kafka.admin import read_records
from psephos.client.tokens import TokenTemplate, signer
from psephos.control import make_keys, prepare, read_keys
from psephos.domain.session import Session, parse_session
from psephos.formats.control import Control, Phase
from psephos.formats.receipts import Receipt, ReceiptVerifier
from psephos.formats.votes import Vote, decode_vote, record_digest
from psephos.platform.settings import Settings, load_settings
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

PARTITIONS = 4
TOKEN_KEY = b"t" * 32
CREDENTIAL = "gateway-credential-0123456789"


class Poll:
    """One prepared session: tokens, its log, its control topic, and processes that take its votes."""

    def __init__(self, backends: Backends, folder: Path, spec: dict[str, Any]) -> None:
        self.folder = folder
        uid = f"ingest-{uuid.uuid4().hex}"
        self.document = {
            "apiVersion": "psephos.dev/v1alpha1",
            "kind": "VotingSession",
            "metadata": {"name": "final"},
            "spec": {
                "ballot": {
                    "type": "approval",
                    "options": [{"id": "ada"}, {"id": "bob"}, {"id": "cyd"}],
                    "max": 2,
                },
                "voters": {"tokens": {"issuer": "https://id.example", "audience": "final"}},
                "capacity": {"partitions": PARTITIONS},
                **spec,
            },
        }
        self.session: Session = parse_session(self.document)
        (folder / "session.yaml").write_text(yaml.safe_dump(self.document))
        (folder / "token-key").write_bytes(TOKEN_KEY)
        (folder / "credential").write_text(CREDENTIAL)
        keys = make_keys(folder / "keys")
        self.environ = {
            "PSEPHOS_SESSION_FILE": str(folder / "session.yaml"),
            "PSEPHOS_SESSION_UID": uid,
            "PSEPHOS_TOKEN_KEY_FILE": str(folder / "token-key"),
            "PSEPHOS_BATCH_CREDENTIAL_FILE": str(folder / "credential"),
            "PSEPHOS_KAFKA_BOOTSTRAP": backends.kafka_bootstrap,
            "PSEPHOS_KAFKA_REPLICATION": "1",
            "PSEPHOS_DYNAMODB_ENDPOINT": backends.dynamodb_endpoint,
            "PSEPHOS_HOST": "127.0.0.1",
            **{f"PSEPHOS_{name.upper()}": str(path) for name, path in keys.items()},
        }
        self.settings: Settings = load_settings(self.environ)
        self.genesis = prepare(self.settings, self.session, read_keys(self.settings))
        self._sign = signer("HS256", TOKEN_KEY)
        tokens = self.session.spec.voters.tokens
        self._template = TokenTemplate.of(tokens) if tokens else TokenTemplate("https://id.example", "final")

    # what voters hold

    def token(self, subject: str, **changes: Any) -> str:
        """A good token, but for `changes` to its claims; None takes a claim away."""
        claims = {**self._template.claims(subject, int(time.time())), **changes}
        return self._sign({name: value for name, value in claims.items() if value is not None})

    # what the log holds

    def log(self) -> list[Message]:
        """Every record of the votes topic."""
        ends = LogAdmin(self.settings).end_offsets(PARTITIONS)
        topic = votes_topic(self.settings.session_uid)
        return [
            message
            for partition, end in enumerate(ends)
            for message in read_records(self.settings, topic, partition, 0, end)
        ]

    def log_at(self, answer: dict[str, Any]) -> Message:
        """The record where an answer says that it is."""
        topic, partition, offset = votes_topic(self.settings.session_uid), answer["partition"], answer["offset"]
        message: Message
        [message] = read_records(self.settings, topic, partition, offset, offset + 1)
        return message

    def records(self) -> int:
        return sum(LogAdmin(self.settings).end_offsets(PARTITIONS))

    def receipt(self, answer: dict[str, Any]) -> Receipt:
        return ReceiptVerifier(self.genesis.receipt_key).decode(answer["receipt"])

    # what the operator does

    def control(self, phase: Phase = Phase.OPEN, **changes: Any) -> Control:
        """Writes a new state of the session."""
        known = read_control(self.settings)
        assert known is not None
        values = {"opens_at": known.opens_at, "closes_at": known.closes_at, "grace_ms": known.grace_ms, **changes}
        control = Control(phase=phase, number=known.number + 1, **values)
        write_control(self.settings, control)
        return control


class Ingest:
    """`python -m psephos.roles.ingest` as a child process."""

    def __init__(self, poll: Poll, **variables: Any) -> None:
        self.poll = poll
        self.port, self.admin_port = free_port(), free_port(row=int(variables.get("PSEPHOS_INGEST_PROCESSES", 1)))
        self.log = poll.folder / f"ingest-{self.port}.log"
        self.url = f"http://127.0.0.1:{self.port}/v1/sessions/final/votes"
        own = {"PSEPHOS_INGEST_PORT": str(self.port), "PSEPHOS_ADMIN_PORT": str(self.admin_port)}
        changes = {name: str(value) for name, value in variables.items()}
        self.process = program("ingest", "psephos.roles.ingest", self.log, {**poll.environ, **own, **changes})
        self.process.start()

    def reasons(self, index: int = 0) -> dict[str, str] | None:
        """Why /readyz says no; empty if it says yes, None if nobody answers."""
        try:
            url = f"http://127.0.0.1:{self.admin_port + index}/readyz"
            with urllib.request.urlopen(url, timeout=30) as answer:
                return dict(json.load(answer)["reasons"])
        except urllib.error.HTTPError as error:
            return dict(json.load(error)["reasons"])
        except OSError:
            return None

    def wait_ready(self, index: int = 0) -> "Ingest":
        wait_until(lambda: self.reasons(index) == {} or not self.process.running, "ready")
        assert self.process.running, self.log.read_text()
        return self

    def metrics(self, index: int = 0) -> dict[str, float]:
        """Samples by name and labels as they stand in /metrics."""
        url = f"http://127.0.0.1:{self.admin_port + index}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return {
            name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")
        }

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == name]

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def children(self) -> list[int]:
        """Process ids of the several processes behind one port: children of a fork server."""
        return [pid for server in _children_of(self.pid) for pid in _children_of(server)]

    def stop(self) -> int | None:
        """SIGTERM; the exit code, None if it has not ended in time."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        self.process.kill()


class Client:
    """A voter's browser, as often as needed."""

    def __init__(self, poll: Poll, ingest: Ingest, http: aiohttp.ClientSession) -> None:
        self.poll, self.ingest, self.http = poll, ingest, http

    async def vote(
        self, body: Any = None, *, token: str | None = None, subject: str = "ann", **headers: str
    ) -> tuple[int, dict[str, Any], Any]:
        """(status, answer, headers). `body`: an object, or bytes to be sent as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body or {"choices": ["ada"]}).encode()
        sent = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {token or self.poll.token(subject)}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        async with self.http.post(self.ingest.url, data=data, headers=sent) as answer:
            return answer.status, json.loads(await answer.read()), answer.headers

    async def batch(
        self, lines: list[Any], credential: str = CREDENTIAL, *, unfinished: bool = False, **more: str
    ) -> tuple[int, list[dict[str, Any]]]:
        """`unfinished`: more lines seem to follow for ever."""
        data: Any = b"".join(
            (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
        )
        if unfinished:
            data = _without_end(data)
        headers = {"Content-Type": "application/x-ndjson", "Authorization": f"Bearer {credential}", **more}
        async with self.http.post(f"{self.ingest.url}:batch", data=data, headers=headers) as answer:
            return answer.status, [json.loads(line) for line in (await answer.read()).splitlines()]


async def _without_end(data: bytes) -> AsyncIterator[bytes]:
    yield data
    await asyncio.Event().wait()


def _children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def in_log(poll: Poll, answers: list[dict[str, Any]]) -> dict[str, Vote]:
    """The votes by receipt, each found where its receipt says, as the receipt's digest says."""
    messages = {(message.partition(), message.offset()): message for message in poll.log()}
    found = {}
    for answer in answers:
        message = messages[answer["partition"], answer["offset"]]
        receipt = poll.receipt(answer)
        assert (receipt.partition, receipt.offset) == (answer["partition"], answer["offset"])
        assert receipt.session_tag == poll.genesis.hash[:8]
        assert receipt.digest == record_digest(message.key(), message.value())[:16]
        found[answer["receipt"]] = decode_vote(message.value())
    return found


async def eventually(happened: Callable[[], Any], what: str) -> Any:
    """Like `wait_until`, beside a running client. A log that does not answer, or not yet again, is asked again."""

    def answered() -> Any:
        try:
            return happened()
        except LogUnavailable:
            return None

    return await asyncio.to_thread(wait_until, answered, what)


@pytest.fixture
def spec(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Members of the session's spec; `@pytest.mark.parametrize("spec", [...], indirect=True)` sets them."""
    return getattr(request, "param", {})


@pytest.fixture
def poll(backends: Backends, tmp_path: Path, spec: dict[str, Any]) -> Poll:
    """A session that only this test uses."""
    return Poll(backends, tmp_path, spec)


@pytest.fixture
def start(poll: Poll) -> Iterator[Callable[..., Ingest]]:
    """Starts ingest of `poll` with these variables; ends every one of them after the test."""
    started: list[Ingest] = []

    def one(**variables: Any) -> Ingest:
        started.append(Ingest(poll, **variables))
        return started[-1]

    yield one
    for ingest in started:
        ingest.end()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def own(poll: Poll, start: Callable[..., Ingest], http: aiohttp.ClientSession) -> Client:
    """A client of an ingest, ready, that only this test uses."""
    return Client(poll, start().wait_ready(), http)


@pytest.fixture(scope="package")
def shared(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingest]:
    """An open session's ingest, ready, for tests that leave it as it is."""
    ingest = Ingest(Poll(backends, tmp_path_factory.mktemp("shared"), {}))
    yield ingest.wait_ready()
    ingest.end()


@pytest.fixture
def client(shared: Ingest, http: aiohttp.ClientSession) -> Client:
    """A client of the shared ingest."""
    return Client(shared.poll, shared, http)
