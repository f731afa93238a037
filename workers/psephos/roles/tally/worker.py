"""A tally worker: shares the partitions of the votes topic with others and turns records into blocks.

One thread does everything but the puts into the ledger: polling, deciding, all LMDB work, transactions. A round:

    fetch -> decide (store's transactions open) -> put the blocks -> commit the stores -> publish tallies

While the ledger works on a round's blocks, records for the next round are fetched, but nothing is decided.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from psephos.adapters.dynamodb import Conflict, LedgerMissing, LedgerUnavailable
from psephos.adapters.kafka import EAGER, LogAdmin, LogUnavailable, client_config, tally_group, votes_topic
from psephos.formats.blocks import RecordClass
from psephos.platform.backoff import Backoff
from psephos.platform.health import Health
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings
from psephos.roles.tally import metrics
from psephos.roles.tally.crash import crash_point
from psephos.roles.tally.decide import Rules
from psephos.roles.tally.partition import Batch, Partition, PartitionStopped, Stage
from psephos.roles.tally.publisher import Fenced, Publisher
from psephos.roles.tally.store import FolderInUse, StoreFailed, boot_id, claim
from psephos.runtime.bootstrap import Context

FETCH_RECORDS = 32_768  # so that a worker with four partitions far behind fills their blocks
FETCH_S = 0.1
SESSION_TIMEOUT_MS = 10_000
MAX_POLL_MS = 45_000  # also how long the client waits for a silent coordinator while joining the group
_PUTS = 16  # number of partitions whose blocks are put in parallel
_RETRY_S = (0.1, 2.0)  # shortest and longest pause before a put or a recovery is tried again
_REBUILD_S = (0.1, 30.0)  # first and longest pause if a store keeps failing: a rebuild reads the whole ledger
_LOG_ANSWER_S = 2.0  # a broker that takes longer to return the topic's id counts as silent
_KEEP_ALIVE_S = 1.0  # a put that takes longer must not keep the group waiting
_REPORT_S = 1.0
_DONE = object()
# NB: an error that arrives as a message does not say that it is fatal.
_FENCED = (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID)
log = get_logger()

Taken = list[Message]


class Worker:
    """Runs until `stopped` returns true. Raises Fenced if another process has this worker's ordinal or folder."""

    def __init__(self, context: Context, health: Health, stopped: Callable[[], bool]) -> None:
        self._context = context
        self._settings = context.settings
        self._rules = Rules.of(context.session, context.genesis.partitions)
        self._health = health
        self._stopped = stopped
        self._topic = votes_topic(context.settings.session_uid)
        self._boot_id = boot_id()
        self._folder = self._settings.data_dir / f"tally-{self._settings.worker}"
        self._claim = _claimed(self._folder)
        self._partitions: dict[int, Partition] = {}
        self._recoveries: dict[int, Iterator[None]] = {}
        self._retry_at: dict[int, float] = {}
        self._rebuilds: dict[int, Backoff] = {}  # since the last commit, by partition
        self._log = LogAdmin(context.settings, isolated=False)  # asked once per round
        self._confirm_at = 0.0
        self._metadata: Any = None
        self._publish_at = 0.0
        self._report_at = 0.0
        self._pool = ThreadPoolExecutor(_PUTS, thread_name_prefix="put")
        self._publisher = Publisher(context.settings)
        self._consumer = Consumer(_consumer_config(context.settings))
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def run(self) -> None:
        self._health.ready()
        try:
            while not self._stopped():
                self._health.beat()
                self._fetch()
                self._recover()
                self._round()
                self._report()
        finally:
            self.close()

    def close(self) -> None:
        """Leaves the group and closes the stores properly."""
        for partition in list(self._partitions.values()):
            partition.revoke()
        self._partitions.clear()
        self._consumer.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._claim.close()

    # fetch

    def _fetch(self) -> None:
        """Takes what the log has; keeps the group's metadata as of this moment."""
        # NB: the records that wait for a block stay bounded, however far behind the log this worker is.
        room = max(1, FETCH_RECORDS - self._pending())
        messages = self._consumer.consume(room, 0.0 if self._busy() else FETCH_S)
        self._metadata = self._consumer.consumer_group_metadata()
        self._take(messages)
        if any(partition.has_pending for partition in self._partitions.values()):
            crash_point("fetched")

    def _fetch_ahead(self) -> None:
        """Takes records for the next round while the ledger works on this one: for a worker that lags.

        NB: the round in flight keeps the metadata of its own fetch. A partition lost in here loses its round.
        """
        room = 2 * FETCH_RECORDS - self._pending()
        if room > 0:
            self._take(self._consumer.consume(min(FETCH_RECORDS, room), 0.0))

    def _pending(self) -> int:
        """Number of records that wait for their block or for the ledger's reply."""
        return sum(partition.pending for partition in self._partitions.values())

    def _busy(self) -> bool:
        """Returns whether there is work right now. Waiting for a next attempt must not keep a core busy."""
        now = time.monotonic()
        due = any(self._retry_at[number] <= now for number in self._recoveries)
        return due or (now >= self._confirm_at and any(p.has_pending for p in self._partitions.values()))

    def _take(self, messages: Taken) -> None:
        out_of_order: dict[int, Partition] = {}
        for number, run in groupby(messages, _source):
            if number is None:
                for message in run:
                    self._on_error(message.error(), message.partition())
                continue
            partition = self._partitions.get(number)
            if partition is None:
                continue
            try:
                in_order = _hand_over(partition, list(run))
            except PartitionStopped as why:
                self._stop_partition(partition, why)
                continue
            if not in_order:
                out_of_order[number] = partition
        for partition in out_of_order.values():
            metrics.GAPS.inc()
            self._seek(partition, partition.position)

    def _on_error(self, error: KafkaError | None, number: int | None) -> None:
        assert error is not None
        if error.fatal() or error.code() in _FENCED:
            raise Fenced(error.str())
        partition = self._partitions.get(-1 if number is None else number)
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE) and partition:
            why = f"the log does not hold offset {partition.start_offset} ({error.str()})"
            self._stop_partition(partition, PartitionStopped("LogTruncated", why))
            return
        log.warning("log", why=error.str(), partition=number)

    # assignment

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        """Starts new partitions paused; recovery happens outside this callback, in steps."""
        for each in assigned:
            each.offset = 0
        consumer.incremental_assign(assigned)
        consumer.pause(assigned)
        for each in assigned:
            self._start_recovery(self._new_partition(each.partition))
        log.info("partitions assigned", partitions=[each.partition for each in assigned])

    def _on_revoke(self, _consumer: Consumer, revoked: list[TopicPartition]) -> None:
        """Discards the rounds in flight of these partitions."""
        for each in revoked:
            partition = self._partitions.pop(each.partition, None)
            self._recoveries.pop(each.partition, None)
            if partition is not None:
                partition.revoke()
                self._health.ready(f"partition-{each.partition}")
                self._health.ready(f"store-{each.partition}")
                metrics.LAG.remove(each.partition)
        log.info("partitions revoked", partitions=[each.partition for each in revoked])

    def _new_partition(self, number: int) -> Partition:
        context = self._context
        partition = Partition(
            number, context.ledger, self._rules, context.genesis.hash, self._folder, self._boot_id
        )
        self._partitions[number] = partition
        return partition

    def _start_recovery(self, partition: Partition, *, after_s: float = 0.0) -> None:
        self._retry_at[partition.number] = time.monotonic() + after_s
        self._recoveries[partition.number] = partition.recover()

    def _recover(self) -> None:
        """Runs one step of each recovery in progress."""
        now = time.monotonic()
        for number, steps in list(self._recoveries.items()):
            if self._retry_at[number] > now:
                continue
            partition = self._partitions[number]
            try:
                done = next(steps, _DONE) is _DONE
                crash_point("recovering")
                if done:
                    self._recovered(partition)
                    self._recoveries.pop(number, None)
            except (LedgerUnavailable, LedgerMissing, KafkaException) as error:
                log.warning("recovery waits", partition=number, why=str(error))
                self._start_recovery(partition, after_s=random.uniform(*_RETRY_S))  # noqa: S311
                return  # a failing read takes many seconds: the group and /livez must not wait for another one
            except StoreFailed as error:
                self._rebuild(partition, str(error))
            except PartitionStopped as why:
                self._stop_partition(partition, why)

    def _recovered(self, partition: Partition) -> None:
        here = TopicPartition(self._topic, partition.number)
        _low, high = self._consumer.get_watermark_offsets(here, timeout=10.0, cached=False) or (0, 0)
        if high < partition.head.end:
            why = f"the log ends at {high}, the ledger has counted up to {partition.head.end}"
            self._stop_partition(partition, PartitionStopped("LogTruncated", why))
            return
        self._seek(partition, partition.start_offset)
        self._consumer.resume([here])
        self._health.ready(f"store-{partition.number}")
        log.info(
            "partition recovered",
            partition=partition.number,
            end=partition.head.end,
            blocks=partition.recovered_blocks,
        )

    def _seek(self, partition: Partition, offset: int) -> None:
        """Continues from this offset. An assignment too recent to seek is assigned again at the offset."""
        at = TopicPartition(self._topic, partition.number, offset)
        try:
            self._consumer.seek(at)
        except KafkaException:
            self._consumer.incremental_unassign([at])
            self._consumer.incremental_assign([at])

    def _rebuild(self, partition: Partition, why: str) -> None:
        """Drops the store and everything pending and starts over from the ledger, after a pause that grows."""
        self._consumer.pause([TopicPartition(self._topic, partition.number)])
        self._health.not_ready(f"store-{partition.number}", why)
        partition.fail_store(why)
        backoff = self._rebuilds.setdefault(partition.number, Backoff(*_REBUILD_S))
        self._start_recovery(partition, after_s=backoff.next_s())

    def _stop_partition(self, partition: Partition, why: PartitionStopped) -> None:
        self._recoveries.pop(partition.number, None)
        self._consumer.pause([TopicPartition(self._topic, partition.number)])
        partition.stop(why)
        self._health.not_ready(f"partition-{partition.number}", str(why))
        log.error("partition stopped", partition=partition.number, code=why.code, why=str(why))

    # a round

    def _round(self) -> None:
        batches = list(self._decide()) if self._confirm_log() else []
        if batches:
            crash_point("decided")
        self._put(batches)
        self._publish()

    def _confirm_log(self) -> bool:
        """Returns whether the pending records are from the log that the ledger counts; asks after their fetch.

        A topic that was deleted and recreated has the same name, and its offsets may well continue where the
        ledger ends. Its records are dropped and the partitions stopped.
        """
        pending = [partition for partition in self._partitions.values() if partition.has_pending]
        if not pending:
            return True
        if time.monotonic() < self._confirm_at:
            return False
        try:
            described = self._log.describe_votes(_LOG_ANSWER_S)
            why = "the votes topic is gone"
        except LogUnavailable as error:
            described, why = None, str(error)
        fixed = self._context.genesis.topic_id
        if described is None:  # a broker that has just started may not know the topic yet
            log.warning("log not confirmed", why=why)
            self._confirm_at = time.monotonic() + _RETRY_S[1]
        elif described[0] != fixed:
            for partition in pending:
                why = f"the votes topic was made anew: its id is {described[0]}, the ledger counts {fixed}"
                self._stop_partition(partition, PartitionStopped("LogTruncated", why))
        return described is not None and described[0] == fixed

    def _decide(self) -> Iterator[Batch]:
        for partition in list(self._partitions.values()):
            if not partition.has_pending:
                continue
            try:
                yield partition.decide()
            except StoreFailed as error:
                self._rebuild(partition, str(error))

    def _put(self, batches: list[Batch]) -> None:
        """Puts the blocks in parallel; each is settled when its reply arrives. At most one put per partition."""
        began = time.monotonic()
        flying = {self._submit(batch): batch for batch in batches}
        if sum(batch.block.end - batch.block.base for batch in batches) >= FETCH_RECORDS // 4:
            self._fetch_ahead()
        while flying:
            done, _ = wait(flying, timeout=_KEEP_ALIVE_S, return_when=FIRST_COMPLETED)
            for future in done:
                again = self._settle(flying.pop(future), future)
                if again is not None:
                    flying[self._submit(again, pause_s=random.uniform(*_RETRY_S))] = again  # noqa: S311
            if time.monotonic() - began > _KEEP_ALIVE_S:
                self._keep_alive()
        if batches:
            metrics.PUT_SECONDS.observe(time.monotonic() - began)

    def _submit(self, batch: Batch, *, pause_s: float = 0.0) -> "Future[None]":
        def put() -> None:
            time.sleep(pause_s)
            self._context.ledger.put_block(batch.partition.number, batch.block.base, batch.payload)

        return self._pool.submit(put)

    def _settle(self, batch: Batch, future: "Future[None]") -> Batch | None:
        """Acts on the ledger's reply to a batch; returns the batch if it must be put again."""
        partition = batch.partition
        if partition.revoked or partition.stage is not Stage.RUNNING:
            return None
        try:
            future.result()
            self._commit(batch)
        except Conflict as conflict:
            self._resolve(batch, conflict.payload)
        except (LedgerUnavailable, LedgerMissing) as error:
            if self._stopped():
                return None
            metrics.LEDGER_RETRIES.inc()
            log.warning("ledger", partition=partition.number, why=str(error))
            return batch
        except StoreFailed as error:
            self._rebuild(partition, str(error))
        return None

    def _resolve(self, batch: Batch, stored: bytes) -> None:
        """Handles a block that is already at our base: our own, whose reply was lost, or another owner's."""
        partition = batch.partition
        try:
            if stored == batch.payload:
                metrics.LOST_ANSWERS.inc()
                self._commit(batch)
                return
            partition.adopt(stored)
            metrics.ADOPTED.inc()
            log.warning("adopted another owner's block", partition=partition.number, end=partition.head.end)
        except StoreFailed as error:
            self._rebuild(partition, str(error))
        except PartitionStopped as why:
            self._stop_partition(partition, why)

    def _commit(self, batch: Batch) -> None:
        crash_point("after-put")
        batch.partition.commit(batch)
        crash_point("committed")
        self._rebuilds.pop(batch.partition.number, None)
        block = batch.block
        metrics.BLOCKS.labels(block.partition).inc()
        metrics.RECORDS.labels("accepted").inc(len(block.accepted))
        for code, number in Counter(code for _, code in block.others).items():
            metrics.RECORDS.labels(RecordClass(code).name.lower().replace("_", "-")).inc(number)
        log.info(
            "block",
            worker=self._settings.worker,
            partition=block.partition,
            base=block.base,
            end=block.end,
            accepted=len(block.accepted),
            bytes=len(batch.payload),
        )

    def _keep_alive(self) -> None:
        """Polls while a put takes long, so that this member stays in the group; takes in nothing more."""
        assigned = self._consumer.assignment()
        self._consumer.pause(assigned)
        metrics.HELD_BACK.inc()
        self._health.beat()
        self._take(self._consumer.consume(1, 0.0))
        running = [each for each in assigned if self._takes(each.partition)]
        self._consumer.resume(running)

    def _takes(self, number: int) -> bool:
        partition = self._partitions.get(number)
        return partition is not None and partition.stage in (Stage.RUNNING, Stage.VERIFYING)

    def _publish(self) -> None:
        """Publishes, in one transaction, the tallies of all partitions that are behind their ledger heads."""
        now = time.monotonic()
        behind = [partition for partition in self._partitions.values() if partition.unpublished]
        if not behind or now < self._publish_at:
            return
        tallies = [partition.tally() for partition in behind]
        crash_point("publishing")
        if self._publisher.publish(tallies, self._metadata):
            for partition, tally in zip(behind, tallies, strict=True):
                partition.published_end = tally.end
            crash_point("published")
        else:
            self._publish_at = now + _RETRY_S[0]

    def _report(self) -> None:
        now = time.monotonic()
        if now < self._report_at:
            return
        self._report_at = now + _REPORT_S
        stages = [partition.stage for partition in self._partitions.values()]
        for stage in Stage:
            metrics.OWNED.labels(stage.value).set(stages.count(stage))
        for partition in self._partitions.values():
            here = TopicPartition(self._topic, partition.number)
            marks = self._consumer.get_watermark_offsets(here, timeout=1.0, cached=True)
            if marks is not None and marks[1] >= 0:
                metrics.LAG.labels(partition.number).set(max(0, marks[1] - partition.head.end))


def _source(message: Message) -> int | None:
    """Returns the partition of a record, None for an error."""
    return message.partition() if message.error() is None else None


def _hand_over(partition: Partition, run: Taken) -> bool:
    """Hands over records of a partition; returns False if one is above the next offset."""
    offsets = [message.offset() or 0 for message in run]
    records = [(message.key(), message.value()) for message in run]
    first = offsets[0]
    if offsets == list(range(first, first + len(run))):
        return partition.take_run(first, records)
    return all(partition.take(offset, record) for offset, record in zip(offsets, records, strict=True))


def _claimed(folder: Path) -> IO[bytes]:
    try:
        return claim(folder)
    except FolderInUse as error:
        raise Fenced(str(error)) from None


def _consumer_config(settings: Settings) -> dict[str, Any]:
    return {
        **client_config(settings),
        "group.id": tally_group(settings.session_uid),
        # A worker that restarts within the session time-out gets its partitions back at once.
        "group.instance.id": f"tally-{settings.worker}",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": SESSION_TIMEOUT_MS,
        "heartbeat.interval.ms": 2_000,
        "max.poll.interval.ms": MAX_POLL_MS,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "fetch.wait.max.ms": 50,
        **EAGER,
    }
