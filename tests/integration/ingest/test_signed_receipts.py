"""Receipts as ingest issues them: one signature for votes that were acknowledged together, genuine to anybody."""

import asyncio

from tests.integration.ingest.conftest import Client

from psephos.formats.receipts import ReceiptVerifier, parse_receipt


async def test_votes_that_are_acknowledged_together_share_a_signature(client: Client) -> None:
    answers = await asyncio.gather(*(client.vote(subject=f"together-{number}") for number in range(80)))
    assert {status for status, _, _ in answers} == {202}
    verifier = ReceiptVerifier(client.poll.genesis.receipt_key)
    signatures = set()
    for _, answer, _ in answers:
        receipt = verifier.decode(answer["receipt"])
        assert (receipt.partition, receipt.offset) == (answer["partition"], answer["offset"])
        signatures.add(parse_receipt(answer["receipt"]).signature)
    assert len(signatures) < 40, "signatures cost fifty microseconds each"


async def test_a_vote_alone_has_a_receipt_without_a_path(client: Client) -> None:
    _, answer, _ = await client.vote(subject="alone")
    assert len(answer["receipt"]) == 136
    ReceiptVerifier(client.poll.genesis.receipt_key).decode(answer["receipt"])


async def test_the_lines_of_a_batch_share_a_signature_and_bad_ones_have_none(client: Client) -> None:
    lines = [{"subject": f"line-{number}", "choices": ["ada"]} for number in range(60)]
    lines.insert(7, {"subject": "bad", "choices": ["nobody"]})
    _, answers = await client.batch(lines)
    taken = [answer for answer in answers if answer["status"] == 202]
    assert len(taken) == 60
    assert [answer["line"] for answer in answers if answer["status"] != 202] == [8]
    verifier = ReceiptVerifier(client.poll.genesis.receipt_key)
    for answer in taken:
        receipt = verifier.decode(answer["receipt"])
        assert (receipt.partition, receipt.offset) == (answer["partition"], answer["offset"])
    assert len({parse_receipt(answer["receipt"]).signature for answer in taken}) <= 2
