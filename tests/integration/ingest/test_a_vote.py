"""A vote by HTTP: into the log, a receipt back, and a clear answer to everything that is no vote."""

import asyncio
import json
import time
from typing import Any

import jwt
import pytest
from tests.integration.ingest.conftest import PARTITIONS, Client, eventually, in_log
from tests.waiting import PATIENCE_S

from psephos.formats.control import Phase
from psephos.formats.votes import partition_of, voter_key
from psephos.http.problems import TYPE_BASE
from psephos.roles.ingest.problems import KINDS
from psephos.roles.ingest.requests import BODY_LIMIT


def problem(answer: tuple[int, dict[str, Any], Any]) -> str:
    """The slug of a problem, once it has been found to be a well-formed one."""
    status, body, headers = answer
    assert headers["Content-Type"].startswith("application/problem+json")
    assert headers["Access-Control-Allow-Origin"] == "*"
    slug = body["type"].removeprefix(TYPE_BASE)
    assert (body["status"], body["title"]) == (status, KINDS[slug].title)
    assert body["detail"]
    return str(slug)


async def test_an_accepted_vote_stands_in_the_log_where_its_receipt_says(client: Client) -> None:
    status, answer, headers = await client.vote({"choices": ["cyd", "ada"]}, subject="ann")

    assert (status, headers["Content-Type"]) == (202, "application/json")
    [vote] = in_log(client.poll, [answer]).values()
    assert vote.ballot == bytes([0, 0, 0, 2])
    assert abs(vote.received_at - time.time() * 1000) < 60_000
    message = client.poll.log_at(answer)
    key = voter_key((client.poll.folder / "keys" / "session-key").read_bytes(), "ann")
    assert message.key() == key
    assert message.partition() == partition_of(key, PARTITIONS)


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NO_TRACES = (
    "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
    TRACE.upper(),
    TRACE + "-more",
    "ff" + TRACE[2:],
    "ann@example.org",
    "x" * 4_000,
)


async def test_a_record_carries_the_trace_context_of_its_request_and_nothing_else_of_it(client: Client) -> None:
    others = {"tracestate": "vendor=ann", "baggage": "user=ann", "X-Request-ID": "ann"}
    _, answer, _ = await client.vote(subject="traced", traceparent=TRACE, **others)
    assert client.poll.log_at(answer).headers() == [("traceparent", TRACE.encode())]
    [vote] = in_log(client.poll, [answer]).values()  # its digest is that of the receipt
    assert vote.ballot == b"\0\0"
    for number, given in enumerate(NO_TRACES):
        _, answer, _ = await client.vote(subject=f"untraced-{number}", traceparent=given, **others)
        assert client.poll.log_at(answer).headers() is None, given
    _, answer, _ = await client.vote(subject="untraced")
    assert client.poll.log_at(answer).headers() is None
    lines = [{"subject": f"batch-{number}", "choices": ["ada"]} for number in range(3)]
    status, answers = await client.batch(lines, traceparent=TRACE)
    assert status == 200
    assert {tuple(client.poll.log_at(each).headers() or ()) for each in answers} == {
        (("traceparent", TRACE.encode()),)
    }


async def test_votes_of_many_voters_spread_over_all_partitions(own: Client) -> None:
    answers = await asyncio.gather(*(own.vote(subject=f"voter-{number}") for number in range(60)))

    assert {status for status, _, _ in answers} == {202}
    assert len(in_log(own.poll, [answer for _, answer, _ in answers])) == 60
    assert {answer["partition"] for _, answer, _ in answers} == set(range(PARTITIONS))
    metrics = await asyncio.to_thread(own.ingest.metrics)
    assert metrics['psephos_ingest_requests_total{outcome="accepted"}'] == 60
    assert metrics["psephos_ingest_ack_seconds_count"] == 60
    assert metrics["psephos_ingest_in_flight"] == 0
    assert metrics['psephos_ingest_phase{psephos_ingest_phase="Open"}'] == 1
    assert abs(metrics["psephos_ingest_clock_skew_seconds"]) < 1


