"""Many votes a request: one answer a line, in order, whatever the other lines are."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest
from tests.integration.ingest.conftest import CREDENTIAL, Client, in_log
from tests.waiting import PATIENCE_S

from psephos.formats.control import Phase
from psephos.http.problems import TYPE_BASE
from psephos.roles.ingest.batch import LINE_LIMIT


def slug(answer: dict[str, Any]) -> str:
    return str(answer.get("type", "accepted")).removeprefix(TYPE_BASE)


async def test_each_line_gets_its_answer_and_a_broken_one_does_not_stop_the_others(client: Client) -> None:
    poll = client.poll
    lines: list[tuple[Any, str]] = [
        ({"token": poll.token("bea"), "choices": ["ada"]}, "accepted"),
        (b"{broken", "malformed-request"),
        ({"subject": "ben", "choices": ["bob"], "idempotencyKey": "one"}, "accepted"),
        ({"token": poll.token("cat", aud="other"), "choices": ["ada"]}, "invalid-token"),
        ({"subject": "dan", "choices": ["nobody"]}, "invalid-ballot"),
        (b'{"subject": "' + b"x" * LINE_LIMIT + b'"}', "body-too-large"),
        ({"subject": "", "choices": ["ada"]}, "malformed-request"),
        ({"subject": "dan", "token": poll.token("dan"), "choices": ["ada"]}, "malformed-request"),
        ({"choices": ["ada"]}, "malformed-request"),
        (b'{"subject": "eva", "choices": ["ada"], "choices": ["bob"]}', "malformed-request"),
        ({"subject": "fay", "choices": ["ada"], "idempotencyKey": "two words"}, "malformed-request"),
        ({"subject": "gil", "choices": ["ada"], "weight": 5}, "invalid-ballot"),
        ({"subject": "hal:of:colons", "choices": ["cyd", "bob"]}, "accepted"),
    ]
    status, answers = await client.batch([line for line, _ in lines])

    assert status == 200
    assert [answer["line"] for answer in answers] == list(range(1, len(lines) + 1))
    assert [slug(answer) for answer in answers] == [expected for _, expected in lines]
    assert answers[4]["reason"] == "unknown-option"
    accepted = [answer for answer in answers if answer["status"] == 202]
    votes = list(in_log(poll, accepted).values())
    assert [vote.ballot for vote in votes] == [b"\0\0", b"\0\1", b"\0\1\0\2"]
    assert [len(vote.nonce) for vote in votes] == [0, 16, 0]


async def test_a_subject_and_a_token_of_the_same_voter_have_one_pseudonym(client: Client) -> None:
    _, answers = await client.batch(
        [{"subject": "ivy", "choices": ["ada"]}, {"token": client.poll.token("ivy"), "choices": ["bob"]}]
    )
    first, second = (client.poll.log_at(answer) for answer in answers)
    assert first.key() == second.key()


TOKENS = {"issuer": "https://id.example", "audience": "final", "weightClaim": "weight", "segmentClaim": "country"}


@pytest.mark.parametrize("spec", [{"voters": {"tokens": TOKENS, "segments": ["no", "se"]}}], indirect=True)
async def test_a_gateway_vouches_for_weight_and_segment(own: Client) -> None:
    _, answers = await own.batch(
        [
            {"subject": "ann", "weight": 1.5, "segment": "se", "choices": ["ada"]},
            {"subject": "ben", "weight": "0.000001", "choices": ["ada"]},
            {"subject": "cat", "choices": ["ada"]},
            {"subject": "dan", "weight": 0, "choices": ["ada"]},
        ]
    )
    assert [slug(answer) for answer in answers] == ["accepted", "accepted", "malformed-request", "not-eligible"]
    votes = in_log(own.poll, answers[:2]).values()
    assert [(vote.weight, vote.segment) for vote in votes] == [(1_500_000, 1), (1, 2)]


async def test_the_door_opens_to_the_credential_only(client: Client) -> None:
    for credential in ("wrong", "", CREDENTIAL + "x", client.poll.token("ann"), "\udcff" * 20, "ü" * 20):
        status, [answer] = await client.batch([{"subject": "ann", "choices": ["ada"]}], credential)
        assert (status, slug(answer)) == (401, "unauthorized")


async def test_without_a_credential_there_is_no_such_door(poll: Any, start: Any, http: Any) -> None:
    client = Client(poll, start(PSEPHOS_BATCH_CREDENTIAL_FILE="").wait_ready(), http)
    status, [answer] = await client.batch([{"subject": "ann", "choices": ["ada"]}])
    assert (status, slug(answer)) == (404, "not-found")


async def test_answers_come_while_lines_are_still_sent(client: Client) -> None:
    first_answered = asyncio.Event()

    async def lines() -> Any:
        yield b'{"subject": "first", "choices": ["ada"]}\n{"subj'
        await asyncio.wait_for(first_answered.wait(), PATIENCE_S)
        yield b'ect": "second", "choices": ["ada"]}'

    headers = {"Content-Type": "application/x-ndjson", "Authorization": f"Bearer {CREDENTIAL}"}
    async with client.http.post(f"{client.ingest.url}:batch", data=lines(), headers=headers) as answer:
        assert json.loads(await answer.content.readline())["status"] == 202
        first_answered.set()
        assert json.loads(await answer.content.readline())["line"] == 2
        assert await answer.content.read() == b""


async def test_a_large_batch_on_a_small_queue_waits_for_room_and_loses_nothing(
    poll: Any, start: Any, http: Any
) -> None:
    client = Client(poll, start(PSEPHOS_INGEST_QUEUE="40").wait_ready(), http)
    status, answers = await client.batch([{"subject": f"v{n}", "choices": ["ada"]} for n in range(2_000)])

    assert (status, Counter(slug(answer) for answer in answers)) == (200, {"accepted": 2_000})
    assert len(in_log(poll, answers)) == 2_000
    assert poll.records() == 2_000


async def test_a_batch_meets_the_end_of_voting_line_by_line(own: Client) -> None:
    """What is accepted stands in the log; what comes after the end is told so."""
    closed = asyncio.Event()

    async def lines() -> Any:
        number = 0
        while not closed.is_set():
            yield b'{"subject": "v%d", "choices": ["ada"]}\n' % number
            number += 1
            await asyncio.sleep(0.005)

    headers = {"Content-Type": "application/x-ndjson", "Authorization": f"Bearer {CREDENTIAL}"}
    answers: list[dict[str, Any]] = []
    async with own.http.post(f"{own.ingest.url}:batch", data=lines(), headers=headers) as answer:
        async for line in answer.content:
            answers.append(json.loads(line))
            if len(answers) == 10:
                closes_at = int(time.time() * 1000) + 2_000
                await asyncio.to_thread(own.poll.control, Phase.OPEN, closes_at=closes_at)
            if slug(answers[-1]) == "session-closed":
                closed.set()
    slugs = [slug(answer) for answer in answers]
    accepted = slugs.count("accepted")
    assert slugs == ["accepted"] * accepted + ["session-closed"] * (len(slugs) - accepted)
    assert 0 < accepted < len(slugs)
    assert own.poll.records() == accepted == len(in_log(own.poll, answers[:accepted]))
