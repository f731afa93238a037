"""The writes that end a votes topic (close markers, probes of the seal), and the brokers' own clock."""

from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, Producer

from psephos.adapters.kafka.client import LogUnavailable, client_config, control_topic, votes_topic
from psephos.formats.votes import MARKER_KEY, encode_marker
from psephos.platform.settings import Settings

CLOCK_KEY = b"clock"  # not a session's uid, which is the key of the state in its control topic
PROBE_KEY = b"psephos.probe"  # 13 bytes: never a voter. One that gets through is late: it comes after a marker
_ANSWER_S = 20.0
_PROBE_S = 5.0

Reports = dict[int, tuple[KafkaError | None, Message]]


def broker_time_ms(settings: Settings) -> int:
    """The time at the broker that leads the control topic, in ms since 1970: the append time of an empty record.

    Raises LogUnavailable.
    """
    reports: Reports = {}
    producer = Producer({**client_config(settings), "acks": "all", "linger.ms": 0})
    producer.produce(control_topic(settings.session_uid), None, CLOCK_KEY, on_delivery=_into(reports))
    producer.flush(_ANSWER_S)
    for error, message in reports.values():
        kind, time_ms = message.timestamp()
        if error is None and kind == TIMESTAMP_LOG_APPEND_TIME:
            return time_ms
        raise LogUnavailable(f"the control topic told no append time: {error.str() if error else 'CreateTime'}")
    raise LogUnavailable("the control topic took no record within 20 s")


def mark_closed(settings: Settings, partitions: int, closes_at: int) -> list[int]:
    """Writes a close marker into every votes partition and waits for each acknowledgement.

    Returns the offset after each marker. A partition that refuses it because of its size has been sealed, which
    only ever follows an acknowledged marker: that one counts, and the offset is 0. Raises LogUnavailable.
    """
    producer = Producer(
        {
            **client_config(settings),
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 0,
            "message.timeout.ms": int(_ANSWER_S * 1000),
        }
    )
    reports = _produce(settings, producer, partitions, MARKER_KEY, encode_marker(closes_at), _ANSWER_S + 5)
    for partition in range(partitions):
        error = _error(reports, partition)
        if error is not None and error.code() != KafkaError.MSG_SIZE_TOO_LARGE:
            raise LogUnavailable(f"votes partition {partition} took no close marker: {error.str()}")
    return [_behind(*reports[partition]) for partition in range(partitions)]


def refusing_partitions(settings: Settings, partitions: int) -> set[int]:
    """The votes partitions whose leader refused a probe record as too large: they are sealed."""
    producer = Producer({**client_config(settings), "acks": "all", "linger.ms": 0, "message.timeout.ms": 3_000})
    reports = _produce(settings, producer, partitions, PROBE_KEY, b"", _PROBE_S)
    return {
        partition
        for partition in range(partitions)
        if (error := _error(reports, partition)) is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE
    }


def _produce(
    settings: Settings, producer: Producer, partitions: int, key: bytes, value: bytes, timeout_s: float
) -> Reports:
    reports: Reports = {}
    topic = votes_topic(settings.session_uid)
    try:
        for partition in range(partitions):
            producer.produce(topic, value, key, partition, on_delivery=_into(reports))
    except KafkaException as error:
        raise LogUnavailable(str(error)) from None
    producer.flush(timeout_s)
    return reports


def _behind(error: KafkaError | None, message: Message) -> int:
    offset = message.offset()
    return 0 if error is not None or offset is None else offset + 1


def _error(reports: Reports, partition: int) -> KafkaError | None:
    if partition not in reports:
        return KafkaError(KafkaError._TIMED_OUT)
    return reports[partition][0]


def _into(reports: Reports) -> Any:
    def delivered(error: KafkaError | None, message: Message) -> None:
        reports[message.partition() or 0] = (error, message)

    return delivered
