"""The log as Kafka keeps it: partitions, a consumer group with generations, transactions that are fenced.

The group is librdkafka's cooperative protocol with static members: a partition changes hands only after its
owner's revoke callback was served, or after the coordinator expelled that owner. An expelled process hears of it
at its next poll, or later: until then it goes on with what it has. Its broker-side view is what fences it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from tests.model.processes import Clock, Process, notice, point, process

from psephos.formats.tallies import TallyRecord, decode_tally

Record = tuple[bytes | None, bytes | None]
FETCHES = (2, 1, 7, 3, 1, 8)  # records of a partition that one poll after the other hands over
LOOP_S = 0.01  # what a round takes on the model's clock


class Metadata(NamedTuple):
    """A consumer's group metadata at one moment."""

    instance: str
    member: int
    generation: int


class Message:
    """A record or an error as `consume` hands it over."""

    def __init__(self, partition: int, offset: int, record: Record, error: KafkaError | None = None) -> None:
        self._fields = (partition, offset, record, error)

    def partition(self) -> int:
        return self._fields[0]

    def offset(self) -> int:
        return self._fields[1]

    def key(self) -> bytes | None:
        return self._fields[2][0]

    def value(self) -> bytes | None:
        return self._fields[2][1]

    def error(self) -> KafkaError | None:
        return self._fields[3]


class Published(NamedTuple):
    """A committed tally, the offset beside it, and who owned the partition when the offset was sent."""

    tally: TallyRecord
    offset: int
    by: str
    owner: str | None


class Cluster:
    """Brokers and coordinators: what is true, whatever a client believes."""

    def __init__(self, partitions: int, clock: Clock, on_published: Callable[[Published], None]) -> None:
        self.clock = clock
        self.log: list[list[Record]] = [[] for _ in range(partitions)]
        self.silent = False  # brokers tell nothing of their topics
        self.sealing = False
        self.sealed = [False] * partitions
        self.faults: dict[str, list[str]] = {}  # by process, for its next transactions
        self.group = Group(partitions)
        self.consumers: list[Consumer] = []
        self.epochs: Counter[str] = Counter()  # by transactional id
        self.expired: set[str] = set()  # transactional ids whose open transaction the coordinator ended
        self.counts: Counter[str] = Counter()
        self.on_published = on_published

    def append(self, partition: int, record: Record) -> int | None:
        """The record's offset, None if a seal refused it."""
        if self.sealed[partition]:
            return None
        self.log[partition].append(record)
        return len(self.log[partition]) - 1

    def ends(self) -> list[int]:
        return [len(records) for records in self.log]


class Member:
    """A consumer as the coordinator knows it."""

    def __init__(self, identity: int, consumer: "Consumer") -> None:
        self.identity = identity
        self.consumer = consumer
        self.granted: set[int] = set()


