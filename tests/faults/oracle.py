"""The judge of the fault suite: what was lost, what was counted twice. Shares no code with the tally.

It reads the votes topic with a consumer of its own and the ledger with plain queries, takes records and blocks
apart by the written formats (docs/architecture.md) and decides every record again, one dictionary, no batches.
Only sessions with single ballots, whose voters may vote once, or again with a nonce (`revote: last`).
"""

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition

MARKER = b"psephos.control"
ACCEPTED, SUPERSEDED, DUPLICATE, MALFORMED, INVALID_BALLOT, _QUOTA, LATE, CONTROL = range(8)
OPTIONS = 2
MILLION = 1_000_000
_EMPTY = b"\xff\xff\xff\xff"
_WIDTH = {b"b": 1, b"h": 2, b"i": 4, b"q": 8}


class Session(NamedTuple):
    """Where to look."""

    kafka: str
    dynamodb: str
    table: str
    uid: str
    partitions: int
    genesis_hash: bytes
    last: bool = False  # revote: last


class Audit(NamedTuple):
    """What was found. `faults` says each difference in words; empty if the chains and classes are right."""

    records: int
    acknowledged: int
    lost: list[str]
    double: list[str]
    faults: list[str]
    classes: Counter[int]
    totals: tuple[int, ...]
    blocks: int


class _Row(NamedTuple):
    """A record of the log."""

    key: bytes | None
    value: bytes | None

    @property
    def framed(self) -> bytes:
        return b"".join(_EMPTY if part is None else struct.pack(">I", len(part)) + part for part in self)

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.framed).digest()


def audit(session: Session, journal: Path) -> Audit:
    """Compares log, ledger and the client's journal. The log must be counted to its end."""
    lost: list[str] = []
    faults: list[str] = []
    classes: Counter[int] = Counter()
    totals = [0] * OPTIONS
    counted: Counter[bytes] = Counter()
    placed: dict[tuple[int, int], tuple[bytes, list[int]]] = {}
    records = blocks = 0
    for partition in range(session.partitions):
        rows = list(_rows(session, partition))
        records += len(rows)
        found: list[list[int]] = [[] for _ in rows]
        accepted: dict[int, bytes] = {}
        state: Any = None
        end, previous = 0, session.genesis_hash
        for base, payload in _blocks(session, partition):
            blocks += 1
            block = msgspec.msgpack.decode(payload)
            faults += _chain(session, partition, base, block, end, previous, rows)
            end, previous, state = block[5], hashlib.sha256(payload).digest(), msgspec.msgpack.decode(block[22])
            for offset, voter in zip(
                _column(block[9], block[8]), _cut(block[10], 16), strict=True
            ):  # offsets, voters
                accepted[base + offset] = voter
                _place(found, base + offset, ACCEPTED, partition, faults)
            for offset, code in zip(_column(block[20], block[19]), block[21], strict=True):
                _place(found, base + offset, code, partition, faults)
        if end != len(rows):
            faults.append(f"partition {partition}: the ledger ends at {end}, the log at {len(rows)}")
        mine, sums, standing = _decide(session, partition, rows)
        for offset, wanted in enumerate(mine):
            placed[partition, offset] = rows[offset].digest, found[offset]
            if found[offset] != [wanted]:
                faults.append(
                    f"partition {partition} offset {offset}: classes {found[offset]}, should be {wanted}"
                )
            classes[wanted] += 1
        superseded = sum(code == ACCEPTED for code in mine) - len(standing)
        classes[SUPERSEDED] += superseded
        counted.update(voter for offset, voter in accepted.items() if not session.last or offset in standing)
        totals = [a + b for a, b in zip(totals, sums, strict=True)]
        faults += _compare_state(partition, state, mine, superseded, sums)
    lost += _lost(journal, placed)
    double = [f"voter {voter.hex()} counted {number} times" for voter, number in counted.items() if number > 1]
    return Audit(records, len(_entries(journal)), lost, double, faults, classes, tuple(totals), blocks)


def audit_ledger(session: Session, journal: Path) -> tuple[int, list[str], list[str]]:
    """(records counted, lost, double) by journal and ledger alone, where the log is what was broken."""
    found: Counter[tuple[int, int]] = Counter()
    counted: Counter[bytes] = Counter()
    for partition in range(session.partitions):
        for base, payload in _blocks(session, partition):
            block = msgspec.msgpack.decode(payload)
            found.update((partition, base + offset) for offset in _column(block[9], block[8]))
            found.update((partition, base + offset) for offset in _column(block[20], block[19]))
            counted.update(_cut(block[10], 16))
    lost = [
        f"acknowledged at partition {partition} offset {offset}: in {found[partition, offset]} blocks"
        for partition, offset, _ in _entries(journal)
        if found[partition, offset] != 1
    ]
    return found.total(), lost, [f"voter {voter.hex()}" for voter, number in counted.items() if number > 1]


