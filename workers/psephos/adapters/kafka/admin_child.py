"""Kafka's admin requests, and the process that makes them for another one: `python -P admin_child.py`, by pipes.

librdkafka can end the whole process that makes such a request. One to a group's coordinator that has timed out is
freed, but what waits for the coordinator's connection is not told, and uses it once the connection is there
(confluentinc/librdkafka 4605: `rd_kafka_enq_once_del_source_return: Assertion eonce->refcnt > 0`). The other admin
requests are built on the same parts. So a process that must not end has them made by this one, which may:
`psephos.adapters.kafka.admin_process` is the other half.

NB: it runs as a file and imports nothing else of psephos: it has to be there within a fraction of a second.
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

from psephos.platform.errors import PsephosError

SLACK_S: Final = 5.0
"""`perform` takes so much longer than a request's own time-out at most."""

_LENGTH = struct.Struct(">I")
_CLIENTS = 2  # one is in use; there are two where a password has just been changed
_NEVER_S = 600.0

Config = Mapping[str, str | int | bool]


class Topic(msgspec.Struct, frozen=True):
    """A topic as it is to be made."""

    name: str
    partitions: int
    replication: int
    config: dict[str, str]


class _Request(msgspec.Struct, frozen=True, tag=True):
    """Each may be made twice: the second one finds done what the first one did."""

    timeout_s: float


class CreateTopics(_Request, frozen=True):
    """Makes those that are not there."""

    topics: list[Topic]


class DeleteTopics(_Request, frozen=True):
    """Deletes those that are there."""

    names: list[str]


class DescribeTopic(_Request, frozen=True):
    """(topic id, partition count)."""

    name: str


class SetTopicConfig(_Request, frozen=True):
    """Sets one property of a topic."""

    topic: str
    name: str
    value: str


class CountOwned(_Request, frozen=True):
    """How many partitions of a topic the members of a group have between them."""

    group: str
    topic: str


Request = CreateTopics | DeleteTopics | DescribeTopic | SetTopicConfig | CountOwned


class Asked(msgspec.Struct, frozen=True):
    """A request on its way to the child, with the configuration of the client that is to make it."""

    number: int
    config: dict[str, str | int | bool]
    request: Request


class Said(msgspec.Struct, frozen=True):
    """What came of the request of this number. With a reason it failed, by this code of librdkafka."""

    number: int
    value: Any = None
    code: int = 0
    reason: str | None = None


class RequestFailed(PsephosError):
    """A broker refused a request, or none answered in time. `code` is librdkafka's."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


# --- Requests


def perform(client: AdminClient, request: Request) -> Any:
    """Makes a request and waits for what comes of it. Raises RequestFailed."""
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
            # NB: librdkafka's own time-out comes when this client is long gone: it is what ends in the abort.
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
    """NB: an error of the future is not raised: it would hold this stack, and the stack the future and its client,
    which would then live until the next garbage collection, with a request that has timed out."""
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
    """The message as it goes through a pipe."""
    payload = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(payload)) + payload


def read_frame(pipe: int) -> bytes | None:
    """The next message, still encoded. None: the other end is closed."""
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
    """Clients by their configuration, which each request brings with it: passwords change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: OrderedDict[bytes, AdminClient] = OrderedDict()
        logger = logging.getLogger("librdkafka")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        self._quiet: dict[str, Any] = {"logger": logger}

    def perform(self, asked: Asked) -> Any:
        """NB: owners are asked for by a client that lives no longer than the question. Of a broker that has
        restarted librdkafka 2.x keeps the old connection in mind as the group's coordinator: each further question
        by the same client times out (issue 5511 there)."""
        if isinstance(asked.request, CountOwned):
            return perform(self._new(asked.config), asked.request)
        key = msgspec.msgpack.encode(sorted(asked.config.items()))
        try:
            return perform(self._kept(key, asked.config), asked.request)
        except RequestFailed:
            # Its client may go on asking a controller that has died: the next question has another one.
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
    except Exception as error:  # a configuration that is no good, or a bug here: whoever asked must hear of it
        return Said(asked.number, code=KafkaError._FAIL, reason=repr(error))


def main() -> None:
    """Until standard input ends. NB: what others print goes to standard error: standard output is for frames."""
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
    os._exit(0)  # nobody waits any more for what librdkafka is doing


if __name__ == "__main__":
    main()