class Group:
    """The coordinator of the consumer group."""

    def __init__(self, partitions: int) -> None:
        self.generation = 0
        self.members: dict[str, Member] = {}
        self._partitions = range(partitions)
        self._identities = 0
        self._unbalanced = False

    def join(self, consumer: "Consumer") -> None:
        """A static member that comes again before its session ended gets its partitions back at once."""
        self._identities += 1
        known = self.members.get(consumer.instance)
        if known is None:
            self.members[consumer.instance] = Member(self._identities, consumer)
            consumer.metadata = Metadata(consumer.instance, self._identities, -1)
            self._unbalanced = True
            return
        known.consumer.replaced = True
        known.identity, known.consumer = self._identities, consumer
        consumer.metadata = Metadata(consumer.instance, known.identity, self.generation)
        consumer.calls.append(("assign", sorted(known.granted)))

    def expel(self, instance: str) -> None:
        """Its session time-out is over: its partitions are free."""
        if self.members.pop(instance, None) is not None:
            self._unbalanced = True

    def knows(self, consumer: "Consumer") -> bool:
        member = self.members.get(consumer.instance)
        return member is not None and member.consumer is consumer

    def owner(self, partition: int) -> str | None:
        """The instance that this generation grants the partition to."""
        return next((name for name, member in self.members.items() if partition in member.granted), None)

    def rebalance(self) -> None:
        """Completes a rebalance if one is due and every member has joined it."""
        members = list(self.members.values())
        ready = all(member.consumer.process.alive and not member.consumer.calls for member in members)
        if not self._unbalanced or not members or not ready:
            return
        self.generation += 1
        self._unbalanced = False
        target = self._spread(members)
        for member in members:
            consumer = member.consumer
            claimed = {p for other in members if other is not member for p in other.consumer.assigned}
            member.granted = target[consumer.instance] - claimed
            self._unbalanced |= bool(target[consumer.instance] & claimed)
            consumer.metadata = Metadata(consumer.instance, member.identity, self.generation)
            revoked, added = consumer.assigned - member.granted, member.granted - consumer.assigned
            if revoked:
                consumer.calls.append(("revoke", sorted(revoked)))
            if added:
                consumer.calls.append(("assign", sorted(added)))

    def _spread(self, members: Sequence[Member]) -> dict[str, set[int]]:
        """Evenly; each keeps what it has where that is even."""
        most = -(-len(self._partitions) // len(members))
        target = {m.consumer.instance: set(sorted(m.consumer.assigned)[:most]) for m in members}
        free = [p for p in self._partitions if not any(p in kept for kept in target.values())]
        for partition in free:
            min(target.values(), key=len).add(partition)
        return target

    def validate(self, metadata: Metadata) -> int | None:
        """The error of a transactional offset commit with this metadata, None if it is taken."""
        if not self.members and metadata.generation < 0:
            return None
        member = self.members.get(metadata.instance)
        if member is None:
            return int(KafkaError.UNKNOWN_MEMBER_ID)
        if member.identity != metadata.member:
            return int(KafkaError.FENCED_INSTANCE_ID)
        if self.generation != metadata.generation:
            return int(KafkaError.ILLEGAL_GENERATION)
        return None


class Consumer:
    """Stands in for confluent_kafka.Consumer."""

    def __init__(self, cluster: Cluster, config: dict[str, Any]) -> None:
        assert config["auto.offset.reset"] == "error"
        assert config["partition.assignment.strategy"] == "cooperative-sticky"
        assert not config["enable.auto.commit"]
        self.cluster = cluster
        self.process: Process = process()
        self.instance: str = config["group.instance.id"]
        self.assigned: set[int] = set()
        self.calls: list[tuple[str, list[int]]] = []  # callbacks that wait for a poll
        self.replaced = False
        self.metadata = Metadata(self.instance, 0, -1)
        self._positions: dict[int, int] = {}
        self._paused: set[int] = set()
        self._flowing: set[int] = set()  # has handed over a record since the last seek
        self._turn = len(cluster.consumers)
        self._topic = ""
        cluster.consumers.append(self)

    def subscribe(self, topics: list[str], *, on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        self._topic = topics[0]
        self._callbacks = {"assign": on_assign, "revoke": on_revoke, "lost": on_lost}
        self.cluster.group.join(self)

    def heartbeat(self) -> None:
        """The background thread: hears of an expulsion, takes part in rebalances."""
        if self.replaced:
            return
        lost = ("lost", sorted(self.assigned))
        if not self.cluster.group.knows(self) and lost not in self.calls:
            self.metadata = Metadata(self.instance, 0, -1)
            self.calls = [lost]
        self.cluster.group.rebalance()

    def consume(self, number: int, timeout: float) -> list[Message]:
        point("poll")
        self.cluster.clock.now += LOOP_S + timeout
        self.heartbeat()
        if self.replaced:
            fenced = KafkaError(KafkaError._FATAL, "static member replaced")  # as a message it is not `fatal()`
            return [Message(0, 0, (None, None), fenced)]
        self._serve()
        records = self._fetched(number)
        notice("records", [(record.partition(), record.offset()) for record in records])
        return records

    def consumer_group_metadata(self) -> Metadata:
        return self.metadata

    def incremental_assign(self, assigned: list[TopicPartition]) -> None:
        for each in assigned:
            self.assigned.add(each.partition)
            self._positions[each.partition] = max(0, each.offset)
            self._flowing.discard(each.partition)

    def incremental_unassign(self, revoked: list[TopicPartition]) -> None:
        for each in revoked:
            self.assigned.discard(each.partition)
            self._paused.discard(each.partition)
            self._flowing.discard(each.partition)

    def pause(self, partitions: list[TopicPartition]) -> None:
        self._paused |= {each.partition for each in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self._paused -= {each.partition for each in partitions}

    def seek(self, to: TopicPartition) -> None:
        if to.partition not in self.assigned:
            raise KafkaException(KafkaError(KafkaError._STATE, "seek of a partition that is not assigned"))
        self._positions[to.partition] = to.offset
        self._flowing.discard(to.partition)

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in sorted(self.assigned)]

    def get_watermark_offsets(self, of: TopicPartition, **_: Any) -> tuple[int, int]:
        return 0, len(self.cluster.log[of.partition])

    def close(self) -> None:
        """A static member stays in its group until its session ends."""
        point("leaving the group")
        self._call("revoke", sorted(self.assigned))

    def next_fetch(self) -> int:
        """Most records of a partition that the next poll hands over."""
        return FETCHES[(self._turn + 1) % len(FETCHES)]

    def skip(self, records: int) -> None:
        """A fault: in the midst of the log, the next records handed over are not the next ones."""
        for partition in self._flowing - self._paused:
            position = self._positions[partition] + records
            if position < len(self.cluster.log[partition]):
                self._positions[partition] = position

    def _serve(self) -> None:
        while self.calls:
            kind, partitions = self.calls[0]
            self._call(kind, partitions)
            self.calls.pop(0)
            if kind == "lost":
                self.cluster.group.join(self)

    def _call(self, kind: str, partitions: list[int]) -> None:
        these = [TopicPartition(self._topic, partition) for partition in partitions]
        self._callbacks[kind](self, these)
        if kind != "assign":
            self.incremental_unassign(these)
            self.cluster.group._unbalanced |= kind == "revoke"

    def _fetched(self, number: int) -> list[Message]:
        """Records of each partition in order, the partitions in turns."""
        most = self.next_fetch()
        self._turn += 1
        found: list[Message] = []
        open_now = sorted(self.assigned - self._paused)
        for partition in open_now[self._turn % 2 :] + open_now[: self._turn % 2]:
            start = self._positions[partition]
            take = min(most, number - len(found))
            for offset, record in enumerate(self.cluster.log[partition][start : start + take], start):
                found.append(Message(partition, offset, record))
                self._positions[partition] = offset + 1
                self._flowing.add(partition)
        return found


class Producer:
    """Stands in for confluent_kafka.Producer, with a transactional id."""

    def __init__(self, cluster: Cluster, config: dict[str, Any]) -> None:
        self._cluster = cluster
        self._process = process()
        self._id: str = config["transactional.id"]
        self._epoch = 0
        self._state = "none"  # none, ready, open; committing, aborting: while an answer is awaited
        self._tallies: list[TallyRecord] = []
        self._offsets: dict[int, tuple[int, str | None]] = {}
        self._committed = False
        self._aborts_end = True

    def init_transactions(self, _timeout: float) -> None:
        point("init transactions")
        self._cluster.epochs[self._id] += 1
        self._cluster.expired.discard(self._id)
        self._epoch = self._cluster.epochs[self._id]
        self._state = "ready"

    def begin_transaction(self) -> None:
        self._require("ready", "begin_transaction")
        self._tallies, self._offsets, self._committed = [], {}, False
        self._state = "open"

    def produce(self, _topic: str, value: bytes, _key: bytes, _partition: int) -> None:
        self._tallies.append(decode_tally(value))

    def send_offsets_to_transaction(
        self, offsets: list[TopicPartition], metadata: Metadata, _timeout: float
    ) -> None:
        self._require("open", "send_offsets_to_transaction")
        point("offsets on their way", [(each.partition, each.offset) for each in offsets])
        self._check_epoch()
        self._fault("offsets")
        error = self._cluster.group.validate(metadata)
        if error is not None:
            self._cluster.counts["transaction fenced by the group"] += 1
            notice("transaction refused")
            raise KafkaException(KafkaError(error, "fenced by the group", txn_requires_abort=True))
        owner = self._cluster.group.owner
        self._offsets = {each.partition: (each.offset, owner(each.partition)) for each in offsets}
        point("offsets sent")

    def flush(self, _timeout: float) -> int:
        """How many records are not acknowledged yet."""
        point("tallies acknowledged")
        return 0

    def commit_transaction(self, _timeout: float) -> None:
        if self._state != "committing":
            self._require("open", "commit_transaction")
        point("commit on its way")
        self._check_epoch()
        self._state = "committing"
        self._fault("commit")
        if not self._committed:
            self._commit()
        point("commit answered")
        self._fault("answer")
        self._state = "ready"

    def abort_transaction(self, _timeout: float) -> None:
        """A commit that timed out goes on in the client: it can be awaited, not aborted."""
        if self._state == "committing":
            raise KafkaException(KafkaError(KafkaError._CONFLICT, "commit_transaction is in progress"))
        if self._state == "ready":
            raise KafkaException(KafkaError(KafkaError._STATE, "no transaction to abort"))
        self._state = "aborting"
        point("abort on its way")
        self._check_epoch()
        self._fault("abort")
        self._fault("endless")
        self._state = "ready"

    def _commit(self) -> None:
        self._committed = True
        for tally in self._tallies:
            offset, owner = self._offsets[tally.partition]
            self._cluster.on_published(Published(tally, offset, f"tally-{self._process.machine.name}", owner))

    def _require(self, state: str, call: str) -> None:
        if self._state != state:
            raise KafkaException(KafkaError(KafkaError._STATE, f"{call} in state {self._state}"))

    def _check_epoch(self) -> None:
        """A transaction that the coordinator ended has raised the epoch, too: this producer is done for."""
        if self._epoch != self._cluster.epochs[self._id]:
            self._cluster.counts["producer fenced"] += 1
            raise KafkaException(KafkaError(KafkaError._FENCED, "a newer producer has this id", fatal=True))
        if self._id in self._cluster.expired:
            self._cluster.counts["transaction timed out"] += 1
            raise KafkaException(KafkaError(KafkaError._FENCED, "timed out", fatal=True))

    def _fault(self, where: str) -> None:
        """`offsets`, `commit`, `answer`, `abort`: the coordinator does not answer here; the client says retriable.
        `stuck`: the call with the offsets never comes back. `endless`: no abort of this producer comes to an end.
        """
        waiting = self._cluster.faults.get(self._process.name)
        if waiting and where == "offsets" and waiting[0] == "stuck":
            waiting.pop(0)
            self._cluster.counts["call stuck"] += 1
            raise TimeoutError("the client did not come back")
        if where == "endless" and (not self._aborts_end or (waiting and waiting[0] == where)):
            self._aborts_end = False
            self._cluster.counts["abort without end"] += 1
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, where, retriable=True))
        if waiting and waiting[0] == where:
            waiting.pop(0)
            self._cluster.counts["coordinator silent"] += 1
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, where, retriable=True))
