"""Two owners of one partition at once, and lost answers, against the real ledger: one chain, no fork."""

from pathlib import Path

import pytest
from tests.harness import PARTITIONS, Record, Running

from psephos.adapters.dynamodb import Conflict
from psephos.formats.blocks import decode_block
from psephos.roles.tally.decide import Rules
from psephos.roles.tally.partition import Batch, Partition, PartitionStopped, Stage


def owner(running: Running, name: str) -> Partition:
    """An owner of partition 0 with a store of its own, recovered."""
    rules = Rules.of(running.session, PARTITIONS)
    partition = Partition(0, running.ledger, rules, running.genesis.hash, running.folder / name, "boot")
    recover(partition)
    return partition


def recover(partition: Partition) -> None:
    for _ in partition.recover():
        pass
    partition.stage = Stage.RUNNING  # the log's part is shown by the tests with real workers


def votes(running: Running, count: int) -> list[Record]:
    found = (running.vote(f"voter-{n}", n % 2) for n in range(10_000))
    from psephos.formats.votes import partition_of

    return [record for record in found if record[0] and partition_of(record[0], PARTITIONS) == 0][:count]


def feed(partition: Partition, records: list[Record]) -> Batch:
    for offset in range(partition.position, len(records)):
        assert partition.take(offset, records[offset])
    return partition.decide()


def put(running: Running, batch: Batch) -> None:
    running.ledger.put_block(0, batch.block.base, batch.payload)


def test_the_slower_owner_adopts_the_faster_ones_block_and_goes_on_from_its_end(running: Running) -> None:
    records = votes(running, 50)
    fast, slow = owner(running, "fast"), owner(running, "slow")
    ours, theirs = feed(fast, records[:20]), feed(slow, records[:35])
    put(running, ours)
    fast.commit(ours)
    with pytest.raises(Conflict) as conflict:
        put(running, theirs)
    slow.adopt(conflict.value.payload)
    assert slow.head == fast.head
    rest = feed(slow, records)
    assert (rest.block.base, rest.block.end) == (20, 50)
    put(running, rest)
    slow.commit(rest)
    assert rest.block.state.voters == 50
    running.check_chains()


def test_an_owner_that_is_several_blocks_behind_adopts_them_all(running: Running) -> None:
    records = votes(running, 60)
    fast, slow = owner(running, "fast"), owner(running, "slow")
    for end in (10, 20, 30):
        batch = feed(fast, records[:end])
        put(running, batch)
        fast.commit(batch)
    stale = feed(slow, records[:15])
    for _ in range(3):
        with pytest.raises(Conflict) as conflict:
            put(running, stale)
        slow.adopt(conflict.value.payload)
        stale = feed(slow, records)
    put(running, stale)
    slow.commit(stale)
    assert [block.base for block in running.blocks(0)] == [0, 10, 20, 30]
    running.check_chains()


def test_our_own_block_is_recognised_when_its_answer_got_lost(running: Running) -> None:
    first = owner(running, "one")
    batch = feed(first, votes(running, 20))
    put(running, batch)
    with pytest.raises(Conflict) as conflict:
        put(running, batch)
    assert conflict.value.payload == batch.payload
    first.commit(batch)
    assert first.head.end == 20


def test_a_store_ahead_of_the_ledger_is_deleted_and_rebuilt(running: Running) -> None:
    records = votes(running, 40)
    first = owner(running, "one")
    batch = feed(first, records[:20])
    put(running, batch)
    first.commit(batch)
    cheat = feed(first, records)
    first.commit(cheat)  # committed before the ledger took the block: what must never be trusted
    first.revoke()
    again = owner(running, "one")
    assert again.head.end == 20
    rest = feed(again, records)
    assert rest.block.state.voters == 40
    assert not rest.block.others


def test_a_store_of_another_chain_is_deleted_and_rebuilt(running: Running) -> None:
    first = owner(running, "one")
    batch = feed(first, votes(running, 20))
    first.commit(batch)
    first.revoke()
    second = owner(running, "two")
    other = feed(second, votes(running, 25))
    put(running, other)
    second.commit(other)
    again = owner(running, "one")
    assert again.head == second.head


def test_a_block_that_does_not_follow_the_head_stops_the_partition(running: Running) -> None:
    first = owner(running, "one")
    batch = feed(first, votes(running, 20))
    from psephos.formats.blocks import encode_block

    foreign = encode_block(decode_block(batch.payload)._replace(previous=b"?" * 32))
    with pytest.raises(PartitionStopped, match="LedgerInvalid"):
        first.adopt(foreign)


def test_a_store_that_was_not_closed_before_the_machine_started_again_is_rebuilt(running: Running) -> None:
    first = owner(running, "one")
    batch = feed(first, votes(running, 20))
    put(running, batch)
    first.commit(batch)
    rules = Rules.of(running.session, PARTITIONS)
    first._store._env.close()  # type: ignore[union-attr]  # the power went
    after: Partition = Partition(
        0, running.ledger, rules, running.genesis.hash, Path(running.folder / "one"), "new boot"
    )
    recover(after)
    assert after.head.end == 20
    assert after._store is not None
    assert after._store.was_wiped is not None
