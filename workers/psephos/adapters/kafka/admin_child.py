"""Kafka's admin requests, and the process that makes them for another one: `python -P admin_child.py`, over pipes.

librdkafka can end the whole process that makes such a request. A request to a group's coordinator that has timed
out is freed, but what waits for the coordinator's connection is not notified, and uses it once the connection is
there (confluentinc/librdkafka 4605: `rd_kafka_enq_once_del_source_return: Assertion eonce->refcnt > 0`). The other
admin requests are built on the same parts. So a process that must not end has them made by this one, which may:
`psephos.adapters.kafka.admin_process` is the other half.

NB: it runs as a file and imports nothing else of psephos: it has to be ready within a fraction of a second.
"""

import logging
import os
import resource
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

SLACK_S: Final = 5.0
"""`perform` takes at most this much longer than a request's own time-out."""

_LENGTH = struct.Struct(">I")
_CLIENTS = 2  # one is in use; there are two if a password has just been changed
_NEVER_S = 600.0

Config = Mapping[str, str | int | bool]


class Topic(msgspec.Struct, frozen=True):
    """A topic to be created."""

    name: str
    partitions: int
    replication: int
    config: dict[str, str]


class _Request(msgspec.Struct, frozen=True, tag=True):
    """A request. Each may be made twice: the second one finds the work of the first one done."""

    timeout_s: float


class CreateTopics(_Request, frozen=True):
    """Creates those that do not exist."""

    topics: list[Topic]


class DeleteTopics(_Request, frozen=True):
    """Deletes those that exist."""

    names: list[str]


class DescribeTopic(_Request, frozen=True):
    """Returns (topic id, partition count)."""

    name: str


class SetTopicConfig(_Request, frozen=True):
    """Sets one property of a topic."""

    topic: str
    name: str
    value: str


class CountOwned(_Request, frozen=True):
    """Returns how many partitions of a topic the members of a group own together."""

    group: str
    topic: str


Request = CreateTopics | DeleteTopics | DescribeTopic | SetTopicConfig | CountOwned


class Asked(msgspec.Struct, frozen=True):
    """A request sent to the child, with the configuration of the client that is to make it."""

    number: int
    config: dict[str, str | int | bool]
    request: Request


class Said(msgspec.Struct, frozen=True):
    """The result of the request with this number. With a reason: it failed, with this librdkafka code."""

    number: int
    value: Any = None
    code: int = 0
    reason: str | None = None


