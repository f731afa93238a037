"""Who may vote, by real processes: keys that an issuer publishes, a roll, and sessions that are open to all."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from tests.integration.ingest.conftest import Client, Ingest, Poll, eventually
from tests.integration.ingest.test_a_vote import problem
from tests.roles import program
from tests.unit.ingest.test_published_keys import jwk, published
from tests.waiting import PATIENCE_S, wait_until

from psephos.adapters.dynamodb import Ledger
from psephos.formats.blocks import RecordClass, decode_block
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

Start = Callable[..., Ingest]
TOKENS = {"issuer": "https://id.example", "audience": "final"}


@pytest.fixture
def starter() -> Iterator[Callable[..., Ingest]]:
    """Starts ingest of any poll; ends every one of them after the test."""
    started: list[Ingest] = []

    def one(poll: Poll, **variables: Any) -> Ingest:
        started.append(Ingest(poll, **variables))
        return started[-1]

    yield one
    for ingest in started:
        ingest.end()


class Site:
    """An issuer's site: it publishes these keys, and can be shut."""

    def __init__(self) -> None:
        self.port = free_port()
        self.keys: list[dict[str, Any]] = []
        self.asked = 0
        self._runner: web.ServerRunner | None = None

    async def answer(self, _: web.BaseRequest) -> web.Response:
        self.asked += 1
        return web.Response(body=published(*self.keys), headers={"Cache-Control": "max-age=60"})

    async def open(self) -> None:
        self._runner = web.ServerRunner(web.Server(self.answer))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def shut(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    one = Site()
    yield one
    await one.shut()


def signed(poll: Poll, kid: str, key: Any, subject: str) -> str:
    claims = {"sub": subject, "iss": "https://id.example", "aud": "final", "exp": int(time.time()) + 600}
    return jwt.encode(claims, key, "ES256", headers={"kid": kid})


async def test_a_rotation_and_an_outage_of_the_issuer_are_survived_while_votes_come_in(
    backends: Backends, tmp_path: Path, starter: Any, http: aiohttp.ClientSession, site: Site
) -> None:
    url = f"http://127.0.0.1:{site.port}/keys"
    poll = Poll(backends, tmp_path, {"voters": {"tokens": {**TOKENS, "algorithms": ["ES256"], "jwksUrl": url}}})
    first, second, third = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    site.keys = [jwk("ES256", "first", first)]

    ingest = starter(poll, PSEPHOS_TOKEN_KEY_FILE="")  # the issuer is down: not ready, but alive
    await eventually(lambda: "keys" in (ingest.reasons() or {}), "not ready for want of keys")
    await site.open()
    await asyncio.to_thread(ingest.wait_ready)
    client = Client(poll, ingest, http)
    outcomes: list[int] = []

    async def vote_on_and_on() -> None:
        number = 0
        while True:
            number += 1
            outcomes.append((await client.vote(token=signed(poll, "first", first, f"v{number}")))[0])
            await asyncio.sleep(0.01)

    voting = asyncio.create_task(vote_on_and_on())
    assert (await client.vote(token=signed(poll, "first", second, "eve")))[0] == 401

    site.keys.append(jwk("ES256", "second", second))  # both at once, and nobody told ingest
    burst = await asyncio.gather(*(client.vote(token=signed(poll, "second", second, f"s{n}")) for n in range(20)))
    assert {status for status, _, _ in burst} == {202}
    assert site.asked == 2

    await site.shut()
    refused = await until_not(client, signed(poll, "third", third, "tim"), {401})
    assert (refused[0], problem(refused)) == (503, "overloaded")  # nobody can say whether it is the issuer's
    for kid, key in (("first", first), ("second", second)):
        assert (await client.vote(token=signed(poll, kid, key, f"during-{kid}")))[0] == 202
    metrics = await asyncio.to_thread(ingest.metrics)
    assert metrics['psephos_ingest_jwks_fetches_total{outcome="failed"}'] >= 1
    assert ingest.reasons() == {}

    await eventually(lambda: outcomes.count(202) > 20, "votes come in all the while")
    site.keys = [jwk("ES256", "second", second), jwk("ES256", "third", third)]
    await site.open()
    assert (await until_not(client, signed(poll, "third", third, "tim"), {401, 503}))[0] == 202
    assert set(outcomes) <= {202, 401}
    assert set(outcomes[: outcomes.index(401)] if 401 in outcomes else outcomes) == {202}
    voting.cancel()
    withdrawn = await client.vote(token=signed(poll, "first", first, "late"))
    assert (withdrawn[0], problem(withdrawn)) == (401, "invalid-token")


async def until_not(client: Client, token: str, statuses: set[int]) -> tuple[int, dict[str, Any], Any]:
    deadline = time.monotonic() + PATIENCE_S
    while (answer := await client.vote(token=token))[0] in statuses:
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.1)
    return answer