BAD_BODIES = {
    "malformed JSON": (b'{"choices": ["ada"', "malformed-request", None),
    "no object": (b'["ada"]', "malformed-request", None),
    "an empty body": (b"", "malformed-request", None),
    "NaN": (b'{"choices": NaN}', "malformed-request", None),
    "no UTF-8": (b'{"choices": ["\xff"]}', "malformed-request", None),
    "half a surrogate pair": (b'{"choices": ["\\ud800"]}', "malformed-request", None),
    "a member twice": (b'{"choices": ["ada"], "choices": ["bob"]}', "malformed-request", None),
    "deep nesting": (b'{"choices": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "malformed-request", None),
    "an unknown member": (b'{"choices": ["ada"], "extra": 1}', "invalid-ballot", "wrong-member"),
    "scores": (b'{"scores": {"ada": 1}}', "invalid-ballot", "wrong-member"),
    "an unknown option": (b'{"choices": ["eve"]}', "invalid-ballot", "unknown-option"),
    "too many choices": (b'{"choices": ["ada", "bob", "cyd"]}', "invalid-ballot", "too-many"),
    "too few choices": (b'{"choices": []}', "invalid-ballot", "too-few"),
    "an option twice": (b'{"choices": ["ada", "ada"]}', "invalid-ballot", "duplicate-option"),
    "a number as option": (b'{"choices": [1]}', "invalid-ballot", "malformed"),
    "a huge body": (b'{"choices": ["' + b"x" * BODY_LIMIT + b'"]}', "body-too-large", None),
}


async def test_a_body_that_is_no_ballot_is_refused_with_what_is_wrong(client: Client) -> None:
    before = client.poll.records(), await asyncio.to_thread(invalid_ballots, client)
    for what, (body, slug, reason) in BAD_BODIES.items():
        answer = await client.vote(body)
        assert (problem(answer), answer[1].get("reason")) == (slug, reason), what

    assert (client.poll.records(), await asyncio.to_thread(invalid_ballots, client)) == (before[0], before[1] + 7)


def invalid_ballots(client: Client) -> float:
    return client.ingest.metrics()['psephos_ingest_requests_total{outcome="invalid-ballot"}']


def unsigned(claims: dict[str, Any]) -> str:
    """What a library makes of `alg: none`."""
    return jwt.encode(claims, "", algorithm="none")


async def test_a_token_that_is_not_the_issuers_or_not_for_now_and_here_is_refused(client: Client) -> None:
    before = client.poll.records()
    now = int(time.time())
    good = {"sub": "ann", "iss": "https://id.example", "aud": "final", "exp": now + 60}
    token = client.poll.token
    signed, _, signature = token("ann").rpartition(".")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    bad = {
        "expired": token("ann", exp=now - 60),
        "not valid yet": token("ann", nbf=now + 60),
        "wrongly signed": jwt.encode(good, b"another key of thirty-two bytes!", algorithm="HS256"),
        "a changed signature": f"{signed}.{flipped}",
        "alg none": unsigned(good),
        "alg none with the old signature": f"{unsigned(good).rpartition('.')[0]}.{signature}",
        "wrong audience": token("ann", aud="semi-final"),
        "wrong issuer": token("ann", iss="https://evil.example"),
        "no expiry": token("ann", exp=None),
        "no subject": token("ann", sub=None),
        "another algorithm": jwt.encode(good, b"t" * 64, algorithm="HS512"),
        "no token at all": "abc",
    }
    for what, text in bad.items():
        answer = await client.vote(token=text)
        assert (answer[0], problem(answer)) == (401, "invalid-token"), what
        assert answer[2]["WWW-Authenticate"].startswith("Bearer"), what
        assert text not in json.dumps(answer[1]), what

    async with client.http.post(client.ingest.url, json={"choices": ["ada"]}) as bare:
        assert (bare.status, bare.headers["WWW-Authenticate"][:6]) == (401, "Bearer")
    assert client.poll.records() == before


async def test_ten_megabytes_are_refused_before_they_are_sent(client: Client) -> None:
    head = (
        f"POST /v1/sessions/final/votes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {client.poll.token('ann')}\r\nContent-Length: 10000000\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", client.ingest.port)
    writer.write(head.encode() + b"x" * 1000)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), PATIENCE_S)
    assert answer.startswith(b"HTTP/1.1 413 ")
    writer.close()

    assert problem(await client.vote(b"x" * 10_000_000)) == "body-too-large"


