"""The client's journal against the log: what is there, what is not, and what the log holds twice."""

from tests.harness import KEY, PARTITIONS, Record, Running

from psephos.formats.receipts import TAG_BYTES, Receipt, ReceiptSigner
from psephos.formats.votes import record_digest
from psephos_lab.journal import Acknowledged
from psephos_lab.proof import prove


def acknowledged(running: Running, subject: str, record: Record, offset: int) -> Acknowledged:
    key, value = record
    assert key is not None
    assert value is not None
    receipt = Receipt(running.genesis.hash[:TAG_BYTES], 0, offset, record_digest(key, value))
    return Acknowledged(subject, "single", ReceiptSigner(KEY).sign([receipt])[0], f"{subject}-1", {})


def test_a_vote_that_a_producer_appended_twice_is_found_in_the_log_and_told_as_a_repeat(running: Running) -> None:
    ada, bob, eve = (running.vote(name, 0, nonce=number) for number, name in enumerate(("ada", "bob", "eve"), 1))
    running.produce([ada, bob, ada], partition=0)
    votes = [
        acknowledged(running, "bob", bob, 1),
        acknowledged(running, "ada", ada, 2),
        acknowledged(running, "eve", eve, 3),
        acknowledged(running, "cyd", bob, 1),
        acknowledged(running, "ada", ada, 1),
    ]
    proof = prove(running.settings, PARTITIONS, KEY, running.genesis.hash[:TAG_BYTES], votes)
    assert proof.records == 3
    assert proof.repeats == {(0, 2)}
    assert sorted((each.vote.subject, each.why) for each in proof.missing) == [
        ("ada", "partition 0, offset 1: another record"),
        ("cyd", "partition 0, offset 1: another voter's"),
        ("eve", "the log has no record at partition 0, offset 3"),
    ]
