"""Real servers on loopback, as objects: start, wait until ready, stop, kill, pause, start again.

A server keeps its port and data folder for life, so a test can kill it and bring it back while its clients run.
``Backends`` is all of them together.
"""

from __future__ import annotations

import base64
import http.client
import logging
import secrets
import shutil
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from psephos.platform.child_process import (
    POLL_INTERVAL,
    ChildProcess,
    CommandMissingError,
    ProcessError,
    stop_together,
)
from psephos_lab.errors import StackError
from psephos_lab.folder import MIN_FREE_BYTES, owned, require_space
from psephos_lab.java import Jars, Progress, class_archive, ensure_jars, find_java, silent
from psephos_lab.kafka_config import LOG4J2, Node, server_properties
from psephos_lab.ports import LOOPBACK, accepts, free_port, require_port

__all__ = ["Backends", "DynamoDBLocal", "Kafka", "KafkaBroker", "Redis", "Server", "StackError", "free_port"]

#: For a quick start rather than the highest speed: only the first compiler, the smallest collector, a small heap.
#: Pass others to compare throughput.
QUICK_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xmx512m")

#: Seconds that a server may take to become ready, on a busy machine with a cold disk.
READY_TIMEOUT = 180.0  # for a JVM on a busy machine; one that has ended is reported at once


class Server(ABC):
    """One server process with its own port and data folder."""

    def __init__(self, name: str, port: int, folder: Path, log: Path) -> None:
        self.name = name
        self.port = port
        self.folder = folder
        self.process = ChildProcess(name, (), log)

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{LOOPBACK}:{self.port}"

    @abstractmethod
    def command(self) -> list[str]:
        """Returns the command line; writes the configuration files that it names.

        Raises StackError if the program is not installed.
        """

    @abstractmethod
    def ready(self) -> bool:
        """Returns whether the server answers a real request right now. Takes a few seconds at most."""

    def start(self) -> None:
        """Starts the process and returns at once.

        Raises StackError if the port is taken, or the program is not installed.
        """
        require_port(self.port, self.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process.command = self.command()
        try:
            self.process.start()
        except ProcessError as error:
            hint = "; `make setup` installs what is missing" if isinstance(error, CommandMissingError) else ""
            raise StackError(f"{error}{hint}") from error

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Waits until the server answers.

        Raises StackError, which names the log file, if it ended or did not answer within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while not self.check_ready():
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} was not ready within {timeout:.0f} s; see {self.process.log}")
            time.sleep(POLL_INTERVAL)

    def check_ready(self) -> bool:
        """Returns ``ready()``. Raises StackError if the process has ended."""
        self.require_running()
        return self.ready()

    def require_running(self) -> None:
        """Raises StackError if the process has ended, with its last output."""
        if not self.process.running:
            raise StackError(
                f"{self.name} ended with exit code {self.process.exit_code} before it was ready:"
                f" {self.process.last_words() or 'it said nothing'} (log: {self.process.log})"
            )

    def restart(self, *, fresh: bool = False, timeout: float = READY_TIMEOUT) -> None:
        """Stops it if it runs, starts it on the same port, and waits until ready; ``fresh`` deletes all data."""
        self.stop()
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.start()
        self.wait_ready(timeout)

    def stop(self) -> None:
        """Stops gracefully (SIGTERM, SIGKILL after a grace period)."""
        self.process.stop()

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.process.kill()

    def pause(self) -> None:
        """Sends SIGSTOP: connections stay open, nothing answers."""
        self.process.pause()

    def resume(self) -> None:
        """Sends SIGCONT."""
        self.process.resume()


class Redis(Server):
    """Redis without persistence: every start is empty, since everything in it can be derived again."""

    def __init__(self, port: int, folder: Path, logs: Path) -> None:
        super().__init__("Redis", port, folder, logs / "redis.log")

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def command(self) -> list[str]:
        return [
            *("redis-server", "--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"),
        ]

    def ready(self) -> bool:
        with suppress(OSError), socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False


