"""Transactions of another owner on the tallies topic, and what readers of committed records see of them."""

from confluent_kafka import Consumer, Producer, TopicPartition
from tests.harness import Running

from psephos.codec.blocks import State, decode_block
from psephos.codec.tallies import TallyRecord, encode_tally, tally_key
from psephos.log import client_config, consumer_config, tallies_topic
from psephos.settings import Settings


def open_partition(settings: Settings, partitions: int) -> int:
    """A partition of the tallies topic in which a transaction is open: its committed end lies below its end."""
    ends = _ends(settings, partitions, "read_uncommitted")
    stable = _ends(settings, partitions, "read_committed")
    opened = [number for number in range(partitions) if stable[number] < ends[number]]
    assert opened, "no transaction is open"
    return opened[0]


def publish_as_another(running: Running, partition: int) -> int:
    """Commits the partition's newest tally once more as another worker would; answers where it stands."""
    settings = running.settings
    topic = tallies_topic(settings.session_uid)
    stored = running.ledger.head(partition)
    head = None if stored is None else decode_block(stored.payload)
    tally = (
        TallyRecord(partition, 0, 0, 0, State.empty(len(running.session.option_ids)))
        if head is None
        else TallyRecord(partition, head.base, head.end, 0, head.state)
    )
    places: list[int | None] = []
    producer = Producer(
        {**client_config(settings), "transactional.id": f"psephos.{settings.session_uid}.tally.another"}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(
        topic,
        encode_tally(tally),
        tally_key(partition),
        partition,
        on_delivery=lambda error, message: places.append(message.offset()) if error is None else None,
    )
    producer.commit_transaction(30)
    assert places[0] is not None
    return places[0]


def visible(running: Running, partition: int, offset: int) -> bool:
    """Whether a reader of committed records gets as far as this offset."""
    return _ends(running.settings, partition + 1, "read_committed")[partition] > offset


def committed_offsets(running: Running, partitions: int) -> list[int]:
    """What the tally's group has committed."""
    settings = running.settings
    topic = f"psephos.{settings.session_uid}.votes"
    consumer = Consumer({**client_config(settings), "group.id": f"psephos.{settings.session_uid}.tally"})
    try:
        asked = [TopicPartition(topic, number) for number in range(partitions)]
        return [each.offset for each in consumer.committed(asked, timeout=30)]
    finally:
        consumer.close()


def _ends(settings: Settings, partitions: int, isolation: str) -> list[int]:
    topic = tallies_topic(settings.session_uid)
    consumer = Consumer({**consumer_config(settings), "isolation.level": isolation})
    try:
        pairs = [
            consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)
            for number in range(partitions)
        ]
        return [high for _, high in pairs]
    finally:
        consumer.close()
