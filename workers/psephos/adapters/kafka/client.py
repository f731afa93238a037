"""The configuration of every client of the log, and the names of a session's topics."""

import functools
import logging
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from psephos.platform.errors import BAD_INPUT, PsephosError
from psephos.platform.settings import Settings, SettingsError


class LogUnavailable(PsephosError):
    """No broker answered in time."""

    exit_code = BAD_INPUT


def votes_topic(session_uid: str) -> str:
    """The topic of every accepted request, in order, never deleted by time or size."""
    return f"psephos.{session_uid}.votes"


def tallies_topic(session_uid: str) -> str:
    """The topic of absolute tallies by partition, compacted."""
    return f"psephos.{session_uid}.tallies"


def control_topic(session_uid: str) -> str:
    """The topic of the session's phase and times, compacted, with one partition."""
    return f"psephos.{session_uid}.control"


def tally_group(session_uid: str) -> str:
    """The consumer group of the tally workers."""
    return f"psephos.{session_uid}.tally"


_quiet = logging.getLogger("psephos.librdkafka")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False  # librdkafka's own log lines; what matters reaches our logs as errors of calls


EAGER: Final = {"fetch.queue.backoff.ms": 10}
"""For consumers: librdkafka's default pause of 1 s, whenever enough is queued, outlasts what is queued."""


def connection_config(settings: Settings) -> dict[str, str | int | bool]:
    """The librdkafka properties common to all clients, also those in other processes. Raises SettingsError."""
    return {
        "bootstrap.servers": settings.kafka_bootstrap,
        "socket.keepalive.enable": True,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 2_000,
        **_properties(settings),
    }


def client_config(settings: Settings) -> dict[str, Any]:
    """`connection_config` for a client in this process. Raises SettingsError."""
    return {**connection_config(settings), "logger": _quiet}


def consumer_config(settings: Settings) -> dict[str, Any]:
    """For a consumer with manual assignment that commits nothing and reads only committed records."""
    return {
        **client_config(settings),
        "group.id": f"psephos.{settings.session_uid}.unused",  # librdkafka wants one
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
        "enable.partition.eof": True,
        **EAGER,
    }


def _properties(settings: Settings) -> dict[str, str]:
    path = settings.kafka_properties_file
    if path is None:
        return {}
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise SettingsError(f"PSEPHOS_KAFKA_PROPERTIES_FILE: {path}: {error.strerror}") from None
    pairs = [line.partition("=") for line in lines if line.strip() and not line.startswith("#")]
    properties = dict(_property(name.strip(), value.strip()) for name, _, value in pairs)
    if (wrong := _wrong(tuple(properties.items()))) is not None:
        raise SettingsError(f"PSEPHOS_KAFKA_PROPERTIES_FILE: {path}: {wrong}")
    return properties


def _property(name: str, value: str) -> tuple[str, str]:
    """The property; in a certificate or key, which has one line here, each `\\n` becomes a line break."""
    return name, value.replace("\\n", "\n") if name.endswith(".pem") else value


@functools.lru_cache(maxsize=4)
def _wrong(properties: tuple[tuple[str, str], ...]) -> str | None:
    """The reason why librdkafka rejects these properties. Only clients get it, so one without brokers is made."""
    config: dict[str, Any] = {**dict(properties), "logger": _quiet}
    try:
        AdminClient(config)
    except KafkaException as error:
        return str(error.args[0].str())
    return None