class DynamoDBLocal(Server):
    """DynamoDB Local with one database for all credentials and regions (any credentials will do)."""

    def __init__(self, port: int, folder: Path, logs: Path, jars: Jars, *, in_memory: bool = False) -> None:
        super().__init__("DynamoDB Local", port, folder, logs / "dynamodb.log")
        self.jars = jars
        self.in_memory = in_memory
        self.java_options: Sequence[str] = QUICK_JAVA

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    def command(self) -> list[str]:
        storage = ["-inMemory"] if self.in_memory else ["-dbPath", str(self.folder)]
        return [
            *(
                find_java(),
                *self.java_options,
                *class_archive(self.jars.dynamodb_archive),
                f"-Djava.library.path={self.jars.native}",
                "-cp",
                self.jars.dynamodb,
            ),
            *("LoopbackDynamoDb", "-port", str(self.port), *storage, "-sharedDb", "-disableTelemetry"),
        ]

    def ready(self) -> bool:
        if not accepts(self.port):
            return False
        headers = {
            "X-Amz-Target": "DynamoDB_20120810.ListTables",
            "Content-Type": "application/x-amz-json-1.0",
            # the local server requires the header but does not check the signature
            "Authorization": "AWS4-HMAC-SHA256 Credential=local/20260101/local/dynamodb/aws4_request,"
            " SignedHeaders=host, Signature=0",
        }
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=5)
        try:
            connection.request("POST", "/", body=b"{}", headers=headers)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class KafkaBroker(Server):
    """One broker that is also a controller (KRaft)."""

    def __init__(
        self, node: Node, nodes: Sequence[Node], folder: Path, logs: Path, jars: Jars, cluster_id: str
    ) -> None:
        super().__init__(f"Kafka broker {node.node_id}", node.port, folder, logs / f"kafka-{node.node_id}.log")
        self.node = node
        self.nodes = nodes
        self.jars = jars
        self.cluster_id = cluster_id
        self.config: dict[str, str] = {}
        self.java_options: Sequence[str] = QUICK_JAVA

    def command(self) -> list[str]:
        require_port(self.node.controller_port, f"the controller of {self.name}")
        properties = self.folder / "server.properties"
        properties.write_text(server_properties(self.node, self.nodes, self.folder / "data", self.config))
        log4j2 = self.folder / "log4j2.properties"
        log4j2.write_text(LOG4J2)
        return [
            *(find_java(), *self.java_options, *class_archive(self.jars.kafka_archive)),
            *(f"-Dlog4j2.configurationFile={log4j2}", "-cp", self.jars.kafka),
            *("KafkaBroker", str(properties), self.cluster_id),
        ]

    def ready(self) -> bool:
        return self.node.node_id in self.sees()

    def sees(self) -> set[int]:
        """Returns ids of the brokers in service, in this broker's view; empty if it does not answer."""
        if not accepts(self.port):
            return set()
        admin = AdminClient({"bootstrap.servers": self.address, "socket.timeout.ms": 2_000}, logger=_quiet)
        try:
            return set(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return set()


class Kafka:
    """A cluster of one or more brokers; each can be killed, paused and restarted alone in ``brokers``."""

    def __init__(
        self,
        ports: Sequence[int],
        folder: Path,
        logs: Path,
        jars: Jars,
        *,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self._logs = logs
        nodes = [Node(node_id, port, free_port()) for node_id, port in enumerate(ports, start=1)]
        cluster_id = _cluster_id(folder)
        self.brokers = [
            KafkaBroker(node, nodes, folder / f"broker-{node.node_id}", logs, jars, cluster_id) for node in nodes
        ]
        for broker in self.brokers:
            broker.config = dict(config or {})

    @property
    def address(self) -> str:
        """The bootstrap servers, ``host:port,host:port``."""
        return ",".join(broker.address for broker in self.brokers)

    def start(self) -> None:
        """Starts all brokers and returns at once."""
        for broker in self.brokers:
            broker.start()

    def check_ready(self) -> bool:
        """Returns whether every broker sees all of them in service. Raises StackError if one has ended."""
        for broker in self.brokers:
            broker.require_running()
        ids = {broker.node.node_id for broker in self.brokers}
        return all(broker.sees() >= ids for broker in self.brokers)

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Waits until every broker sees all of them in service.

        Raises StackError if one has ended, or ``timeout`` seconds have passed.
        """
        deadline = time.monotonic() + timeout
        while not self.check_ready():
            if time.monotonic() > deadline:
                raise StackError(f"Kafka was not ready within {timeout:.0f} s; see {self._logs}")
            time.sleep(POLL_INTERVAL)

    def stop(self) -> None:
        """Stops all brokers gracefully."""
        stop_together([broker.process for broker in self.brokers])

    def kill(self) -> None:
        """Sends SIGKILL to all brokers."""
        for broker in self.brokers:
            broker.kill()

    def pause(self) -> None:
        """Sends SIGSTOP to all brokers."""
        for broker in self.brokers:
            broker.pause()

    def resume(self) -> None:
        """Sends SIGCONT to all brokers."""
        for broker in self.brokers:
            broker.resume()


class Backends:
    """Kafka, Redis and DynamoDB Local in one data folder, as a context manager.

    Ports that are not given are chosen among free ones. DynamoDB Local writes into the folder unless
    ``dynamodb_in_memory``; Redis always starts empty.
    """

    kafka: Kafka
    redis: Redis
    dynamodb: DynamoDBLocal

    def __init__(
        self,
        folder: Path,
        *,
        brokers: int = 1,
        kafka_port: int | None = None,
        redis_port: int | None = None,
        dynamodb_port: int | None = None,
        dynamodb_in_memory: bool = False,
        kafka_config: Mapping[str, str] | None = None,
        java_options: Sequence[str] = QUICK_JAVA,
        min_free_bytes: int = MIN_FREE_BYTES,
        progress: Progress = silent,
    ) -> None:
        self.folder = folder.absolute()
        self.logs = self.folder / "logs"
        self._brokers = brokers
        self._ports = (kafka_port, redis_port, dynamodb_port)
        self._dynamodb_in_memory = dynamodb_in_memory
        self._kafka_config = kafka_config
        self._java_options = java_options
        self._min_free_bytes = min_free_bytes
        self._progress = progress
        self._held = ExitStack()

    @property
    def kafka_bootstrap(self) -> str:
        """``host:port`` of the brokers, separated by commas."""
        return self.kafka.address

    @property
    def redis_url(self) -> str:
        return self.redis.url

    @property
    def dynamodb_endpoint(self) -> str:
        return self.dynamodb.endpoint

    def start(self, timeout: float = READY_TIMEOUT) -> None:
        """Starts all three at once and waits until each answers.

        Raises StackError if something is in the way; what had been started is stopped again.
        """
        require_space(self.folder, self._min_free_bytes)
        with ExitStack() as held:
            held.enter_context(owned(self.folder))
            self._build(ensure_jars(self._progress))
            held.callback(self._stop_servers)
            for server in (self.kafka, self.dynamodb, self.redis):
                server.start()
            self._wait_ready(timeout)
            self._held = held.pop_all()

    def stop(self) -> None:
        """Stops everything that still runs and releases the folder. Data and logs stay."""
        self._held.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def _build(self, jars: Jars) -> None:
        kafka, redis, dynamodb = self._ports
        self.kafka = Kafka(
            [kafka or free_port(), *(free_port() for _ in range(self._brokers - 1))],
            self.folder / "kafka",
            self.logs,
            jars,
            config=self._kafka_config,
        )
        self.redis = Redis(redis or free_port(), self.folder / "redis", self.logs)
        self.dynamodb = DynamoDBLocal(
            dynamodb or free_port(), self.folder / "dynamodb", self.logs, jars, in_memory=self._dynamodb_in_memory
        )
        self.dynamodb.java_options = self._java_options
        for broker in self.kafka.brokers:
            broker.java_options = self._java_options

    def _wait_ready(self, timeout: float) -> None:
        begun = time.monotonic()
        waiting: dict[str, Kafka | Server] = {
            "Redis": self.redis,
            "DynamoDB Local": self.dynamodb,
            "Kafka": self.kafka,
        }
        for name in waiting:
            self._progress(name, "starting")
        while waiting:
            for name, server in list(waiting.items()):
                if server.check_ready():
                    del waiting[name]
                    self._progress(name, f"ready at {server.address} after {time.monotonic() - begun:.1f} s")
            if time.monotonic() - begun > timeout:
                raise StackError(f"{', '.join(waiting)} not ready within {timeout:.0f} s; see {self.logs}")
            time.sleep(POLL_INTERVAL)

    def _stop_servers(self) -> None:
        servers = [*self.kafka.brokers, self.dynamodb, self.redis]
        stop_together([server.process for server in servers])


#: Logs nothing: a broker that is not there yet is what the probe is for, not news.
_quiet = logging.getLogger("psephos.dev.probe")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


def _cluster_id(folder: Path) -> str:
    """Returns the cluster id kept in the data folder, made at first: brokers of two stacks can't join by mistake.

    NB: 16 bytes in URL-safe base64, as Kafka requires; one with a leading ``-`` is taken for an option.
    """
    kept = folder / "cluster-id"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(base64.urlsafe_b64encode(b"\0" + secrets.token_bytes(15)).decode().rstrip("="))
    return kept.read_text()
