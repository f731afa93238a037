"""Mutants: what the design forbids, each as the smallest change of the real code. The explorer must catch all.

A mutant that the explorer lets pass would mean that it can't see this kind of mistake, or that the rule is not
needed. Against fresh group metadata there are two guards: the metadata is captured at fetch, and a round of a
revoked partition is discarded. The mutant breaks both; HARMLESS shows that either of them alone is enough. A
commit that is aborted although it only took long costs a producer, which is given up in the end.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.model.world import MAX_RECORDS

from psephos.adapters.dynamodb import StoredBlock
from psephos.control import Action, Commands, ObservedState, Step, closing_steps, state_machine
from psephos.domain.genesis import decode_genesis
from psephos.formats.blocks import block_hash, decode_block, encode_block
from psephos.formats.control import Phase
from psephos.formats.tallies import TallyRecord
from psephos.roles.tally import worker
from psephos.roles.tally.decide import Head
from psephos.roles.tally.partition import Batch, Partition, Stage
from psephos.roles.tally.publisher import Publisher
from psephos.roles.tally.store import Store, StoreFailed


class CommitsTheStoreFirst(Partition):
    """The store holds a batch before the ledger has taken its block."""

    def decide(self) -> Batch:
        batch = super().decide()
        assert self._store is not None
        self._store.commit(batch.transaction, block_hash(batch.payload), batch.block.end)
        self._open = None
        return batch

    def commit(self, batch: Batch) -> None:
        self._advance(batch.block, block_hash(batch.payload))
        del self._pending[: batch.block.end - batch.block.base]


class TakesItsBaseFromTheStore(Partition):
    """Where the store ends, the next block begins: the ledger is asked for nothing but the totals."""

    def recover(self) -> Iterator[None]:
        self.stage = Stage.RECOVERING
        self.recovered_blocks = 0
        self._rollback()
        self.drop_pending()
        self.head = self._genesis_head()
        self._open_store()
        assert self._store is not None
        meta = self._store.meta
        if meta.end:
            stored = self._ledger.block_at(self.number, meta.end - 1)
            yield
            if stored is not None:
                self._advance(decode_block(stored.payload), meta.hash)
            self.head = self.head._replace(hash=meta.hash, end=meta.end)
        yield
        self.published_end = -1
        self.stage = Stage.RUNNING


class PipelinesPuts(worker.Worker):
    """The second block of a partition is on its way before the ledger has answered for the first."""

    def _put(self, batches: list[Batch]) -> None:
        super()._put([*batches, *filter(None, map(self._following, batches))])

    def _following(self, batch: Batch) -> Batch | None:
        partition = batch.partition
        records = partition._pending[batch.block.end - batch.block.base :][:MAX_RECORDS]
        if not records:
            return None
        head = Head(block_hash(batch.payload), batch.block.end, batch.block.state)
        block = partition._judge.block(head, records, batch.transaction)
        return Batch(partition, block, encode_block(block), batch.transaction)

    def _commit(self, batch: Batch) -> None:
        partition = batch.partition
        if partition._open is None and partition._store is not None:  # the first of the two closed it
            partition._open = partition._store.begin()
            partition._judge.apply([batch.block], partition._open)
            batch = batch._replace(transaction=partition._open)
        if len(partition._pending) >= batch.block.end - batch.block.base:
            super()._commit(batch)


class IgnoresAFullDisk(Store):
    """The ledger has the block, so a failed commit of the store is nothing to stop for."""

    def commit(self, transaction: Any, block_hash: bytes, end: int) -> None:
        try:
            super().commit(transaction, block_hash, end)
        except StoreFailed:
            transaction.abort()


class AsksForGroupMetadataWhenItPublishes(worker.Worker):
    """The group's metadata as it is now, instead of as it was when the records were fetched."""

    def _publish(self) -> None:
        self._metadata = self._consumer.consumer_group_metadata()
        super()._publish()


