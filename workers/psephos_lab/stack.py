"""A session with everything that it needs, on this machine: servers, keys, genesis, roles and a controller.

All of it lives in one folder. A stack that is started on the same folder again continues where it was: the log and
the ledger are on disk, keys and the session's uid are kept.

| in the folder | what |
|---|---|
| `env` | a role's settings, for a shell: `source <folder>/env && psephos recount --audit` |
| `session.yaml`, `uid` | the session as it runs, and its unique id |
| `keys/` | made at the first start, readable by their owner only |
| `pids.json` | process ids by name, of servers and roles |
| `logs/` | one file per process |
| `kafka/`, `dynamodb/`, `redis/`, `data/` | state; `data/exports` has the result, `data/commands` the commands |
"""

import json
import os
import shlex
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from psephos.control import CommandFile, LocalController, SessionKeys, make_keys, next_due, prepare, read_keys
from psephos.domain.genesis import Genesis
from psephos.domain.session import Session
from psephos.platform.backoff import Backoff
from psephos.platform.files import write_whole
from psephos.platform.health import Health, open_admin
from psephos.platform.logs import get_logger
from psephos.platform.settings import PREFIX, Settings, load_settings
from psephos.platform.supervisor import Supervised, Supervisor
from psephos.roles.serve import admin_ports, layout, metrics, own_admin_port, supervise
from psephos.roles.serve.auditing import Auditor
from psephos.roles.serve.recounting import recount_by_child
from psephos_lab.java import Progress, silent
from psephos_lab.keys import DoorKeys, make_door_keys
from psephos_lab.ports import LOOPBACK, free_port, require_port
from psephos_lab.servers import Backends, Server

UID_BYTES = 4
SERVER_PAUSE_S = 2.0  # between a server's death and its next start: long enough to be noticed
log = get_logger()


@dataclass(frozen=True)
class StackOptions:
    """Layout of a stack. Ports that are None are chosen among free ones; `admin_port` is the first of a row."""

    workers: int = 1
    ingest_processes: int = 1
    ingest_port: int | None = None
    gateway_port: int | None = None
    admin_port: int | None = None
    log_level: str = "info"
    token_key_file: Path | None = None
    roll_file: Path | None = None


