"""Reads the observed state of a session from its ledger and its log. Calls block."""

import msgspec

from psephos.adapters.dynamodb import Ledger, LedgerMissing, StoredBlock
from psephos.adapters.kafka import read_control_record
from psephos.control.observed import UNREADABLE_END, Closing, ObservedState
from psephos.domain.genesis import decode_genesis
from psephos.domain.results import Document, decode_document
from psephos.formats.blocks import Block, decode_block
from psephos.formats.errors import Malformed
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings

FINAL_RUN = "final"
"""The name of a session's recount, unless it is repeated after a repair."""
log = get_logger()


class SealedEnd(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The ledger item `sealed` of a partition."""

    end: int


def observe(settings: Settings, ledger: Ledger, run: str = FINAL_RUN, *, live: bool = True) -> ObservedState:
    """Everything about the session, read again. `run`: the name of the recount.

    `live`: the heads are read while voting goes on, too, which costs one read per partition.

    Raises LogUnavailable, LedgerUnavailable.
    """
    try:
        payload = ledger.get("genesis")
    except LedgerMissing:
        payload = None
    if payload is None:
        return ObservedState()
    genesis = decode_genesis(payload)
    record = read_control_record(settings)
    closing = closing_of(ledger)
    closed = closing is not None
    heads = [ledger.head(partition) for partition in range(genesis.partitions)] if live or closed else []
    blocks = [None if head is None else _readable(partition, head) for partition, head in enumerate(heads)]
    final = ledger.get("final") if closed else None
    return ObservedState(
        genesis=genesis,
        control=None if record is None else record.control,
        control_at=None if record is None else record.appended_ms,
        closing=closing,
        sealed=sealed_ends(ledger) if closed else {},
        states=tuple(block.state for block in blocks if block is not None),
        ends=tuple(map(_end, heads, blocks)),
        verdicts=frozenset(partition for partition, _ in ledger.items(f"verdict#{run}"))
        if closed
        else frozenset(),
        final=_document(final),
        disputed=_document(ledger.get(f"disputed#{run}")) if closed else None,
        result_sealed=final is not None,
    )


def closing_of(ledger: Ledger) -> Closing | None:
    """The closing time that was fixed for this session, None while it is still open."""
    payload = ledger.get("closing")
    return None if payload is None else msgspec.json.decode(payload, type=Closing)


def sealed_ends(ledger: Ledger) -> dict[int, int]:
    """The end of each partition that has been sealed so far."""
    return {partition: msgspec.json.decode(item, type=SealedEnd).end for partition, item in ledger.items("sealed")}


def _readable(partition: int, head: StoredBlock) -> Block | None:
    try:
        return decode_block(head.payload)
    except Malformed as error:
        log.error("unreadable block", partition=partition, base=head.base, why=str(error))
        return None


def _end(head: StoredBlock | None, block: Block | None) -> int:
    if head is None:
        return 0
    return UNREADABLE_END if block is None else block.end


def _document(payload: bytes | None) -> Document | None:
    if payload is None:
        return None
    try:
        return decode_document(payload)
    except (ValueError, msgspec.MsgspecError):
        return None