class PublishesWhatWasRevoked(worker.Worker):
    """The tallies of a round in flight are published although its partition was revoked meanwhile."""

    def _put(self, batches: list[Batch]) -> None:
        super()._put(batches)
        self._revoked = [batch.block for batch in batches if batch.partition.revoked]

    def _publish(self) -> None:
        tallies = [TallyRecord(block.partition, block.base, block.end, 0, block.state) for block in self._revoked]
        if tallies:
            self._publisher.publish(tallies, self._metadata)
        super()._publish()


class PublishesARevokedRoundWithFreshMetadata(AsksForGroupMetadataWhenItPublishes, PublishesWhatWasRevoked):
    """A round in flight, rebalanced away, published with metadata of the new generation: the group takes it."""


class AdoptsWithoutRollback(Partition):
    """Another owner's block is applied on top of what this one had decided itself."""

    def adopt(self, payload: bytes) -> None:
        assert self._store is not None
        block = self._checked(StoredBlock(self.head.end, payload), self.head)
        assert self._open is not None
        self._judge.apply([block], self._open)
        self._store.commit(self._open, block_hash(payload), block.end)
        self._open = None
        self._advance(block, block_hash(payload))
        del self._pending[: block.end - block.base]


class AdoptsWithoutDroppingRecords(Partition):
    """Another owner's block is applied, but its records stay pending."""

    def adopt(self, payload: bytes) -> None:
        pending = self._pending.copy()
        super().adopt(payload)
        self._pending = pending


class DecidesOnAfterItsStoreFailed(Partition):
    """A partition whose store failed goes on until its recovery begins, with the records that it had."""

    def fail_store(self, why: str) -> None:
        pending = self._pending.copy()
        super().fail_store(why)
        with contextlib.suppress(StoreFailed):
            self._open_store()
            self._pending = pending
            self.stage = Stage.RUNNING


def seal_nothing(settings: Any, ledger: Any, of: Any, progress: Any = None) -> tuple[int, ...]:
    """Closing by the end of the log as it is read once behind the markers: no seal, no probe, no item."""
    partitions = decode_genesis(closing_steps._require(ledger, "genesis")).partitions
    simulated: Any = closing_steps  # its log is the world's
    simulated.mark_closed(settings, partitions, of.closes_at)
    return tuple(simulated.LogAdmin(settings).end_offsets(partitions))


def decides(instead: Callable[[Step, ObservedState, int], Step]) -> Callable[[Commands, ObservedState, int], Step]:
    """The state machine with another step in place of one of its own."""

    def decide(commands: Commands, observed: ObservedState, now: int) -> Step:
        return instead(state_machine.decide(commands, observed, now), observed, now)

    return decide


def _closes_unannounced(step: Step, observed: ObservedState, now: int) -> Step:
    if step.action is not Action.ANNOUNCE_CLOSING_TIME or observed.closing is None:
        return step
    come = now >= observed.closing.closes_at
    return replace(step, action=Action.BEGIN_CLOSING if come else Action.WAIT)


def _grace_as_fixed(step: Step, observed: ObservedState, _now: int) -> Step:
    if step.action is not Action.BEGIN_CLOSING or observed.closing is None:
        return step
    return replace(step, grace_ms=observed.closing.grace_ms)


def _seals_when_closing_begins(step: Step, observed: ObservedState, _now: int) -> Step:
    waits = step.action is Action.WAIT and step.phase is Phase.CLOSING and not observed.sealed_whole
    return replace(step, action=Action.SEAL) if waits else step


def _recounts_what_is_sealed(step: Step, observed: ObservedState, _now: int) -> Step:
    waits = step.action is Action.WAIT and step.phase is Phase.CLOSING and observed.sealed_whole
    return replace(step, action=Action.BEGIN_RECOUNT) if waits else step


