"""Checks that every acknowledged vote is in the log: compares the journal's receipts with the records themselves.

It shares the receipt's format with ingest, and nothing with the tally.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from psephos.adapters.kafka import LogAdmin, read_records, votes_topic
from psephos.formats.errors import Malformed
from psephos.formats.receipts import DIGEST_BYTES, Receipt, ReceiptVerifier, parse_receipt, receipt_key
from psephos.formats.votes import MARKER_KEY, record_digest, voter_key
from psephos.platform.settings import Settings
from psephos_lab.journal import Acknowledged

_FETCH = 10_000


class Missing(NamedTuple):
    """An acknowledged vote that is not in the log as its receipt says."""

    vote: Acknowledged
    why: str


class Proof(NamedTuple):
    """The outcome. records: of the log, without control records; missing: empty if nothing was lost.

    repeats: (partition, offset) of each record that repeats an earlier one byte for byte: a producer that gave up
    a vote begins a new epoch, in which the broker does not recognise what was on its way.
    """

    records: int
    missing: Sequence[Missing]
    repeats: Collection[tuple[int, int]]


def place_of(vote: Acknowledged) -> tuple[int, int]:
    """Returns (partition, offset) from the vote's receipt; if that is malformed, which `prove` reports, a place
    before all others."""
    try:
        receipt = parse_receipt(vote.receipt).receipt
    except Malformed:
        return -1, 0
    return receipt.partition, receipt.offset


def prove(
    settings: Settings, partitions: int, session_key: bytes, session_tag: bytes, votes: Iterable[Acknowledged]
) -> Proof:
    """Reads the whole log, up to the partitions' end offsets, and looks for each acknowledged vote.

    A receipt names partition, offset and digest of its record, and the record's key has to be the voter's.
    Raises LogUnavailable.
    """
    missing: list[Missing] = []
    verifier = ReceiptVerifier(receipt_key(session_key))
    places: dict[int, dict[int, list[tuple[Receipt, Acknowledged]]]] = defaultdict(lambda: defaultdict(list))
    for vote in votes:
        try:
            receipt = verifier.decode(vote.receipt)
        except Malformed as error:
            missing.append(Missing(vote, str(error)))
            continue
        if receipt.session_tag != session_tag:
            missing.append(Missing(vote, "the receipt is another session's"))
        else:
            places[receipt.partition][receipt.offset].append((receipt, vote))
    ends = LogAdmin(settings).end_offsets(partitions)
    control = 0
    repeats: set[tuple[int, int]] = set()
    for partition, end in enumerate(ends):
        control += _compare(settings, partition, end, places[partition], session_key, missing, repeats)
    for partition, wanted in places.items():
        for offset, receipts in wanted.items():
            why = f"the log has no record at partition {partition}, offset {offset}"
            missing += [Missing(vote, why) for _, vote in receipts]
    return Proof(sum(ends) - control, missing, repeats)


def _compare(
    settings: Settings,
    partition: int,
    end: int,
    wanted: dict[int, list[tuple[Receipt, Acknowledged]]],
    session_key: bytes,
    missing: list[Missing],
    repeats: set[tuple[int, int]],
) -> int:
    """Removes what it finds from `wanted`, adds what differs to `missing`, and repeated records to `repeats`.

    Returns how many control records there are.
    """
    control = 0
    known: set[bytes] = set()
    for message in read_records(settings, votes_topic(settings.session_uid), partition, 0, end, batch=_FETCH):
        key = message.key()
        control += key == MARKER_KEY
        digest = record_digest(key, message.value())[:DIGEST_BYTES]
        if digest in known:
            repeats.add((partition, message.offset()))
        known.add(digest)
        receipts = wanted.pop(message.offset(), None)
        if receipts is None:
            continue
        for receipt, vote in receipts:
            if receipt.digest != digest:
                missing.append(Missing(vote, f"partition {partition}, offset {receipt.offset}: another record"))
            elif key != voter_key(session_key, vote.subject):
                missing.append(Missing(vote, f"partition {partition}, offset {receipt.offset}: another voter's"))
    return control
