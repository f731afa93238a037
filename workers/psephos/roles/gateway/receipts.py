"""Finds what became of a receipt's vote, from the ledger alone. Calls block; routes run them in a thread pool."""

import threading
import time
from array import array
from bisect import bisect_left
from collections import OrderedDict
from typing import Any, NamedTuple

from psephos.adapters.dynamodb import Ledger, StoredBlock
from psephos.domain.genesis import Genesis
from psephos.formats.blocks import NOTHING, REJECTED, Block, RecordClass, decode_block
from psephos.formats.errors import Malformed
from psephos.formats.receipts import DIGEST_BYTES, TAG_BYTES, Receipt, ReceiptVerifier, parse_receipt
from psephos.formats.votes import encode_vote, record_digest
from psephos.roles.gateway.problems import Problem

CACHED_BLOCKS = 64  # of at most 8,192 records and about 200 KB each, decoded
HEAD_S = 0.5  # a partition's end is asked for again after this long: many clients poll for pending receipts


class Found(NamedTuple):
    """The result of a receipt lookup. status: pending, counted, duplicate, superseded or rejected."""

    status: str
    partition: int
    offset: int
    reason: str | None = None

    def document(self) -> dict[str, Any]:
        members = {"status": self.status, "partition": self.partition, "offset": self.offset}
        return members if self.reason is None else {**members, "reason": self.reason}


class BlockIndex:
    """One immutable block, packed for lookups: classes by offset, digests of accepted records."""

    def __init__(self, block: Block) -> None:
        self.partition, self.base, self.end = block.partition, block.base, block.end
        self._classes = bytearray(b"\xff" * (block.end - block.base))
        for vote in block.accepted:
            self._classes[vote.offset - block.base] = RecordClass.ACCEPTED
        for offset, code in block.others:
            self._classes[offset - block.base] = code
        self._accepted = array("q", (vote.offset for vote in block.accepted))
        self._digests = b"".join(
            record_digest(
                vote.voter, encode_vote(vote.ballot, vote.received_at, vote.weight, vote.segment, vote.nonce)
            )[:DIGEST_BYTES]
            for vote in block.accepted
        )

    def class_at(self, offset: int) -> RecordClass | None:
        """Returns the class of a record of this block, None if the block omits it."""
        code = self._classes[offset - self.base]
        return None if code == 0xFF else RecordClass(code)

    def digest_at(self, offset: int) -> bytes:
        """Returns the first bytes of an accepted record's digest, rebuilt from what the block holds of it."""
        at = bisect_left(self._accepted, offset) * DIGEST_BYTES
        return self._digests[at : at + DIGEST_BYTES]


class Superseded:
    """The offsets of a partition that later votes replaced: one bit per offset, read from blocks as they come."""

    def __init__(self, ledger: Ledger, partition: int) -> None:
        self._ledger = ledger
        self._partition = partition
        self._lock = threading.Lock()
        self._bits = bytearray()
        self._next = 0

    def has(self, offset: int) -> bool:
        """Returns whether a vote that is in the ledger now replaces this one. Raises LedgerUnavailable."""
        with self._lock:
            for stored in self._ledger.blocks(self._partition, self._next):
                block = decode_block(stored.payload)
                for vote in block.accepted:
                    if vote.supersedes != NOTHING:
                        self._set(vote.supersedes)
                self._next = block.end
            return offset // 8 < len(self._bits) and bool(self._bits[offset // 8] & 1 << offset % 8)

    def _set(self, offset: int) -> None:
        missing = offset // 8 + 1 - len(self._bits)
        if missing > 0:
            self._bits.extend(bytes(max(missing, len(self._bits))))
        self._bits[offset // 8] |= 1 << offset % 8


class Receipts:
    """Looks up receipts of one session. It may be shared between threads."""

    def __init__(self, ledger: Ledger, genesis: Genesis, *, revotes: bool) -> None:
        """revotes: a later ballot may replace an earlier one."""
        self._ledger = ledger
        self._genesis = genesis
        self._verifier = ReceiptVerifier(genesis.receipt_key)
        self._superseded = [Superseded(ledger, index) for index in range(genesis.partitions)] if revotes else []
        self._blocks: OrderedDict[tuple[int, int], BlockIndex] = OrderedDict()
        self._ends: dict[int, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def find(self, text: str) -> Found:
        """Returns what became of this receipt's vote.

        Raises Problem (invalid-receipt, foreign-receipt, log-mismatch) or LedgerUnavailable.
        """
        receipt = self._checked(text)
        block = self._block(receipt.partition, receipt.offset)
        if block is None:
            return Found("pending", receipt.partition, receipt.offset)
        match block.class_at(receipt.offset):
            case RecordClass.ACCEPTED:
                return self._accepted(receipt, block)
            case RecordClass.DUPLICATE:
                return Found("duplicate", receipt.partition, receipt.offset)
            case code if code in REJECTED:
                return Found("rejected", receipt.partition, receipt.offset, REJECTED[code])
            case _:
                raise _mismatch(receipt, "the block leaves this record out, or has it as a control record")

    def _checked(self, text: str) -> Receipt:
        try:
            signed = parse_receipt(text)
            if signed.receipt.session_tag != self._genesis.hash[:TAG_BYTES]:
                raise Problem("foreign-receipt", f"this gateway serves the session {self._genesis.name}")
            self._verifier.verify(signed)
        except Malformed as error:
            raise Problem("invalid-receipt", str(error)) from None
        receipt = signed.receipt
        if receipt.partition >= self._genesis.partitions:
            raise Problem("invalid-receipt", f"this session has {self._genesis.partitions} partitions")
        return receipt

    def _accepted(self, receipt: Receipt, block: BlockIndex) -> Found:
        if block.digest_at(receipt.offset) != receipt.digest:
            raise _mismatch(receipt, "the record there has another digest")
        replaced = bool(self._superseded) and self._superseded[receipt.partition].has(receipt.offset)
        return Found("superseded" if replaced else "counted", receipt.partition, receipt.offset)

    def _block(self, partition: int, offset: int) -> BlockIndex | None:
        """Returns the block that holds this offset, None if none does yet."""
        with self._lock:
            for key, block in self._blocks.items():
                if key[0] == partition and block.base <= offset < block.end:
                    self._blocks.move_to_end(key)
                    return block
            end, asked = self._ends.get(partition, (0, float("-inf")))
        now = time.monotonic()
        if offset >= end and now - asked < HEAD_S:
            return None
        stored = self._ledger.block_at(partition, offset)
        last = None if stored is None else self._indexed(partition, stored)
        if last is not None and offset < last.end:
            return last
        with self._lock:
            self._ends[partition] = (0 if last is None else last.end, now)
        return None

    def _indexed(self, partition: int, stored: StoredBlock) -> BlockIndex:
        block = BlockIndex(decode_block(stored.payload))
        with self._lock:
            self._blocks[partition, stored.base] = block
            while len(self._blocks) > CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return block


def _mismatch(receipt: Receipt, what: str) -> Problem:
    return Problem(
        "log-mismatch",
        f"partition {receipt.partition}, offset {receipt.offset}: {what}",
        partition=receipt.partition,
        offset=receipt.offset,
    )