class TrustsAStoreAfterAPowerLoss(Store):
    """The boot id is not compared."""

    def _doubt(self) -> str | None:
        self._identity = self._identity._replace(boot_id=self.meta.boot_id)
        return super()._doubt()


class OpensWithoutSync(Store):
    """That the store is in use again need not be on disk before it changes."""

    def _mark_in_use(self) -> None:
        self._write_meta(clean=False)


class KeepsItsProducer(Publisher):
    """A producer that can't end its transaction is asked again for ever."""

    def _still_unsettled(self) -> None: ...


class AbortsALateCommit(Publisher):
    """A commit whose answer did not come in time is aborted."""

    def _commit(self, producer: Any) -> None:
        self._call(producer.commit_transaction, 5.0)


class ClaimsNothing:
    """Two processes may work in one folder."""

    def __init__(self, _folder: object) -> None: ...

    def close(self) -> None: ...


def put_over(self: Any, partition: int, base: int, payload: bytes) -> None:
    """A put without a condition."""
    self._client.items.pop((f"{self.session_uid}#{partition}", base), None)
    self._put(str(partition), base, payload)


Replacement = dict[str, Any]
CAUGHT: dict[str, Replacement] = {
    "store committed before the block": {"psephos.roles.tally.worker.Partition": CommitsTheStoreFirst},
    "base taken from the store": {"psephos.roles.tally.worker.Partition": TakesItsBaseFromTheStore},
    "pipelined puts": {"psephos.roles.tally.worker.Worker": PipelinesPuts},
    "ENOSPC ignored after the put": {"psephos.roles.tally.partition.Store": IgnoresAFullDisk},
    "fresh group metadata": {"psephos.roles.tally.worker.Worker": PublishesARevokedRoundWithFreshMetadata},
    "close without sealed end": {"psephos.control.closing_steps.seal": seal_nothing},
    "adoption without wiping pending state: no rollback": {
        "psephos.roles.tally.worker.Partition": AdoptsWithoutRollback
    },
    "adoption without wiping pending state: records kept": {
        "psephos.roles.tally.worker.Partition": AdoptsWithoutDroppingRecords
    },
    "decisions between a failed store and its recovery": {
        "psephos.roles.tally.worker.Partition": DecidesOnAfterItsStoreFailed
    },
    "store trusted after a power loss": {"psephos.roles.tally.partition.Store": TrustsAStoreAfterAPowerLoss},
    "store changed before its disk knows that it is in use": {
        "psephos.roles.tally.partition.Store": OpensWithoutSync
    },
    "two processes in one folder": {"psephos.roles.tally.worker.claim": ClaimsNothing},
    "a producer kept that can't end its transaction": {"psephos.roles.tally.worker.Publisher": KeepsItsProducer},
    "202 behind half of the grace time": {"tests.model.world.World.may_confirm": lambda _world: True},
    "put without a condition": {"psephos.adapters.dynamodb.Ledger.put_block": put_over},
    "closing time not announced": {"psephos.control.executor.decide": decides(_closes_unannounced)},
    "grace period from the closing time, however late it is announced": {
        "psephos.control.executor.decide": decides(_grace_as_fixed)
    },
    "sealed before the grace period is over, by one clock": {
        "psephos.control.executor.decide": decides(_seals_when_closing_begins),
        "psephos.control.closing_steps.ms_by_brokers": lambda *_: 0,
    },
    "recount before the tally has counted": {"psephos.control.executor.decide": decides(_recounts_what_is_sealed)},
}
HARMLESS: dict[str, Replacement] = {
    "fresh group metadata, revoked rounds discarded": {
        "psephos.roles.tally.worker.Worker": AsksForGroupMetadataWhenItPublishes
    },
    "a late commit aborted, and the producer given up": {
        "psephos.roles.tally.worker.Publisher": AbortsALateCommit
    },
    "a revoked round published, its own metadata": {"psephos.roles.tally.worker.Worker": PublishesWhatWasRevoked},
}