def _place(found: list[list[int]], offset: int, code: int, partition: int, faults: list[str]) -> None:
    if offset < len(found):
        found[offset].append(code)
    else:
        faults.append(f"partition {partition}: a block holds offset {offset}, the log ends at {len(found)}")


def _chain(
    session: Session, partition: int, base: int, block: list[Any], end: int, previous: bytes, rows: list[_Row]
) -> Iterator[str]:
    where = f"partition {partition}, block at {base}"
    if block[:3] != [1, session.uid, partition] or block[4] != base:
        yield f"{where}: names itself {block[:3]} at {block[4]}"
    if base != end:
        yield f"{where}: gap or overlap, the one before ends at {end}"
    if block[3] != previous:
        yield f"{where}: does not name the block before"
    mine = rows[base : block[5]]
    if hashlib.sha256(b"".join(row.framed for row in mine)).digest() != block[6]:
        yield f"{where}: the digest of its records is not the log's"
    if mine and mine[-1].digest != block[7]:
        yield f"{where}: the digest of its last record is not the log's"


def _decide(session: Session, partition: int, rows: list[_Row]) -> tuple[list[int], list[int], set[int]]:
    """(class of each record, millionths by option, offsets of the votes that stand) by the rules as written."""
    classes: list[int] = []
    standing: dict[bytes, tuple[int, int]] = {}  # voter -> offset, option
    nonces: set[tuple[bytes, bytes]] = set()
    closed = False
    for offset, row in enumerate(rows):
        key, value = row
        if key == MARKER:
            good = _loads(value)
            known = isinstance(good, list) and len(good) == 3 and good[:2] == [1, "close"]
            closed |= known
            classes.append(CONTROL if known else MALFORMED)
        elif closed:
            classes.append(LATE)
        elif key is None or (vote := _vote(session, partition, key, value)) is None:
            classes.append(MALFORMED)
        elif len(vote[1]) != 2 or (option := int.from_bytes(vote[1], "big")) >= OPTIONS:
            classes.append(INVALID_BALLOT)
        elif (key in standing and not session.last) or (session.last and (key, vote[5]) in nonces):
            classes.append(DUPLICATE)
        else:
            classes.append(ACCEPTED)
            nonces.add((key, vote[5]))
            standing[key] = offset, option
    sums = [MILLION * sum(option == each for _, option in standing.values()) for each in range(OPTIONS)]
    return classes, sums, {offset for offset, _ in standing.values()}


def _vote(session: Session, partition: int, key: bytes | None, value: bytes | None) -> list[Any] | None:
    """The six members of a well-formed vote in its partition."""
    if key is None or len(key) != 16 or int.from_bytes(key[:8], "big") % session.partitions != partition:
        return None
    vote = _loads(value)
    if not isinstance(vote, list) or len(vote) != 6 or msgspec.msgpack.encode(vote) != value:
        return None
    if [type(part) for part in vote] != [int, bytes, int, int, int, bytes]:
        return None
    version, _ballot, received, weight, segment, nonce = vote
    good_nonce = len(nonce) == 16 or (nonce == b"" and not session.last)
    fits = version == 1 and received >= 0 and weight == MILLION and segment == 0 and good_nonce
    return vote if fits else None


def _loads(value: bytes | None) -> Any:
    try:
        return msgspec.msgpack.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _compare_state(
    partition: int, state: Any, classes: list[int], superseded: int, sums: list[int]
) -> Iterator[str]:
    if state is None:
        return
    tallies, counts, _voters, _closed = state
    wanted = [classes.count(code) for code in range(8)]
    wanted[SUPERSEDED] = superseded
    if list(counts) != wanted:
        yield f"partition {partition}: the head's classes are {counts}, should be {wanted}"
    if list(_big(tallies)) != sums:
        yield f"partition {partition}: the head's tallies are {list(_big(tallies))}, should be {sums}"


