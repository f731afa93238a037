"""Burlington's election comes out as published. Tampered with in five ways, each is found at its place in the log.

Each test restores what it changed, or the next one would find more than its own. The last one can't: nothing takes
a record out of the log again.
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.integration.elections.conftest import Finished as Burlington
from tests.integration.elections.playing import Command, psephos
from tests.integration.elections.published import require_published

from psephos.adapters.dynamodb import Ledger
from psephos.adapters.dynamodb.ledger import dynamodb_client
from psephos.adapters.kafka import LogAdmin, client_config, read_records, votes_topic
from psephos.domain.ballots import BallotRules
from psephos.domain.session import parse_session
from psephos.formats.blocks import (
    AcceptedVote,
    Block,
    RecordClass,
    State,
    block_hash,
    decode_block,
    encode_block,
)
from psephos.formats.votes import decode_vote, encode_vote, partition_of, voter_key
from psephos.platform.settings import Settings, read_key
from psephos.roles.recount.report import DIFFERS

PARTITION = 2
Chain = dict[int, bytes]
"""Blocks of a partition: base -> stored bytes."""


@dataclass
class Finished:
    """An election that has its result, its servers still up."""

    command: Command
    settings: Settings
    ledger: Ledger
    rules: BallotRules

    def chain(self) -> Chain:
        return dict(self.ledger.blocks(PARTITION))

    @contextmanager
    def tampered(self, chain: Chain) -> Iterator[None]:
        """The ledger with this chain in place of its own, behind the back of every conditional write."""
        true = self.chain()
        self._replace(true, chain)
        try:
            yield
        finally:
            self._replace(chain, true)

    def _replace(self, old: Chain, new: Chain) -> None:
        client = dynamodb_client(self.settings)
        for base in old.keys() | new.keys():
            key: Any = {"pk": {"S": f"{self.settings.session_uid}#{PARTITION}"}, "sk": {"N": str(base)}}
            if base in new:
                client.put_item(TableName=self.settings.dynamodb_table, Item={**key, "b": {"B": new[base]}})
            else:
                client.delete_item(TableName=self.settings.dynamodb_table, Key=key)

    def recount(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """`psephos recount --json`, by hand from another shell: exit code and report."""
        done = psephos("recount", "--json", *arguments, env=self.command.environment)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def require_found(self, offset: int, kind: str, name: str) -> None:
        """An audit and a whole new recount say the same: disputed, for this one reason, at this place."""
        for arguments in (("--audit",), ("--name", name)):
            code, report = self.recount(*arguments)
            print(f"{name} {arguments}: {report['state']}, exit code {code}, {report['recount']['differences']}")
            assert report["state"] == "Disputed"
            assert code == DIFFERS
            assert report["recount"]["match"] is False
            found = {
                (each["partition"], each["offset"], each["kind"]) for each in report["recount"]["differences"]
            }
            assert (PARTITION, offset, kind) in found
            assert {each for each in found if each[0] is not None} == {(PARTITION, offset, kind)}

    def require_clean(self) -> None:
        code, report = self.recount("--audit")
        assert (code, report["state"], report["recount"]["differences"]) == (0, "Final", [])


@pytest.fixture(scope="module")
def finished(burlington: Burlington) -> Finished:
    assert burlington.result["state"] == "Final"
    settings = burlington.command.settings
    rules = BallotRules.of(parse_session(settings.session_file.read_bytes()))
    return Finished(burlington.command, settings, Ledger.of(settings), rules)


def test_burlington_comes_out_as_published_round_by_round(burlington: Burlington) -> None:
    require_published("burlington-2009-irv", burlington.result)


def test_a_choice_changed_in_a_block_and_the_whole_chain_rehashed(finished: Finished) -> None:
    chain = finished.chain()
    base, block, vote = next(
        (base, block, vote)
        for base, block in _blocks(chain)
        for vote in block.accepted
        if vote.ballot[:2] == b"\0\0"
    )
    forged = vote._replace(ballot=b"\0\1")
    accepted = [forged if each.offset == vote.offset else each for each in block.accepted]
    change = _added(finished.rules, _added(finished.rules, _nothing(block), vote, -1), forged, 1)
    with finished.tampered(_rehashed(chain, base, block._replace(accepted=accepted), change)):
        finished.require_found(vote.offset, "accepted-differs", "changed-choice")


def test_a_block_deleted(finished: Finished) -> None:
    chain = finished.chain()
    base, _ = _middle(chain)
    with finished.tampered({at: payload for at, payload in chain.items() if at != base}):
        finished.require_found(base, "missing-block", "deleted-block")


def test_a_block_inserted(finished: Finished) -> None:
    chain = finished.chain()
    base, block = next(
        (base, block)
        for base, block in _blocks(chain)
        if len(block.accepted) > 1 and block.accepted[0].offset == base
    )
    inserted = encode_block(block._replace(base=base + 1, accepted=block.accepted[1:]))
    with finished.tampered({**chain, base + 1: inserted}):
        finished.require_found(base + 1, "overlap", "inserted-block")


def test_one_voter_counted_twice(finished: Finished) -> None:
    chain = finished.chain()
    base, block, offset = next(
        (base, block, offset)
        for base, block in _blocks(chain)
        for offset, code in block.others
        if code == RecordClass.DUPLICATE
    )
    twice = _as_accepted(finished.settings, offset)
    accepted = sorted([*block.accepted, twice])
    others = [each for each in block.others if each[0] != offset]
    classes = list(_nothing(block).classes)
    classes[RecordClass.ACCEPTED] += 1
    classes[RecordClass.DUPLICATE] -= 1
    change = _added(finished.rules, _nothing(block)._replace(classes=tuple(classes)), twice, 1)
    forged = block._replace(accepted=accepted, others=others)
    with finished.tampered(_rehashed(chain, base, forged, change)):
        finished.require_found(offset, "class-differs", "voter-counted-twice")


def test_a_record_appended_to_the_log_behind_the_ledgers_back(finished: Finished) -> None:
    finished.require_clean()
    settings, admin = finished.settings, LogAdmin(finished.settings)
    for worker in ("tally-0", "tally-1"):
        os.kill(finished.command.pid(worker), signal.SIGSTOP)  # they would count the record as late
    key = _voter_of(settings, PARTITION)
    end = admin.end_offsets(PARTITION + 1)[PARTITION]
    admin.unseal_votes()
    producer = Producer({**client_config(settings), "acks": "all"})
    producer.produce(votes_topic(settings.session_uid), encode_vote(b"\0\0", 0), key, PARTITION)
    assert producer.flush(20) == 0
    admin.seal_votes()
    assert admin.end_offsets(PARTITION + 1)[PARTITION] == end + 1
    finished.require_found(end, "log-beyond-seal", "appended-record")


# --- Forging


def _blocks(chain: Chain) -> Iterator[tuple[int, Block]]:
    """In order: where a round ended is chance, so a test looks for a block that has what it forges."""
    return ((base, decode_block(payload)) for base, payload in sorted(chain.items()))


def _middle(chain: Chain) -> tuple[int, Block]:
    """A block with blocks before and behind it."""
    bases = sorted(chain)
    assert len(bases) > 2, "a chain of more than two blocks"
    base = bases[len(bases) // 2]
    return base, decode_block(chain[base])


def _nothing(block: Block) -> State:
    """No change of the cumulative state."""
    state = block.state
    return State((0,) * len(state.tallies), (0,) * len(state.classes), 0, 0)


def _added(rules: BallotRules, change: State, vote: AcceptedVote, sign: int) -> State:
    tallies = list(change.tallies)
    for index, units in rules.contributions(vote.ballot):
        tallies[index] += sign * units * vote.weight
    return change._replace(tallies=tuple(tallies))


def _rehashed(chain: Chain, base: int, forged: Block, change: State) -> Chain:
    """The chain with a forged block, every cumulative state and every hash behind it made to fit."""
    new: Chain = {}
    previous: bytes | None = None
    for at, payload in sorted(chain.items()):
        if at < base:
            new[at] = payload
            continue
        block = forged if at == base else decode_block(payload)
        state = block.state
        block = block._replace(
            previous=previous or block.previous,
            state=State(
                _sum(state.tallies, change.tallies),
                _sum(state.classes, change.classes),
                state.voters,
                state.closed_at,
            ),
        )
        new[at] = encode_block(block)
        previous = block_hash(new[at])
    return new


def _sum(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(one + other for one, other in zip(left, right, strict=True))


def _as_accepted(settings: Settings, offset: int) -> AcceptedVote:
    """A record of the log as a block would list it."""
    (record,) = read_records(settings, votes_topic(settings.session_uid), PARTITION, offset, offset + 1)
    vote = decode_vote(record.value())
    return AcceptedVote(
        offset, record.key(), vote.ballot, vote.received_at, vote.weight, vote.segment, vote.nonce, -1
    )


def _voter_of(settings: Settings, partition: int) -> bytes:
    key = read_key(settings.session_key_file, "SESSION_KEY_FILE")
    voters: Iterator[bytes] = (voter_key(key, f"stranger-{number}") for number in range(1000))
    return next(voter for voter in voters if partition_of(voter, 4) == partition)
