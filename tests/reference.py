"""A reference for the tests of both readers: decides by the shortest code, builds chains, and tampers with them.

It shares no decision with tally or recount: each record is judged by looking through the list of those before.
"""

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from psephos.domain.ballots import MAX_REVOTES, BallotRules, InvalidBallot
from psephos.domain.session import Session, parse_session
from psephos.formats.blocks import (
    NOTHING,
    AcceptedVote,
    Block,
    RecordClass,
    State,
    block_hash,
    encode_block,
)
from psephos.formats.errors import Malformed
from psephos.formats.votes import (
    MARKER_KEY,
    WEIGHT_ONE,
    decode_marker,
    decode_vote,
    frame_record,
    partition_of,
    record_digest,
)

Record = tuple[bytes | None, bytes | None]
Stored = tuple[int, bytes]
Entry = AcceptedVote | RecordClass


def make_session(*, segments: Sequence[str] = (), weighted: bool = False, **spec: Any) -> Session:
    """A session with three options, approval by default; `spec` replaces members of its spec."""
    tokens = {"issuer": "https://id.example", "audience": "test"}
    tokens |= {"segmentClaim": "country"} if segments else {}
    tokens |= {"weightClaim": "weight"} if weighted else {}
    voters = {"tokens": tokens, "segments": list(segments), **spec.pop("voters", {})}
    options = [{"id": name, "label": name.title()} for name in ("ada", "bob", "cyd")]
    ballot = {"type": "approval", "min": 0, "max": 2, "options": options, **spec.pop("ballot", {})}
    return parse_session(
        {
            "apiVersion": "psephos.dev/v1alpha1",
            "kind": "VotingSession",
            "metadata": {"name": "test"},
            "spec": {"ballot": ballot, "voters": voters, "closeGrace": "1s", **spec},
        }
    )


# --- Deciding


def decide(session: Session, partitions: int, partition: int, records: Sequence[Record]) -> list[Entry]:
    """What each record of a partition is, from offset 0 on."""
    entries: list[Entry] = []
    for offset, record in enumerate(records):
        entries.append(_one(session, partitions, partition, entries, offset, record))
    return entries


def _one(
    session: Session, partitions: int, partition: int, before: list[Entry], offset: int, record: Record
) -> Entry:
    key, value = record
    if key == MARKER_KEY:
        return RecordClass.CONTROL if _decodes(decode_marker, value) else RecordClass.MALFORMED
    if RecordClass.CONTROL in before:
        return RecordClass.LATE
    if key is None or len(key) != 16 or partition_of(key, partitions) != partition:
        return RecordClass.MALFORMED
    if not _decodes(decode_vote, value):
        return RecordClass.MALFORMED
    vote = decode_vote(value)
    if vote.segment >= max(1, len(session.segment_names)):
        return RecordClass.MALFORMED
    if session.needs_idempotency_key and not vote.nonce:
        return RecordClass.MALFORMED
    if not session.weighted and vote.weight != WEIGHT_ONE:
        return RecordClass.MALFORMED
    try:
        BallotRules.of(session).check(vote.ballot)
    except InvalidBallot:
        return RecordClass.INVALID_BALLOT
    mine = [entry for entry in before if isinstance(entry, AcceptedVote) and entry.voter == key]
    if vote.nonce and any(entry.nonce == vote.nonce for entry in mine):
        return RecordClass.DUPLICATE
    last = session.spec.voters.revote == "last"
    if not last and session.spec.voters.votes_per_voter == 1 and mine:
        return RecordClass.DUPLICATE
    if len(mine) >= (MAX_REVOTES if last else session.spec.voters.votes_per_voter):
        return RecordClass.QUOTA
    supersedes = mine[-1].offset if last and mine else NOTHING
    return AcceptedVote(
        offset, key, vote.ballot, vote.received_at, vote.weight, vote.segment, vote.nonce, supersedes
    )


def _decodes(decoder: Any, value: bytes | None) -> bool:
    try:
        decoder(value)
    except Malformed:
        return False
    return True