def _lost(journal: Path, placed: dict[tuple[int, int], tuple[bytes, list[int]]]) -> Iterator[str]:
    """A 202 that is not in exactly one block, in exactly one class, and never late."""
    for partition, offset, digest in _entries(journal):
        stands, classes = placed.get((partition, offset), (b"", []))
        if stands.hex()[: len(digest)] != digest:
            yield f"acknowledged at partition {partition} offset {offset}: the log holds another record there"
        elif len(classes) != 1 or classes[0] not in (ACCEPTED, DUPLICATE):
            yield f"acknowledged at partition {partition} offset {offset}: classes {classes}"


def _entries(journal: Path) -> list[tuple[int, int, str]]:
    """Whole lines; the last one may be torn if its writer was killed, and was not acknowledged to anyone then."""
    if not journal.exists():
        return []
    lines = journal.read_bytes().split(b"\n")[:-1]
    return [tuple(json.loads(line)) for line in lines]


# reading


def _rows(session: Session, partition: int) -> Iterator[_Row]:
    topic = f"psephos.{session.uid}.votes"
    consumer = Consumer(
        {
            "bootstrap.servers": session.kafka,
            "group.id": f"oracle-{session.uid}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 50,
        }
    )
    here = TopicPartition(topic, partition, 0)
    try:
        low, high = consumer.get_watermark_offsets(here, timeout=30)
        assert low == 0, f"{topic}[{partition}] begins at {low}"
        consumer.assign([here])
        at = 0
        while at < high:
            message = consumer.poll(30)  # NB: consume(10_000) would wait for all of them
            assert message is not None, f"{topic}[{partition}]: no record at {at} within 30 s"
            error = message.error()
            if error is not None:
                assert error.retriable(), error
                continue
            assert message.offset() == at, f"{topic}[{partition}] jumps from {at} to {message.offset()}"
            at += 1
            yield _Row(message.key(), message.value())
    finally:
        consumer.close()


def _blocks(session: Session, partition: int) -> Iterator[tuple[int, bytes]]:
    client = boto3.client(
        "dynamodb",
        endpoint_url=session.dynamodb,
        region_name="eu-north-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    pages = client.get_paginator("query").paginate(
        TableName=session.table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": f"{session.uid}#{partition}"}},
        ConsistentRead=True,
    )
    for page in pages:
        for item in page["Items"]:
            yield int(item["sk"]["N"]), item["b"]["B"]


def _column(data: bytes, length: int) -> list[int]:
    """A column of integers: `=` if all are equal, a type letter, little-endian values."""
    if length == 0:
        return []
    same = data[:1] == b"="
    kind, body = (data[1:2], data[2:]) if same else (data[:1], data[1:])
    values = [
        int.from_bytes(body[at : at + _WIDTH[kind]], "little", signed=True)
        for at in range(0, len(body), _WIDTH[kind])
    ]
    assert len(values) == (1 if same else length)
    return values * length if same else values


def _cut(data: bytes, width: int) -> list[bytes]:
    return [data[at : at + width] for at in range(0, len(data), width)]


def _big(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        size = data[at]
        yield int.from_bytes(data[at + 1 : at + 1 + size], "big", signed=True)
        at += 1 + size


def published_ends(session: Session) -> list[int]:
    """The newest end offset of each partition in the tallies topic, as readers of committed records see it.

    Fails if an older tally stands behind a newer one: a stale owner got through.
    """
    topic = f"psephos.{session.uid}.tallies"
    ends = [0] * session.partitions
    for message in _messages(session, topic, "read_committed"):
        _version, partition, _base, end, *_ = msgspec.msgpack.decode(message.value())
        assert message.partition() == partition
        assert end >= ends[partition], (
            f"partition {partition}: a tally up to {end} behind one up to {ends[partition]}"
        )
        ends[partition] = end
    return ends


def _messages(session: Session, topic: str, isolation: str) -> Iterator[Any]:
    consumer = Consumer(
        {
            "bootstrap.servers": session.kafka,
            "group.id": f"oracle-{session.uid}",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(session.partitions)])
        done: set[int | None] = set()
        while len(done) < session.partitions:
            message = consumer.poll(20)
            assert message is not None, f"{topic}: no answer"
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                done.add(message.partition())
    finally:
        consumer.close()


def aborted_tallies(session: Session) -> int:
    """Tally records that stand in the log but that no reader of committed records sees: aborted, or still open."""
    topic = f"psephos.{session.uid}.tallies"
    return len(list(_messages(session, topic, "read_uncommitted"))) - len(
        list(_messages(session, topic, "read_committed"))
    )