async def test_a_body_of_unknown_length_is_read_up_to_the_limit(client: Client) -> None:
    async def chunks(size: int) -> Any:
        for _ in range(size):
            yield b" " * 1024

    async def post(size: int) -> int:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {client.poll.token('ann')}"}
        async with client.http.post(client.ingest.url, data=chunks(size), headers=headers) as answer:
            return answer.status

    assert await post(10) == 400
    assert await post(10_000) == 413


async def test_a_client_that_asks_first_is_told_to_go_on_or_why_not(client: Client) -> None:
    token, body = client.poll.token("ann"), b'{"choices": ["ada"]}'
    for length, first in ((len(body), b"HTTP/1.1 100 "), (10_000_000, b"HTTP/1.1 413 ")):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.ingest.port)
        writer.write(
            f"POST /v1/sessions/final/votes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), PATIENCE_S)).startswith(first)
        if length == len(body):
            writer.write(body)
            await reader.readuntil(b"\r\n")
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), PATIENCE_S)).startswith(b"HTTP/1.1 202 ")
        writer.close()


async def test_requests_that_are_no_votes_get_their_own_answers(client: Client) -> None:
    base = f"http://127.0.0.1:{client.ingest.port}"
    for method, path, status, slug in (
        ("GET", "/v1/sessions/final/votes", 405, "method-not-allowed"),
        ("POST", "/v1/sessions/other/votes", 404, "unknown-session"),
        ("POST", "/v1/sessions/other/votes:batch", 404, "unknown-session"),
        ("POST", "/", 404, "not-found"),
    ):
        async with client.http.request(method, base + path) as answer:
            assert (answer.status, (await answer.json())["type"]) == (status, TYPE_BASE + slug)
    assert problem(await client.vote(Content_Type="text/plain")) == "unsupported-media-type"
    assert problem(await client.vote(Content_Encoding="gzip")) == "unsupported-media-type"
    assert problem(await client.vote(Idempotency_Key="x" * 200)) == "malformed-request"
    assert problem(await client.vote(Idempotency_Key="two words")) == "malformed-request"


async def test_a_page_of_another_origin_may_vote(client: Client) -> None:
    async with client.http.options(
        client.ingest.url,
        headers={"Origin": "https://vote.example", "Access-Control-Request-Method": "POST"},
    ) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        allowed = answer.headers["Access-Control-Allow-Headers"]
        assert {"Authorization", "Idempotency-Key", "Content-Type"} <= set(allowed.split(", "))


async def test_a_retry_gets_the_answer_that_was_missed_and_quotes_do_not_matter(client: Client) -> None:
    before = client.poll.records()
    answers = [
        (await client.vote(Idempotency_Key=key))[1] for key in ("8e03978e-40d5", '"8e03978e-40d5"', "another")
    ]
    assert answers[0] == answers[1]
    assert client.poll.records() == before + 2
    nonces = [vote.nonce for vote in in_log(client.poll, answers[1:]).values()]
    assert [len(nonce) for nonce in nonces] == [16, 16]
    assert nonces[0] != nonces[1]


async def test_one_key_is_for_one_vote(client: Client) -> None:
    first = await client.vote({"choices": ["ada"]}, subject="kim", Idempotency_Key="one")
    assert first[0] == 202
    other = await client.vote({"choices": ["bob"]}, subject="kim", Idempotency_Key="one")
    assert (other[0], problem(other)) == (422, "idempotency-key-reused")
    assert (await client.vote({"choices": ["bob"]}, subject="lea", Idempotency_Key="one"))[0] == 202
    refused = await client.vote({"choices": ["nobody"]}, subject="kim", Idempotency_Key="two")
    assert problem(refused) == "invalid-ballot"
    assert (await client.vote({"choices": ["bob"]}, subject="kim", Idempotency_Key="two"))[0] == 202


async def test_a_retry_that_overtakes_its_answer_is_told_to_wait(client: Client) -> None:
    before = client.poll.records()
    answers = await asyncio.gather(*(client.vote(subject="max", Idempotency_Key="same") for _ in range(8)))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) <= {202, 409}
    assert 202 in statuses
    for answer in answers:
        if answer[0] == 409:
            assert problem(answer) == "idempotency-key-in-use"
            assert int(answer[2]["Retry-After"]) > 0
    assert client.poll.records() == before + 1


