"""What an older worker wrote is read as it meant it, and what a newer one wrote stops a worker with a reason.

`fixtures/v1` holds a partition's records, the chain of blocks that was made of them, and the store behind it, in
the formats of version 1. They are never written again: `python -m tests.faults.fixtures` made them once, and makes
the fixtures of the next version in a folder of their own. `fixtures/v1/worker.py` is a worker of that version, by
code of its own: it makes the stored chain of the stored records, and joins the group of today's workers.
"""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import msgspec
import pytest
from tests.faults.client import ballots
from tests.faults.conftest import Drill, wait
from tests.faults.fixtures import FOLDER, GENESIS_HASH, PARTITION, SESSION, UID, records_of, rules_of
from tests.harness import PARTITIONS

from psephos.formats.blocks import MAX_RECORDS, State, block_hash, decode_block, encode_block
from psephos.platform.child_process import ChildProcess
from psephos.roles.tally.decide import Head, Judge
from psephos.roles.tally.store import Identity, Store

V1 = FOLDER / "v1"


def chain(folder: Path) -> list[bytes]:
    return msgspec.msgpack.decode((folder / "blocks").read_bytes(), type=list[bytes])


@pytest.mark.parametrize("folder", sorted(FOLDER.glob("v*")), ids=lambda folder: folder.name)
def test_blocks_of_each_version_are_read_and_written_to_the_same_bytes(folder: Path) -> None:
    for payload in chain(folder):
        assert encode_block(decode_block(payload)) == payload


@pytest.mark.parametrize("folder", sorted(FOLDER.glob("v*")), ids=lambda folder: folder.name)
def test_the_records_of_each_version_make_the_same_chain_again(folder: Path, tmp_path: Path) -> None:
    records = records_of(folder)
    rules = rules_of(SESSION)
    head = Head(GENESIS_HASH, 0, State.empty(rules.cells))
    store = Store(tmp_path / "store", Identity(UID, PARTITION, "boot"), GENESIS_HASH)
    judge = Judge(rules, UID, PARTITION)
    for payload in chain(folder):
        end = decode_block(payload).end
        assert end - head.end <= MAX_RECORDS
        transaction = store.begin()
        block = judge.block(head, records[head.end : end], transaction)
        assert encode_block(block) == payload
        head = Head(block_hash(payload), block.end, block.state)
        store.commit(transaction, head.hash, head.end)
    assert head.end == len(records)
    store.close()


@pytest.mark.parametrize("folder", sorted(FOLDER.glob("v*")), ids=lambda folder: folder.name)
def test_a_store_of_each_version_is_taken_as_it_is_or_made_anew(folder: Path, tmp_path: Path) -> None:
    """Either is right; a store that is taken must know the voters that the chain names."""
    shutil.copytree(folder / "store", tmp_path / "store")
    store = Store(tmp_path / "store", Identity(UID, PARTITION, "another boot"), GENESIS_HASH)
    head = decode_block(chain(folder)[-1])
    if store.was_wiped is None:
        assert (store.meta.end, store.meta.hash) == (head.end, block_hash(chain(folder)[-1]))
        assert store.voters() == head.state.voters
    else:
        assert store.voters() == 0
    store.close()


def test_the_worker_of_version_1_makes_the_stored_chain() -> None:
    found = importlib.util.spec_from_file_location("worker_of_version_1", V1 / "worker.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    rules = module.Rules(partitions=2, options=2, segments=3, weighted=True, last=True)
    records, made = records_of(V1), module.Chain(rules, UID, PARTITION, GENESIS_HASH)
    for payload in chain(V1):
        assert made.block(records[made.end : decode_block(payload).end]) == payload


@pytest.mark.fault("versions", "a worker of version 1 (stored code) in the same group")
@pytest.mark.long
def test_a_worker_of_version_1_and_one_of_today_take_turns_in_one_group(drill: Drill) -> None:
    """Each goes on with what the other left, and the old one takes no block that it would not have written."""
    running = drill.session()
    client = drill.client(running)
    records = ballots(running, 4_000, drill.chance)
    old = ChildProcess(
        "tally-v1",
        [sys.executable, str(V1 / "worker.py")],
        running.folder / "tally-v1.log",
        env={
            **running.environ,
            "PSEPHOS_WORKER": "1",
            "V1_RULES": json.dumps({"partitions": PARTITIONS, "options": len(running.session.option_ids)}),
        },
    )
    old.start()
    try:
        client.send(records[:1_000])
        drill.wait_counted(running)  # by the old one alone
        today = running.start_worker(0)
        wait(lambda: today.events("partition recovered"), "today's owns partitions")
        client.send(records[1_000:2_000])
        drill.wait_counted(running)
        today.kill()
        client.send(records[2_000:3_000])
        drill.wait_counted(running)  # the old one took over what the killed one had
        assert old.running, old.last_words()
    finally:
        old.kill()
    drill.healed()
    again = running.start_worker(0)
    client.send(records[3_000:])
    drill.conclude(
        running,
        injected=1,
        path=lambda: {
            "blocks of version 1": sum(e["worker"] == "1" for e in running.events("block")),
            "blocks of today": sum(e["worker"] == "0" for e in running.events("block")),
            "blocks of version 1 recovered": sum(e["blocks"] for e in again.events("partition recovered")),
        },
    )


@pytest.mark.long
@pytest.mark.fault("versions", "a block of an unknown version behind the head")
def test_a_worker_that_meets_a_block_of_a_version_it_does_not_know_stops_with_a_reason(drill: Drill) -> None:
    running = drill.session()
    client = drill.client(running)
    records = ballots(running, 1_000, drill.chance)
    client.send(records)
    worker = running.start_worker(0)
    drill.wait_counted(running)
    worker.stop()
    packed = msgspec.msgpack.decode(running.ledger.head(0).payload)  # type: ignore[union-attr]
    head = packed[5]
    packed[0], packed[3], packed[4], packed[5] = 2, b"?" * 32, head, head + 1
    running.ledger.put_block(0, head, msgspec.msgpack.encode(packed))
    worker = running.start_worker(0)
    wait(lambda: worker.events("partition stopped"), "stopped with a reason")
    wait(lambda: len(worker.events("partition recovered")) == PARTITIONS - 1, "the others go on")
    [stopped] = worker.events("partition stopped")
    assert (stopped["code"], stopped["partition"]) == ("LedgerInvalid", 0)
    assert "version 2, known is 1" in stopped["why"]
    assert worker.process.running
    drill.record(
        injected=1,
        path=lambda: {"stopped with a reason": len(worker.events("partition stopped"))},
        votes=len(records), lost=0, double=0, recovered_s=0.0,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.fault("versions", "a worker of a newer build joins during the vote")
def test_a_worker_that_joins_during_the_vote_writes_the_same_chain(drill: Drill) -> None:
    """A newer build is this build, started beside a worker that is there: genesis keeps formats apart."""
    running = drill.session()
    client = drill.client(running)
    records = ballots(running, 6_000, drill.chance)
    running.start_worker(0)
    client.send(records[:2_000])
    drill.wait_counted(running)
    newer = running.start_worker(1)
    wait(lambda: newer.events("partition recovered"), "it owns partitions")
    client.send(records[2_000:])
    drill.healed()
    drill.conclude(
        running,
        injected=1,
        path=lambda: {
            "blocks of the older one": sum(e["worker"] == "0" for e in running.events("block")),
            "blocks of the newer one": sum(e["worker"] == "1" for e in running.events("block")),
        },
    )