# --- The roll


def memory_mb(pid: int) -> dict[str, float]:
    """Rss, Pss and Private_Dirty of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name.rstrip(":"): int(size) / 1024 for name, size, *_ in (line.split() for line in lines)}


async def test_a_roll_of_a_million_is_loaded_in_seconds_shared_and_replaced_while_voting_goes_on(
    backends: Backends, tmp_path: Path, starter: Any, http: aiohttp.ClientSession, capsys: Any
) -> None:
    source = tmp_path / "roll.txt"
    source.write_text("".join(f"subject-{number:07d}@example.org\n" for number in range(1_000_000)))
    voters = {"eligibility": "roll", "tokens": TOKENS, "roll": {"url": source.as_uri()}}
    poll = Poll(backends, tmp_path, {"voters": voters})
    ingest = starter(poll, PSEPHOS_INGEST_PROCESSES=2, PSEPHOS_DATA_DIR=tmp_path / "data")
    for index in (0, 1):
        await asyncio.to_thread(ingest.wait_ready, index)
    client = Client(poll, ingest, http)

    loads = [(event["voters"], event["seconds"]) for event in ingest.events("roll loaded")]
    assert [voters for voters, _ in loads] == [1_000_000] * 3  # built once by the parent, found by its children
    sizes = [memory_mb(pid) for pid in ingest.children()]
    with capsys.disabled():
        print(f"\nroll of 1,000,000: loaded in {[seconds for _, seconds in loads]} s;", end=" ")
        print("; ".join(f"Rss {size['Rss']:.0f} MB, Pss {size['Pss']:.0f} MB" for size in sizes))

    assert (await client.vote(subject="subject-0000000@example.org"))[0] == 202
    assert (await client.vote(subject="subject-0999999@example.org"))[0] == 202
    for subject in ("subject-1000000@example.org", "subject-0000000@example.or", "new@example.org"):
        answer = await client.vote(subject=subject)
        assert (answer[0], problem(answer)) == (403, "not-eligible")
    _, lines = await client.batch(
        [
            {"subject": "subject-0000001@example.org", "choices": ["ada"]},
            {"subject": "new@example.org", "choices": ["ada"]},
        ]
    )
    assert [line["status"] for line in lines] == [202, 403]

    with source.open("a") as roll:
        roll.write("new@example.org\n")
    with_too_many = await until_loaded_or_refused(ingest)
    assert with_too_many == "failed"  # a million is the most: the old roll stays in force
    assert (await client.vote(subject="subject-0000002@example.org"))[0] == 202

    replacement = tmp_path / "replacement"
    replacement.write_text("new@example.org\nsubject-0000003@example.org\n")
    slowest = 0.0
    replacement.rename(source)
    deadline = time.monotonic() + PATIENCE_S
    while (await client.vote(subject="new@example.org"))[0] != 202:
        began = time.monotonic()
        assert (await client.vote(subject="subject-0000003@example.org"))[0] in (202, 429)
        slowest = max(slowest, time.monotonic() - began)
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    await eventually(lambda: len(ingest.events("roll loaded")) == 5, "both processes have the new roll")
    gone = await client.vote(subject="subject-0000002@example.org")
    assert problem(gone) == "not-eligible"
    assert len(list((tmp_path / "data" / "roll").glob("*.roll"))) == 1
    with capsys.disabled():
        print(f"slowest vote while a new roll was built: {slowest * 1000:.0f} ms")


async def until_loaded_or_refused(ingest: Ingest) -> str:
    refused = "new roll is unusable, the old one stays in force"
    count = len(ingest.events("roll loaded"))
    await eventually(
        lambda: len(ingest.events("roll loaded")) > count or len(ingest.events(refused)) == 2, "the roll is read"
    )
    return "loaded" if len(ingest.events("roll loaded")) > count else "failed"


# --- Open to all


async def anonymous(client: Client, address: str | None = None) -> tuple[int, dict[str, Any], Any]:
    url = client.ingest.url.removesuffix("/votes") + "/tokens"
    headers = {} if address is None else {"X-Forwarded-For": address}
    async with client.http.post(url, headers=headers) as answer:
        return answer.status, json.loads(await answer.read()), answer.headers


@pytest.mark.parametrize("spec", [{"voters": {"eligibility": "open"}}], indirect=True)
async def test_a_browser_gets_a_token_and_with_it_one_voter(own: Client) -> None:
    status, answer, headers = await anonymous(own)
    assert (status, headers["Cache-Control"], headers["Access-Control-Allow-Origin"]) == (201, "no-store", "*")
    other = (await anonymous(own))[1]
    votes = [await own.vote(token=each) for each in (answer["token"], answer["token"], other["token"])]
    assert [status for status, _, _ in votes] == [202] * 3
    keys = [own.poll.log_at(vote).key() for _, vote, _ in votes]
    assert keys[0] == keys[1] != keys[2]
    assert answer["expiresAt"].endswith("Z")
    foreign = own.poll.token("ann", iss=f"urn:psephos:session:{own.poll.settings.session_uid}")
    refused = await own.vote(token=foreign)
    assert (refused[0], problem(refused)) == (401, "invalid-token")
    async with own.http.options(own.ingest.url.removesuffix("/votes") + "/tokens") as preflight:
        assert (preflight.status, preflight.headers["Access-Control-Allow-Methods"]) == (204, "POST")
    assert (await asyncio.to_thread(own.ingest.metrics))["psephos_ingest_anonymous_tokens_total"] == 2


async def test_a_session_with_tokens_of_its_own_hands_none_out(client: Client) -> None:
    status, answer, _ = await anonymous(client)
    assert (status, answer["type"].rpartition("/")[2]) == (404, "not-found")


@pytest.mark.parametrize("spec", [{"voters": {"eligibility": "open"}}], indirect=True)
async def test_an_address_gets_so_many_tokens_and_must_then_wait(
    poll: Poll, start: Start, http: aiohttp.ClientSession
) -> None:
    limits = {"PSEPHOS_TRUSTED_PROXIES": 1, "PSEPHOS_INGEST_OPEN_RATE": 0.01, "PSEPHOS_INGEST_OPEN_BURST": 3}
    client = Client(poll, start(**limits).wait_ready(), http)
    for prefix in ("", "6.6.6.6, ", "7.7.7.7, "):  # what a client makes up does not make it another one
        assert (await anonymous(client, f"{prefix}203.0.113.5"))[0] == 201
    answer = await anonymous(client, "203.0.113.5")
    assert (answer[0], problem(answer)) == (429, "rate-limited")
    assert 1 <= int(answer[2]["Retry-After"]) <= 100
    assert answer[2]["RateLimit-Policy"] == '"address";q=3;w=300'
    assert answer[2]["RateLimit"].startswith('"address";r=0;t=')
    assert (await anonymous(client, "203.0.113.6"))[0] == 201
    for host in range(3):
        assert (await anonymous(client, f"2001:db8:1:2::{host}"))[0] == 201
    assert (await anonymous(client, "2001:db8:1:2:ffff::1"))[0] == 429


# --- A gateway's credential, and a batch that is repeated


async def test_a_batch_that_broke_off_is_repeated_as_a_whole_and_each_line_counts_once(
    backends: Backends, tmp_path: Path, starter: Any, http: aiohttp.ClientSession
) -> None:
    """Voters may vote again here, so that only a line's key tells a repetition from a new vote."""
    poll = Poll(backends, tmp_path, {"voters": {"tokens": TOKENS, "revote": "last"}})
    ingest = starter(poll)
    await asyncio.to_thread(ingest.wait_ready)
    lines = [{"subject": f"v{n}", "choices": ["ada"], "idempotencyKey": f"line-{n}"} for n in range(3_000)]

    client = Client(poll, ingest, http)
    sending = asyncio.create_task(client.batch(lines[:2_000], unfinished=True))
    await eventually(lambda: poll.records() > 500, "some of it stands in the log")
    ingest.process.kill()
    with pytest.raises(aiohttp.ClientError):
        await sending

    second = starter(poll)
    await asyncio.to_thread(second.wait_ready)
    status, answers = await Client(poll, second, http).batch(lines)
    assert (status, {answer["status"] for answer in answers}) == (200, {202})
    records = await asyncio.to_thread(poll.records)
    assert records > 3_500
    classes = await asyncio.to_thread(counted, poll, records)
    assert classes == {"accepted": 3_000, "duplicate": records - 3_000}


def counted(poll: Poll, records: int) -> dict[str, int]:
    """What a tally makes of the log, by class."""
    ledger = Ledger.of(poll.settings)
    port = {"PSEPHOS_ADMIN_PORT": str(free_port()), "PSEPHOS_DATA_DIR": str(poll.folder / "data")}
    tally = program("tally", "psephos.roles.tally", poll.folder / "tally.log", {**poll.environ, **port})
    tally.start()
    try:

        def states() -> list[Any]:
            heads = [ledger.head(partition) for partition in range(4)]
            return [decode_block(head.payload).state for head in heads if head is not None]

        wait_until(lambda: sum(state.records for state in states()) == records, "everything is counted")
        totals = [sum(column) for column in zip(*(state.classes for state in states()), strict=True)]
        return {kind.name.lower(): totals[kind] for kind in RecordClass if totals[kind]}
    finally:
        tally.stop(PATIENCE_S)
