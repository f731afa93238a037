"""One owned partition: its way from the ledger head to running, and its batches.

The base of every block comes from the ledger's head, never from the store or from Kafka.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from psephos.adapters.dynamodb import Ledger, StoredBlock
from psephos.formats.blocks import MAX_RECORDS, Block, State, block_hash, decode_block, encode_block
from psephos.formats.errors import Malformed
from psephos.formats.tallies import TallyRecord
from psephos.formats.votes import record_digest
from psephos.platform.errors import PsephosError
from psephos.platform.logs import get_logger
from psephos.roles.tally import metrics
from psephos.roles.tally.decide import Head, Judge, Record, Rules
from psephos.roles.tally.store import Identity, Store, Transaction, store_failing

_BLOCKS_A_STEP = 16  # blocks per transaction; recovery yields between these, so that polling goes on
log = get_logger()


class Stage(StrEnum):
    """The stage that a partition has reached."""

    RECOVERING = "recovering"  # bringing the store up to the ledger's head
    VERIFYING = "verifying"  # waiting for the log's record at end - 1, to compare its digest
    RUNNING = "running"
    STOPPED = "stopped"  # needs manual intervention; see the reason


class PartitionStopped(PsephosError):
    """This partition can't go on safely. `code` is stable: LogTruncated or LedgerInvalid."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Batch(NamedTuple):
    """A decided block, its bytes, and the store's open transaction that waits for the ledger."""

    partition: "Partition"
    block: Block
    payload: bytes
    transaction: Transaction


