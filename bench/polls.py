"""A session to measure: prepared on real servers, with voters who hold tokens, and roles as real processes."""

import http.client
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from psephos.adapters.kafka import LogAdmin
from psephos.client.tokens import HS256_KEY_BYTES, TokenTemplate, signer
from psephos.control import make_keys, prepare, read_keys
from psephos.domain.session import parse_session
from psephos.platform.child_process import ChildProcess
from psephos.platform.settings import load_settings
from psephos_lab.ports import LOOPBACK, free_port
from psephos_lab.servers import Backends

READY_S = 180.0  # on a machine that has other things to do
CREDENTIAL = "gateway-credential-0123456789"
BODY = b'{"choices":["ada"]}'
_LOOK_S = 0.02


class Role(NamedTuple):
    """A running role."""

    process: ChildProcess
    port: int

    @property
    def pid(self) -> int:
        return self.process.pid or 0


class Poll:
    """One open session of single-choice ballots, tokens by HS256."""

    def __init__(self, backends: Backends, folder: Path, *, partitions: int = 8, **spec: Any) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        document = {
            "apiVersion": "psephos.dev/v1alpha1",
            "kind": "VotingSession",
            "metadata": {"name": "poll"},
            "spec": {
                "ballot": {"type": "single", "options": [{"id": "ada"}, {"id": "bob"}, {"id": "cyd"}]},
                "voters": {"tokens": {"issuer": "https://id.example", "audience": "poll"}},
                "capacity": {"partitions": partitions},
                **spec,
            },
        }
        path = folder / "session.yaml"
        path.write_text(yaml.safe_dump(document))
        self.partitions = partitions
        self.session = parse_session(path.read_bytes())
        token_key = os.urandom(HS256_KEY_BYTES)
        (folder / "token-key").write_bytes(token_key.hex().encode())
        (folder / "credential").write_text(CREDENTIAL)
        self.environ = {
            "PSEPHOS_SESSION_FILE": str(path),
            "PSEPHOS_SESSION_UID": f"bench-{os.urandom(6).hex()}",
            "PSEPHOS_TOKEN_KEY_FILE": str(folder / "token-key"),
            "PSEPHOS_BATCH_CREDENTIAL_FILE": str(folder / "credential"),
            "PSEPHOS_KAFKA_BOOTSTRAP": backends.kafka_bootstrap,
            "PSEPHOS_KAFKA_REPLICATION": "1",
            "PSEPHOS_DYNAMODB_ENDPOINT": backends.dynamodb_endpoint,
            "PSEPHOS_REDIS_URL": backends.redis_url,
            "PSEPHOS_DATA_DIR": str(folder / "data"),
            "PSEPHOS_HOST": LOOPBACK,
            "PSEPHOS_LOG_LEVEL": "warning",
            **{f"PSEPHOS_{name.upper()}": str(file) for name, file in make_keys(folder / "keys").items()},
        }
        self.settings = load_settings(self.environ)
        self.genesis = prepare(self.settings, self.session, read_keys(self.settings))
        self.path = f"/v1/sessions/{self.session.name}"
        self._sign = signer("HS256", token_key.hex().encode())

    def token(self, subject: str) -> str:
        tokens = self.session.spec.voters.tokens
        assert tokens is not None
        return self._sign(TokenTemplate.of(tokens).claims(subject, int(time.time())))

    def records(self) -> int:
        """In the votes topic."""
        return sum(LogAdmin(self.settings).end_offsets(self.partitions))

    @contextmanager
    def role(self, name: str, *, cores: Sequence[int] = (), **settings: Any) -> Iterator[Role]:
        """A role as a process of its own, ready; `cores`: the only ones that it may use."""
        port, admin = free_port(), free_port()
        own = {f"{name}_port": port} if name in ("ingest", "gateway") else {}
        child = ChildProcess(
            name,
            (sys.executable, "-m", f"psephos.roles.{name}"),
            self.folder / f"{name}.log",
            {
                **self.environ,
                **{f"PSEPHOS_{key.upper()}": str(value) for key, value in (own | settings).items()},
                "PSEPHOS_ADMIN_PORT": str(admin),
            },
        )
        with running(child, cores):
            wait_until_answers(admin, "/readyz", child)
            yield Role(child, port)


@contextmanager
def running(child: ChildProcess, cores: Sequence[int] = ()) -> Iterator[ChildProcess]:
    """A process for the time of a `with` block, on these cores only where some are given."""
    if cores:
        child.command = ("taskset", "-c", ",".join(map(str, cores)), *child.command)
    child.start()
    try:
        yield child
    finally:
        child.stop()


def wait_until_answers(port: int, path: str, child: ChildProcess, timeout_s: float = READY_S) -> None:
    """Until a GET is answered 200. Raises TimeoutError, or RuntimeError when the process has ended."""
    deadline = time.monotonic() + timeout_s
    while not answers(port, path):
        if not child.running:
            raise RuntimeError(f"{child.name} has ended: {child.last_words()}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{child.name} was not ready within {timeout_s:.0f} s; see {child.log}")
        time.sleep(_LOOK_S)


def answers(port: int, path: str) -> bool:
    """Whether a GET is answered 200 right now."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def vote_request(path: str, token: str, body: bytes = BODY) -> bytes:
    """A whole request with one vote."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