class RequestFailed(Exception):
    """A broker refused a request, or none answered in time. `code` is librdkafka's.

    Not a PsephosError: this process imports nothing else of psephos, and the other half turns it into one.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


# --- Requests


def perform(client: AdminClient, request: Request) -> Any:
    """Makes a request and waits for its result. Raises RequestFailed."""
    limit_s = request.timeout_s + SLACK_S
    match request:
        case CreateTopics():
            wanted = [NewTopic(t.name, t.partitions, t.replication, config=t.config) for t in request.topics]
            for future in client.create_topics(wanted, operation_timeout=request.timeout_s).values():
                _wait(future, limit_s, ignore=KafkaError.TOPIC_ALREADY_EXISTS)
        case DeleteTopics():
            for future in client.delete_topics(request.names, operation_timeout=request.timeout_s).values():
                _wait(future, limit_s, ignore=KafkaError.UNKNOWN_TOPIC_OR_PART)
        case SetTopicConfig():
            entry = ConfigEntry(request.name, request.value, incremental_operation=AlterConfigOpType.SET)
            changed = ConfigResource(ResourceType.TOPIC, request.topic, incremental_configs=[entry])
            for future in client.incremental_alter_configs([changed]).values():
                _wait(future, limit_s)
        case DescribeTopic():
            asked = client.describe_topics(TopicCollection([request.name]), request_timeout=request.timeout_s)
            described = _wait(asked[request.name], limit_s)
            return str(described.topic_id), len(described.partitions)
        case CountOwned():
            # NB: librdkafka's own time-out, which leads to the abort, comes only when this client is long gone.
            groups = client.describe_consumer_groups([request.group], request_timeout=_NEVER_S)
            return _owned(_wait(groups[request.group], request.timeout_s), request.topic)
    return None


def _owned(group: Any, topic: str) -> int:
    parts = [
        part
        for member in group.members
        for part in (member.assignment.topic_partitions if member.assignment else ())
    ]
    return len({part.partition for part in parts if part.topic == topic})


def _wait(future: "Future[Any]", limit_s: float, ignore: int | None = None) -> Any:
    """Waits for the future. NB: its error is not raised: it would hold this stack, and the stack the future and
    its client, which would then live until the next garbage collection, with a request that has timed out."""
    try:
        error = future.exception(limit_s)
    except TimeoutError:
        raise RequestFailed(KafkaError._TIMED_OUT, f"no answer within {limit_s:.0f} s") from None
    if error is None:
        return future.result()
    if not isinstance(error, KafkaException):
        raise RequestFailed(KafkaError._FAIL, repr(error))
    cause = error.args[0]
    if cause.code() != ignore:
        raise RequestFailed(cause.code(), cause.str())
    return None


# --- Frames: a length of four bytes, then msgpack


def frame(message: Asked | Said) -> bytes:
    """The message as it is sent through a pipe."""
    payload = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(payload)) + payload


def read_frame(pipe: int) -> bytes | None:
    """The next message, still encoded; None if the other end is closed."""
    head = _read(pipe, _LENGTH.size)
    return None if head is None else _read(pipe, _LENGTH.unpack(head)[0])


def _read(pipe: int, length: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < length:
        part = os.read(pipe, length - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


# --- The child


class _Clients:
    """Clients by their configuration, which comes with each request: passwords change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: OrderedDict[bytes, AdminClient] = OrderedDict()
        logger = logging.getLogger("librdkafka")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        self._quiet: dict[str, Any] = {"logger": logger}

    def perform(self, asked: Asked) -> Any:
        """Makes a request. NB: CountOwned gets a client that lives no longer than the request. After a broker has
        restarted, librdkafka 2.x keeps the old connection as the group's coordinator: each further request by the
        same client times out (librdkafka issue 5511)."""
        if isinstance(asked.request, CountOwned):
            return perform(self._new(asked.config), asked.request)
        key = msgspec.msgpack.encode(sorted(asked.config.items()))
        try:
            return perform(self._kept(key, asked.config), asked.request)
        except RequestFailed:
            # Its client may go on asking a controller that has died: the next request gets another client.
            with self._lock:
                self._clients.pop(key, None)
            raise

    def _kept(self, key: bytes, config: Config) -> AdminClient:
        with self._lock:
            client = self._clients.pop(key, None) or self._new(config)
            self._clients[key] = client
            while len(self._clients) > _CLIENTS:
                self._clients.popitem(last=False)
        return client

    def _new(self, config: Config) -> AdminClient:
        return AdminClient({**config, **self._quiet})


def _said(perform: Callable[[Asked], Any], asked: Asked) -> Said:
    try:
        return Said(asked.number, perform(asked))
    except RequestFailed as error:
        return Said(asked.number, code=error.code, reason=str(error))
    except Exception as error:  # a bad configuration, or a bug here: the caller must learn of it
        return Said(asked.number, code=KafkaError._FAIL, reason=repr(error))


def main() -> None:
    """Runs until standard input ends. NB: other output goes to standard error: standard output is for frames."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an abort must not leave passwords on a disk
    replies, writing = os.dup(1), threading.Lock()
    os.dup2(2, 1)
    clients = _Clients()
    decoder = msgspec.msgpack.Decoder(Asked)

    def reply(asked: Asked) -> None:
        said = frame(_said(clients.perform, asked))
        with writing:
            while said:
                said = said[os.write(replies, said) :]

    while (message := read_frame(0)) is not None:
        threading.Thread(target=reply, args=(decoder.decode(message),), daemon=True).start()
    os._exit(0)  # nothing waits any more for what librdkafka is doing


if __name__ == "__main__":
    main()