class Partition:
    """State of one owned partition. All methods are called from the worker's single thread."""

    def __init__(
        self, number: int, ledger: Ledger, rules: Rules, genesis_hash: bytes, data_dir: Path, boot_id: str
    ) -> None:
        self.number = number
        self.stage = Stage.RECOVERING
        self.stopped_by: PartitionStopped | None = None
        self._cells = rules.cells
        self.head = Head(genesis_hash, 0, State.empty(rules.cells))
        self.published_end = -1  # end of the tallies that the tallies topic is known to hold
        self.newest_vote_ms = 0
        self.last_base = 0
        self.recovered_blocks = 0  # in the last recovery: how far behind the store was
        self._ledger = ledger
        self._genesis_hash = genesis_hash
        self._judge = Judge(rules, ledger.session_uid, number)
        self._path = data_dir / f"partition-{number}"
        self._identity = Identity(ledger.session_uid, number, boot_id)
        self._store: Store | None = None
        self._open: Transaction | None = None
        self._pending: list[Record] = []
        self._last_digest = b""
        self._revoked = False

    # read by the worker

    @property
    def position(self) -> int:
        """Offset of the next record to be taken from the log."""
        return self.head.end + len(self._pending)

    @property
    def start_offset(self) -> int:
        """Offset at which consuming begins after recovery: the ledger's last record, to compare its digest."""
        return max(0, self.head.end - 1)

    @property
    def has_pending(self) -> bool:
        return self.stage is Stage.RUNNING and bool(self._pending)

    @property
    def pending(self) -> int:
        return len(self._pending)

    @property
    def revoked(self) -> bool:
        return self._revoked

    @property
    def unpublished(self) -> bool:
        """True if the tallies topic is behind the ledger's head."""
        return self.stage is Stage.RUNNING and self.published_end < self.head.end

    def tally(self) -> TallyRecord:
        return TallyRecord(
            partition=self.number,
            base=self.last_base,
            end=self.head.end,
            received_at=self.newest_vote_ms,
            state=self.head.state,
        )

    # records

    def take(self, offset: int, record: Record) -> bool:
        """Takes a record; returns False if it is above the next offset: the worker must seek to `position`."""
        if self.stage is Stage.VERIFYING:
            self._verify(offset, record)
            return True
        if self.stage is not Stage.RUNNING or offset < self.position:
            return True
        if offset > self.position:
            return False
        self._pending.append(record)
        return True

    def take_run(self, offset: int, records: Sequence[Record]) -> bool:
        """As `take`, for consecutive records from `offset` on."""
        if self.stage is Stage.RUNNING and offset == self.position:
            self._pending += records
            return True
        return all(self.take(at, record) for at, record in enumerate(records, offset))

    def _verify(self, offset: int, record: Record) -> None:
        """Checks that the log's record at end - 1 is still the one that the ledger counted."""
        if offset < self.start_offset:
            return
        if offset > self.start_offset:
            raise PartitionStopped("LogTruncated", f"the log has no record at offset {self.start_offset}")
        if self.head.end == 0:
            self.stage = Stage.RUNNING
            self.take(offset, record)
            return
        if record_digest(*record) != self._last_digest:
            raise PartitionStopped(
                "LogTruncated", f"the record at offset {offset} is not the one that the ledger counted"
            )
        self.stage = Stage.RUNNING

    def drop_pending(self) -> None:
        self._pending.clear()

    # a round

    def decide(self) -> Batch:
        """Decides the next block and leaves the store's transaction open. Raises StoreFailed."""
        assert self._store is not None
        records = self._pending[:MAX_RECORDS]
        self._open = self._store.begin()
        with store_failing(self._path):
            block = self._judge.block(self.head, records, self._open)
        return Batch(self, block, encode_block(block), self._open)

    def commit(self, batch: Batch) -> None:
        """Commits the store and moves on, once the ledger holds the block. Raises StoreFailed."""
        assert self._store is not None
        digest = block_hash(batch.payload)
        self._store.commit(batch.transaction, digest, batch.block.end)
        self._open = None
        self._advance(batch.block, digest)
        del self._pending[: batch.block.end - batch.block.base]

    def adopt(self, payload: bytes) -> None:
        """Adopts another owner's block at our base: rolls back, applies it as recovery does, goes on from its end.

        Raises PartitionStopped if it does not follow our head, StoreFailed if the store fails.
        """
        assert self._store is not None
        self._rollback()
        block = self._checked(StoredBlock(self.head.end, payload), self.head)
        transaction = self._open = self._store.begin()
        with store_failing(self._path):
            self._judge.apply([block], transaction)
        digest = block_hash(payload)
        self._store.commit(transaction, digest, block.end)
        self._open = None
        self._advance(block, digest)
        del self._pending[: block.end - block.base]

    # assignment and loss

    def recover(self) -> Iterator[None]:
        """Brings the store up to the ledger's head, in steps.

        Raises PartitionStopped, StoreFailed or LedgerUnavailable, and may then be called again.
        """
        self.stage = Stage.RECOVERING
        self.recovered_blocks = 0
        self._rollback()
        self.drop_pending()
        self.head = self._genesis_head()
        self._open_store()
        stored = self._ledger.head(self.number)
        yield
        if (doubt := self._misfit(stored)) is not None:
            self._delete_store(doubt)
            self.head = self._genesis_head()
            self._open_store()
        yield from self._apply_blocks()
        yield from self._check_voters()
        self.published_end = -1  # publish the head's tallies again
        self.stage = Stage.VERIFYING if self.head.end else Stage.RUNNING

    def revoke(self) -> None:
        """Discards whatever is in flight: another member owns this partition now."""
        self._revoked = True
        self._rollback()
        self.drop_pending()
        if self._store is not None:
            self._store.close()
            self._store = None

    def fail_store(self, why: str) -> None:
        """Deletes a store that can't be trusted; the caller starts recovery.

        NB: until then nothing may be decided. The pending records follow a head that is given up.
        """
        self.stage = Stage.RECOVERING
        self._rollback()
        self.drop_pending()
        self._delete_store(why)
        self.head = self._genesis_head()

    def stop(self, why: PartitionStopped) -> None:
        """Gives this partition up until somebody intervenes."""
        self._rollback()
        self.drop_pending()
        self.stage = Stage.STOPPED
        self.stopped_by = why

    def _open_store(self) -> None:
        if self._store is None:
            self._store = Store(self._path, self._identity, self._genesis_hash)
            if self._store.was_wiped is not None:
                self._report_wiped(self._store.was_wiped)

    def _misfit(self, stored: StoredBlock | None) -> str | None:
        """Returns why the store does not fit the ledger's chain, None if it does. Raises PartitionStopped."""
        assert self._store is not None
        meta = self._store.meta
        if meta.end == 0:
            return None
        if stored is None:
            return "the ledger has no block yet"
        head = _decoded(stored)
        if meta.end > head.end:
            return f"ahead of the ledger: {meta.end} > {head.end}"
        at = stored if meta.end == head.end else self._ledger.block_at(self.number, meta.end - 1)
        if at is None or block_hash(at.payload) != meta.hash:
            return f"its chain hash at {meta.end} is not the ledger's"
        block = _decoded(at)
        self._advance(block, meta.hash)
        if self._store.voters() != block.state.voters:
            return f"it knows {self._store.voters()} voters, the ledger's block {block.state.voters}"
        return None

    def _apply_blocks(self) -> Iterator[None]:
        assert self._store is not None
        blocks = self._ledger.blocks(self.number, self.head.end)
        while step := list(islice(blocks, _BLOCKS_A_STEP)):
            transaction = self._open = self._store.begin()
            applied = []
            for stored in step:
                block = self._checked(stored, self.head)
                self._advance(block, block_hash(stored.payload))
                applied.append(block)
            with store_failing(self._path):
                self._judge.apply(applied, transaction)
            self._store.commit(transaction, self.head.hash, self.head.end)
            self._open = None
            self.recovered_blocks += len(step)
            metrics.RECOVERED.inc(len(step))
            yield

    def _check_voters(self) -> Iterator[None]:
        """Checks that the recovered store knows as many voters as the head says."""
        assert self._store is not None
        if self._store.voters() != self.head.state.voters:
            raise PartitionStopped(
                "LedgerInvalid",
                f"blocks up to {self.head.end} name {self._store.voters()} voters, "
                f"the head says {self.head.state.voters}",
            )
        yield

    def _checked(self, stored: StoredBlock, head: Head) -> Block:
        """Returns the stored block if it follows this head. Raises PartitionStopped if it does not."""
        block = _decoded(stored)
        fits = (block.session, block.partition, block.base, block.previous) == (
            self._identity.session,
            self.number,
            head.end,
            head.hash,
        )
        if not fits or stored.base != block.base or len(block.state.tallies) != len(head.state.tallies):
            raise PartitionStopped(
                "LedgerInvalid", f"the block at {stored.base} does not follow the block that ends at {head.end}"
            )
        return block

    def _advance(self, block: Block, digest: bytes) -> None:
        self.head = Head(digest, block.end, block.state)
        self.last_base = block.base
        self._last_digest = block.last_record_digest
        if block.accepted:
            self.newest_vote_ms = block.accepted[-1].received_at
        metrics.HEAD.labels(self.number).set(block.end)

    def _rollback(self) -> None:
        if self._open is not None:
            self._open.abort()
            self._open = None

    def _delete_store(self, why: str) -> None:
        if self._store is not None:
            self._store.delete()
            self._store = None
        self._report_wiped(why)

    def _genesis_head(self) -> Head:
        return Head(self._genesis_hash, 0, State.empty(self._cells))

    def _report_wiped(self, why: str) -> None:
        metrics.REBUILT.inc()
        log.warning("store wiped, rebuilding from the ledger", partition=self.number, why=why)


def _decoded(stored: StoredBlock) -> Block:
    """Decodes a block. Raises PartitionStopped for bytes that are not a block, or for an unknown version."""
    try:
        return decode_block(stored.payload)
    except Malformed as error:
        raise PartitionStopped("LedgerInvalid", f"block at {stored.base}: {error}") from None
