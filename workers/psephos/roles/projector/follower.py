"""Follows the tallies topic in a thread: every partition by hand, from the beginning; only committed records."""

import threading
from collections.abc import Callable

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from psephos.adapters.kafka import consumer_config, tallies_topic
from psephos.formats.errors import Malformed
from psephos.formats.tallies import TallyRecord, decode_tally
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings
from psephos.roles.projector import metrics

_POLL_S = 0.2
_BATCH = 500
log = get_logger()


class TalliesFollower:
    """Hands over records in batches until `close`."""

    def __init__(
        self, settings: Settings, partitions: int, on_records: Callable[[list[TallyRecord]], None]
    ) -> None:
        """`on_records` is called in the follower's thread."""
        self._settings = settings
        self._partitions = partitions
        self._on_records = on_records
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tallies", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        topic = tallies_topic(self._settings.session_uid)
        # If an offset is gone, start again from the earliest: tallies are absolute.
        consumer = Consumer(
            {**consumer_config(self._settings), "auto.offset.reset": "earliest", "fetch.wait.max.ms": 100}
        )
        consumer.assign([TopicPartition(topic, index, OFFSET_BEGINNING) for index in range(self._partitions)])
        while not self._stop.is_set():
            records = []
            for message in _arrived(consumer):
                error = message.error()
                if error is None:
                    records += _decoded(message.value())
                elif error.code() != KafkaError._PARTITION_EOF:
                    log.warning("tallies topic", why=error.str())
            if records:
                self._on_records(records)
        consumer.close()


def _arrived(consumer: Consumer) -> list[Message]:
    """Returns what has arrived, without delay; `consume` with a time-out waits all of it for a full batch."""
    first = consumer.poll(_POLL_S)
    return [] if first is None else [first, *consumer.consume(_BATCH, 0.0)]


def _decoded(value: bytes | None) -> list[TallyRecord]:
    try:
        return [decode_tally(value)]
    except Malformed as error:
        metrics.TALLIES.labels("malformed").inc()
        log.warning("tally record ignored", why=str(error))
        return []