TOKENS = {"issuer": "https://id.example", "audience": "final", "weightClaim": "weight", "segmentClaim": "country"}


@pytest.mark.parametrize("spec", [{"voters": {"tokens": TOKENS, "segments": ["no", "se"]}}], indirect=True)
async def test_weight_and_segment_come_exactly_from_the_token(own: Client) -> None:
    voters: dict[str, tuple[dict[str, Any], int, int]] = {
        "ann": ({"weight": 2, "country": "se"}, 2_000_000, 1),
        "ben": ({"weight": 0.1, "country": "fi"}, 100_000, 2),
        "cat": ({"weight": "1.000001"}, 1_000_001, 2),
        "dan": ({"weight": 1_000_000, "country": "no"}, 1_000_000_000_000, 0),
    }
    for subject, (claims, weight, segment) in voters.items():
        status, answer, _ = await own.vote(token=own.poll.token(subject, **claims))
        assert status == 202, (subject, answer)
        [vote] = in_log(own.poll, [answer]).values()
        assert (vote.weight, vote.segment) == (weight, segment)
    for claims, slug in (
        ({"weight": 0}, "not-eligible"),
        ({}, "invalid-token"),
        ({"weight": -1}, "invalid-token"),
        ({"weight": "1.0000001"}, "invalid-token"),
        ({"weight": 1_000_001}, "invalid-token"),
        ({"weight": True}, "invalid-token"),
    ):
        assert problem(await own.vote(token=own.poll.token("eve", **claims))) == slug, claims


@pytest.mark.parametrize(
    "spec", [{"voters": {"tokens": {"issuer": "https://id.example", "audience": "final"}, "revote": "last"}}],
    indirect=True,
)  # fmt: skip
async def test_where_voters_may_vote_again_a_key_is_mandatory(own: Client) -> None:
    assert problem(await own.vote()) == "idempotency-key-required"
    assert (await own.vote(Idempotency_Key="first"))[0] == 202


async def test_phases_and_times_decide_whether_a_vote_comes_in(own: Client) -> None:
    now = int(time.time() * 1000)

    async def wait_for(slug: str) -> tuple[int, dict[str, Any], Any]:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = await own.vote()
            if (slug == "accepted" and answer[0] == 202) or answer[1].get("type") == TYPE_BASE + slug:
                return answer
            assert time.monotonic() < deadline, answer
            await asyncio.sleep(0.02)

    def records() -> int:
        return own.poll.records()

    own.poll.control(Phase.PENDING, opens_at=now + 3_600_000)
    answer = await wait_for("session-not-open")
    assert (answer[0], problem(answer)) == (409, "session-not-open")
    assert answer[1]["opensAt"].endswith("Z")
    own.poll.control(Phase.OPEN)
    await wait_for("accepted")
    own.poll.control(Phase.PAUSED)
    answer = await wait_for("session-paused")
    assert int(answer[2]["Retry-After"]) > 0
    own.poll.control(Phase.OPEN, closes_at=now + 3_600_000)
    await wait_for("accepted")
    own.poll.control(Phase.OPEN, closes_at=int(time.time() * 1000) + 500)
    answer = await wait_for("session-closed")
    assert (answer[0], problem(answer)) == (409, "session-closed")
    before = await asyncio.to_thread(records)
    await wait_for("session-closed")
    own.poll.control(Phase.CLOSING)
    await wait_for("session-closed")
    assert await asyncio.to_thread(records) == before


async def test_logs_tell_nothing_about_voters(own: Client) -> None:
    token = own.poll.token("ann-the-voter")
    _, answer, _ = await own.vote(token=token, Idempotency_Key="my-own-key")
    await own.vote(token=token + "x")
    await own.batch([{"subject": "ben-the-voter", "choices": ["ada"]}])
    writer = (await asyncio.open_connection("127.0.0.1", own.ingest.port))[1]
    writer.write(f"BROKEN {token}\r\n\r\n".encode())
    await writer.drain()
    await eventually(lambda: own.ingest.stop() == 0, "stopped")

    text = own.ingest.log.read_text()
    for secret in ("ann-the-voter", "ben-the-voter", token, "my-own-key", answer["receipt"]):
        assert secret not in text
