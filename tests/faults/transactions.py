"""Transactions of another owner on the tallies topic, and what readers of committed records see of them."""

from confluent_kafka import Consumer, Producer, TopicPartition
from tests.harness import PARTITIONS, Running
from tests.waiting import PATIENCE_S

from psephos.adapters.kafka import client_config, consumer_config, tallies_topic
from psephos.formats.blocks import State, decode_block
from psephos.formats.tallies import TallyRecord, encode_tally, tally_key


class Another:
    """Another owner, and readers, that are connected before they are needed.

    A transaction stays open for some seconds only: too few for who begins to connect then on a busy machine.
    """

    def __init__(self, running: Running) -> None:
        settings = running.settings
        self._running, self._topic = running, tallies_topic(settings.session_uid)
        self._readers = {
            isolation: Consumer({**consumer_config(settings), "isolation.level": isolation})
            for isolation in ("read_committed", "read_uncommitted")
        }
        for isolation in self._readers:
            self._end(0, isolation)
        self._producer = Producer(
            {**client_config(settings), "transactional.id": f"psephos.{settings.session_uid}.tally.another"}
        )
        self._producer.init_transactions(PATIENCE_S)

    def open_partition(self) -> int:
        """A partition of the tallies topic with an open transaction: its committed end lies below its end."""
        opened = [
            number
            for number in range(PARTITIONS)
            if self._end(number, "read_committed") < self._end(number, "read_uncommitted")
        ]
        assert opened, "no transaction is open"
        return opened[0]

    def publish(self, partition: int) -> int:
        """Commits the partition's newest tally once more as another worker would; returns where it stands."""
        stored = self._running.ledger.head(partition)
        head = None if stored is None else decode_block(stored.payload)
        tally = (
            TallyRecord(partition, 0, 0, 0, State.empty(len(self._running.session.option_ids)))
            if head is None
            else TallyRecord(partition, head.base, head.end, 0, head.state)
        )
        places: list[int | None] = []
        self._producer.begin_transaction()
        self._producer.produce(
            self._topic,
            encode_tally(tally),
            tally_key(partition),
            partition,
            on_delivery=lambda error, message: places.append(message.offset()) if error is None else None,
        )
        self._producer.commit_transaction(PATIENCE_S)
        assert places[0] is not None
        return places[0]

    def sees(self, partition: int, offset: int) -> bool:
        """Whether a reader of committed records gets as far as this offset."""
        return self._end(partition, "read_committed") > offset

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()

    def _end(self, partition: int, isolation: str) -> int:
        place = TopicPartition(self._topic, partition)
        _, high = self._readers[isolation].get_watermark_offsets(place, timeout=PATIENCE_S)
        return int(high)


def committed_offsets(running: Running, partitions: int) -> list[int]:
    """What the tally's group has committed."""
    settings = running.settings
    topic = f"psephos.{settings.session_uid}.votes"
    consumer = Consumer({**client_config(settings), "group.id": f"psephos.{settings.session_uid}.tally"})
    try:
        asked = [TopicPartition(topic, number) for number in range(partitions)]
        return [each.offset for each in consumer.committed(asked, timeout=PATIENCE_S)]
    finally:
        consumer.close()
