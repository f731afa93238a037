"""A part of a batch: an answer a line, in their order, whatever has become of each."""

import asyncio
import json

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ingest.test_intake import INTAKE, NOW_MS, VERIFIER, receipt_of

from psephos.formats.votes import encode_vote
from psephos.roles.ingest.batch import Part
from psephos.roles.ingest.gate import timestamp
from psephos.roles.ingest.intake import Record
from psephos.roles.ingest.problems import Problem
from psephos.roles.ingest.votelog import Sent

FATES = ["accepted", "unconfirmed", "overloaded", "malformed-request"]


@given(st.lists(st.sampled_from(FATES), min_size=1, max_size=12))
def test_each_line_is_told_its_own_fate(fates: list[str]) -> None:
    async def run() -> list[dict[str, object]]:
        outcomes = [
            Problem(fate, "the line is broken")
            if fate == "malformed-request"
            else (bytes([line]) * 16, encode_vote(b"\0\0", NOW_MS + line))
            for line, fate in enumerate(fates)
        ]
        part = Part(INTAKE, list(range(1, len(fates) + 1)), outcomes, NOW_MS)
        handed_over = [fate for fate in fates if fate != "malformed-request"]
        if handed_over:
            sent = part.sent = Sent(asyncio.get_running_loop(), len(handed_over), NOW_MS)
            sent.refuse([index for index, fate in enumerate(handed_over) if fate == "overloaded"])
            told = [index for index, fate in enumerate(handed_over) if fate != "overloaded"]
            sent.settled(told, [1_000 + index if handed_over[index] == "accepted" else None for index in told])
        return [json.loads(answer) for answer in (await part.answers()).splitlines()]

    answers = asyncio.run(run())
    assert [answer["line"] for answer in answers] == list(range(1, len(fates) + 1))
    assert [str(answer.get("type", "/accepted")).rpartition("/")[2] for answer in answers] == fates
    offset = 1_000
    for line, (answer, fate) in enumerate(zip(answers, fates, strict=True)):
        if fate == "accepted":
            [partition], [key], [value] = INTAKE.records(
                [(bytes([line]) * 16, encode_vote(b"\0\0", NOW_MS + line))]
            )
            expected = receipt_of(Record(partition, key, value), offset)
            assert VERIFIER.decode(str(answer.pop("receipt"))) == expected
            rest = {"partition": partition, "offset": offset, "receivedAt": timestamp(NOW_MS)}
            assert answer == {"line": line + 1, "status": 202, **rest}
        offset += fate != "malformed-request"