class Stack:
    """A running session, as a context manager. An error that keeps it from starting is one readable line."""

    environment: Mapping[str, str]
    settings: Settings
    session_keys: SessionKeys
    door_keys: DoorKeys
    genesis: Genesis
    backends: Backends
    supervisor: Supervisor
    controller: LocalController
    auditor: Auditor

    def __init__(
        self,
        folder: Path,
        session: Session,
        source: bytes,
        options: StackOptions = StackOptions(),
        progress: Progress = silent,
    ) -> None:
        """`source`: the session's YAML."""
        self.folder = folder.absolute()
        self.session = session
        self._source = source
        self._options = options
        self._progress = progress
        self._held = ExitStack()
        self._pids: dict[str, int] = {}
        self._pids_lock = threading.Lock()

    @property
    def ingest_url(self) -> str:
        """The session's URL at ingest, for votes."""
        return f"http://{LOOPBACK}:{self.settings.ingest_port}/v1/sessions/{self.session.name}"

    @property
    def gateway_url(self) -> str:
        """The session's URL at the gateway, for results."""
        return f"http://{LOOPBACK}:{self.settings.gateway_port}/v1/sessions/{self.session.name}"

    @property
    def admin_urls(self) -> dict[str, str]:
        """Admin URL by process."""
        workers = self._options.workers
        ports = {role.name: role.admin_ports[0] for role in layout(self.settings, workers)}
        ports["stack"] = own_admin_port(self.settings, workers)
        return {name: f"http://{LOOPBACK}:{port}" for name, port in ports.items()}

    def start(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Starts servers, prepares the session, starts the roles; returns when all are ready.

        Returns False if `stopped` became true before that. Raises StackError, RoleFailed, ProcessError,
        SettingsError, GenesisMismatch, LogUnavailable, LedgerUnavailable; what had been started is stopped again.
        """
        with ExitStack() as held:
            doors = self._door_ports()
            self.backends = held.enter_context(Backends(self.folder, progress=self._progress))
            self._write_inputs()
            self._configure(*doors, self._admin_port())
            servers = self._server_supervisor()
            held.callback(servers.release)
            servers.start()
            self.genesis = prepare(self.settings, self.session, self.session_keys)
            self._serve(held)
            ready = self.supervisor.wait_ready(stopped=stopped)
            self._health.ready()
            self._progress("Psephos", "ready" if ready else "stopping")
            self._held = held.pop_all()
        return ready

    def stop(self) -> None:
        """Stops everything, the roles first; data and logs stay."""
        self._held.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def _door_ports(self) -> tuple[int, int]:
        wanted = self._options
        ingest = require_port(wanted.ingest_port, "votes") if wanted.ingest_port else free_port()
        gateway = require_port(wanted.gateway_port, "results") if wanted.gateway_port else free_port()
        return ingest, gateway

    def _admin_port(self) -> int:
        """Chooses the admin ports, after the servers have taken their ports, so that the row stays free."""
        row, first = admin_ports(self._options.ingest_processes, self._options.workers), self._options.admin_port
        if first is None:
            return free_port(row)
        for port in range(first, first + row):
            require_port(port, "the roles' admin ports")
        return first

    def _write_inputs(self) -> None:
        (self.folder / "session.yaml").write_bytes(self._source)
        uid = self.folder / "uid"
        if not uid.exists():
            uid.write_text(f"{self.session.name[:40]}-{os.urandom(UID_BYTES).hex()}")

    def _configure(self, ingest: int, gateway: int, admin: int) -> None:
        keys = self.folder / "keys"
        tokens = self.session.spec.voters.tokens
        self.door_keys = make_door_keys(keys, tokens.algorithms[0] if tokens else "HS256")
        if self._options.token_key_file is not None:
            key = self._options.token_key_file.absolute()
            self.door_keys = self.door_keys._replace(token=key, token_signing=key)
        files = {
            "session_file": self.folder / "session.yaml",
            **make_keys(keys),
            "token_key_file": self.door_keys.token,
            "batch_credential_file": self.door_keys.batch_credential,
            "data_dir": self.folder / "data",
            **({"roll_file": self._options.roll_file.absolute()} if self._options.roll_file else {}),
        }
        values = {
            "session_uid": (self.folder / "uid").read_text(),
            "kafka_bootstrap": self.backends.kafka_bootstrap,
            "kafka_replication": 1,
            "dynamodb_endpoint": self.backends.dynamodb_endpoint,
            "redis_url": self.backends.redis_url,
            "s3_enabled": False,  # what is played here must not become a result in a bucket
            "host": LOOPBACK,
            "ingest_port": ingest,
            "gateway_port": gateway,
            "ingest_url": f"http://{LOOPBACK}:{ingest}",
            "admin_port": admin,
            "ingest_processes": self._options.ingest_processes,
            "ingest_address_rate": 0,  # all clients are on this machine
            "log_level": self._options.log_level,
        }
        self.environment = {f"{PREFIX}{name.upper()}": str(value) for name, value in (files | values).items()}
        self.settings = load_settings(self.environment)
        self.session_keys = read_keys(self.settings)
        exports = [f"export {name}={shlex.quote(value)}\n" for name, value in self.environment.items()]
        write_whole(self.folder / "env", "".join(exports).encode())

    def _serve(self, held: ExitStack) -> None:
        logs = self.folder / "logs"
        self._progress("Psephos", "starting")
        self._health = Health(heartbeat_limit_s=float("inf"))  # there is no loop of ours that could hang
        port = own_admin_port(self.settings, self._options.workers)
        held.callback(open_admin(self.settings, port, self._health, metrics.REGISTRY).close)
        self.supervisor = supervise(
            layout(self.settings, self._options.workers), self.environment, logs, self._note_pids
        )
        held.callback(self.supervisor.stop)
        self.supervisor.start()
        self.controller = LocalController(
            self.settings,
            recount_by_child(self.settings, self.environment, logs / "recount.log"),
            commands=CommandFile(self.settings.commands_dir, self.session.name),
            progress=lambda news: self._progress("closing", news),
        )
        held.callback(self.controller.stop)
        self.controller.start()
        self.auditor = Auditor(
            self.settings,
            partial(next_due, self.session.spec.recount.schedule),
            environment=self.environment,
            log_file=logs / "audit.log",
            progress=lambda news: self._progress("audit", news),
        )
        held.callback(self.auditor.stop)
        self.auditor.start()

    def _server_supervisor(self) -> Supervisor:
        """Returns a supervisor that restarts servers that die; `Backends` started them, and stops them."""
        brokers = {f"kafka-{broker.node.node_id}": broker for broker in self.backends.kafka.brokers}
        servers = {**brokers, "redis": self.backends.redis, "dynamodb": self.backends.dynamodb}
        return Supervisor([_supervised(*each) for each in servers.items()], on_change=self._note_pids)

    def _note_pids(self, pids: Mapping[str, int]) -> None:
        """Writes `pids.json`. Locks, since servers and roles are supervised in threads of their own."""
        with self._pids_lock:
            self._pids.update(pids)
            write_whole(self.folder / "pids.json", json.dumps(self._pids, indent=1).encode(), b"\n")


def _supervised(name: str, server: Server) -> Supervised:
    backoff = Backoff(first_s=SERVER_PAUSE_S, longest_s=SERVER_PAUSE_S)
    return Supervised(name, server.process, start=server.start, ready_once=True, backoff=backoff)