def state_of(session: Session, entries: Sequence[Entry]) -> State:
    """The cumulative state behind these entries, added up from nothing."""
    width = max(1, len(session.segment_names))
    tallies = [0] * (len(session.option_ids) * width)
    accepted = [entry for entry in entries if isinstance(entry, AcceptedVote)]
    replaced = {vote.supersedes for vote in accepted} - {NOTHING}
    for vote in accepted:
        if vote.offset not in replaced:
            for option, units in BallotRules.of(session).contributions(vote.ballot):
                tallies[option * width + vote.segment] += units * vote.weight
    classes = [entries.count(code) for code in RecordClass]
    classes[RecordClass.ACCEPTED], classes[RecordClass.SUPERSEDED] = len(accepted), len(replaced)
    closed_at = entries.index(RecordClass.CONTROL) if RecordClass.CONTROL in entries else NOTHING
    return State(tuple(tallies), tuple(classes), len({vote.voter for vote in accepted}), closed_at)


def patterns_of(entries: Sequence[Entry]) -> dict[bytes, int]:
    """Counted ballots to summed weight."""
    accepted = [entry for entry in entries if isinstance(entry, AcceptedVote)]
    replaced = {vote.supersedes for vote in accepted}
    patterns: dict[bytes, int] = {}
    for vote in accepted:
        if vote.offset not in replaced:
            patterns[vote.ballot] = patterns.get(vote.ballot, 0) + vote.weight
    return patterns


# --- Chains


def build(
    session: Session,
    uid: str,
    genesis: bytes,
    partitions: int,
    partition: int,
    records: Sequence[Record],
    cuts: Sequence[int] = (),
) -> list[Block]:
    """The honest chain of a partition, cut at these offsets."""
    entries = decide(session, partitions, partition, records)
    edges = sorted({0, *cuts, len(records)})
    blocks = [
        Block(
            uid,
            partition,
            b"",
            base,
            end,
            hashlib.sha256(b"".join(frame_record(*record) for record in records[base:end])).digest(),
            record_digest(*records[end - 1]),
            [entry for entry in entries[base:end] if isinstance(entry, AcceptedVote)],
            [
                (at, int(entry))
                for at, entry in enumerate(entries[base:end], base)
                if isinstance(entry, RecordClass)
            ],
            state_of(session, entries[:end]),
        )
        for base, end in pairwise(edges)
    ]
    return rehash(blocks, genesis)


def rehash(blocks: Sequence[Block], genesis: bytes) -> list[Block]:
    """The blocks with each one's `previous` made right again, as whoever tampers would."""
    previous, chained = genesis, []
    for block in blocks:
        chained.append(block._replace(previous=previous))
        previous = block_hash(encode_block(chained[-1]))
    return chained


def restate(session: Session, blocks: Sequence[Block]) -> list[Block]:
    """The blocks with cumulative states that follow from their own entries."""
    entries: list[Entry] = []
    stated = []
    for block in blocks:
        merged: list[tuple[int, Entry]] = [*((vote.offset, vote) for vote in block.accepted)]
        merged += [(offset, RecordClass(code)) for offset, code in block.others]
        entries += [entry for _, entry in sorted(merged, key=lambda pair: pair[0])]
        stated.append(block._replace(state=state_of(session, entries)))
    return stated


def stored(blocks: Sequence[Block]) -> list[Stored]:
    """As the ledger holds them."""
    return [(block.base, encode_block(block)) for block in blocks]


# --- Tampering; each answers blocks whose chain and states are consistent in themselves


def with_other_choice(session: Session, genesis: bytes, blocks: Sequence[Block], offset: int) -> list[Block]:
    """The accepted vote at `offset` says something else."""

    def swapped(vote: AcceptedVote) -> AcceptedVote:
        other = b"\x00\x01" if vote.ballot != b"\x00\x01" else b"\x00\x00"
        return vote._replace(ballot=other) if vote.offset == offset else vote

    changed = [block._replace(accepted=[swapped(vote) for vote in block.accepted]) for block in blocks]
    return rehash(restate(session, changed), genesis)


def counted_twice(
    session: Session, genesis: bytes, blocks: Sequence[Block], offset: int, record: Record
) -> list[Block]:
    """The duplicate at `offset`, whose bytes are `record`, is accepted."""
    key, value = record
    vote = decode_vote(value)
    extra = AcceptedVote(
        offset, key or b"", vote.ballot, vote.received_at, vote.weight, vote.segment, vote.nonce, NOTHING
    )

    def counted(block: Block) -> Block:
        if not block.base <= offset < block.end:
            return block
        others = [other for other in block.others if other[0] != offset]
        return block._replace(accepted=sorted([*block.accepted, extra]), others=others)

    return rehash(restate(session, [counted(block) for block in blocks]), genesis)
