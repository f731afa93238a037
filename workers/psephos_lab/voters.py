"""Voters: they cast a planned load through ingest by HTTP, and keep a journal of every acknowledgement.

Most ballots go in batches, the rest one per request over kept connections. A further vote is sent once the voter's
previous one was acknowledged, on a new connection, with a new Idempotency-Key; a retry reuses an old one: with
several ingest processes, until a different one has taken it. What ingest could not take or confirm is sent again
with the same key, as clients have to do.
"""

import asyncio
import base64
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
from confluent_kafka import KafkaError, Producer

from psephos.adapters.kafka import LogUnavailable, client_config, votes_topic
from psephos.platform.errors import FAILED, PsephosError
from psephos.platform.settings import Settings
from psephos_lab.journal import Acknowledged, Journal
from psephos_lab.load import Again, Body, Load, Poison, Refusable, Voter

BATCH = 500
BATCHES_AT_ONCE, SINGLES_AT_ONCE, MORE_AT_ONCE = 4, 32, 16
ELSEWHERE_TRIES = 64  # connections until one reaches another process
_PAUSES_S = (0.2, 3.0)  # between two tries
_GIVE_UP_S = 120.0
_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10)
_SYNC_S = 0.25
_ACCEPTED, _CREATED = 202, 201
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_IN_USE = "idempotency-key-in-use"  # by a try whose connection broke: its answer will be there in a moment


class Unanswered(PsephosError):
    """Ingest did not take a valid vote, despite retries. The message is one line."""

    exit_code = FAILED


class Door(NamedTuple):
    """Address and credentials for casting. url: of the session; token: a voter's own; credential: for batches;
    anonymous: only the tokens identify the voters, so batches name them by token as well."""

    url: str
    credential: str
    token: Callable[[str], str]
    anonymous: bool = False


@dataclass
class Cast:
    """Counts of what voters saw. `refused`: by problem type; `retries`: answers that made a vote be sent again.

    `more`: further votes of voters who had voted, `repeated`: the very same votes again, both as records of the
    log; `replayed`: repeated ones that got the previous answer, and no record.
    """

    acknowledged: int = 0
    more: int = 0
    repeated: int = 0
    replayed: int = 0
    poison: int = 0
    retries: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    accepted_invalid: int = 0


async def cast(
    door: Door,
    load: Load,
    journal: Journal,
    settings: Settings,
    *,
    rate: float | None = None,
    seen: Cast | None = None,
) -> Cast:
    """Casts everything; returns when every valid vote has its receipt. `rate`: most ballots per second.

    `seen` is updated meanwhile. Raises Unanswered, LogUnavailable.
    """
    async with _Voting(door, journal, seen or Cast(), settings.ingest_processes) as voting:
        return await voting.run(load, settings, rate)


async def anonymous_tokens(url: str, number: int) -> dict[str, str]:
    """Gets tokens for `number` voters of an open session; returns them by subject. Raises Unanswered."""
    tokens: dict[str, str] = {}
    turns = iter(range(number))

    async def ask(client: aiohttp.ClientSession) -> None:
        for _ in turns:  # all tasks share it
            async with client.post(f"{url}/tokens") as response:
                body = await _json(response)
                if response.status != _CREATED:
                    raise Unanswered(f"ingest handed out no token: {body.get('detail', response.status)}")
            tokens[_subject_of(body["token"])] = body["token"]

    try:
        async with aiohttp.ClientSession(timeout=_REQUEST_TIMEOUT) as client, asyncio.TaskGroup() as tasks:
            for _ in range(SINGLES_AT_ONCE):
                tasks.create_task(ask(client))
    except* (Unanswered, aiohttp.ClientError, TimeoutError) as errors:
        raise Unanswered(f"no anonymous token: {errors.exceptions[0]}") from None
    return tokens


def _subject_of(token: str) -> str:
    payload = token.split(".")[1]
    subject: str = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]
    return subject


class _Voting:
    def __init__(self, door: Door, journal: Journal, seen: Cast, processes: int) -> None:
        self._elsewhere_tries = ELSEWHERE_TRIES if processes > 1 else 1
        self._door = door
        self._journal = journal
        self._seen = seen
        self._rng = random.Random()  # noqa: S311 - jitter
        self._batches: asyncio.Queue[list[Voter]] = asyncio.Queue(2 * BATCHES_AT_ONCE)
        self._singles: asyncio.Queue[Voter | Refusable] = asyncio.Queue(2 * SINGLES_AT_ONCE)
        self._more: asyncio.Queue[tuple[Voter, str]] = asyncio.Queue()

    async def __aenter__(self) -> "_Voting":
        self._kept = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=_REQUEST_TIMEOUT)
        self._fresh = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=_REQUEST_TIMEOUT
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kept.close()
        await self._fresh.close()

    async def run(self, load: Load, settings: Settings, rate: float | None) -> Cast:
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [tasks.create_task(self._sync_now_and_then())]
                for queue, work, number in (
                    (self._batches, self._cast_batch, BATCHES_AT_ONCE),
                    (self._singles, self._cast_single, SINGLES_AT_ONCE),
                    (self._more, self._cast_more, MORE_AT_ONCE),
                ):
                    helpers += [tasks.create_task(_consume(queue, work)) for _ in range(number)]
                poison = tasks.create_task(asyncio.to_thread(_produce, settings, load.poison))
                await self._feed(load, rate)
                await self._batches.join()
                await self._singles.join()
                await self._more.join()
                self._seen.poison = await poison
                for helper in helpers:
                    helper.cancel()
        except* (Unanswered, LogUnavailable) as errors:
            raise errors.exceptions[0] from None
        self._journal.sync()
        return self._seen

    # --- The order of casting

    async def _feed(self, load: Load, rate: float | None) -> None:
        """Queues the voters in their order, at the given rate; those to be refused are spread among them."""
        size = BATCH if rate is None else max(1, min(BATCH, int(rate / 5)))
        every = max(1, len(load.voters) // (len(load.refusable) + 1))
        refusable = list(reversed(load.refusable))
        batch: list[Voter] = []
        begun = time.monotonic()
        for number, voter in enumerate(load.voters, start=1):
            if voter.single:
                await self._singles.put(voter)
            else:
                batch.append(voter)
            if number % every == 0 and refusable:
                await self._singles.put(refusable.pop())
            if len(batch) >= size:
                await self._batches.put(batch)
                batch = []
                await _pace(begun, number, rate)
        if batch:
            await self._batches.put(batch)
        for each in refusable:
            await self._singles.put(each)

    def _note(self, voter: Voter, kind: str, vote: Again, answer: "_Answer") -> None:
        """Records a vote that has its receipt."""
        receipt, key = answer.body["receipt"], _key(voter, vote.number)
        self._journal.append(Acknowledged(voter.subject, kind, receipt, key, vote.body, answer.tries > 1))
        self._seen.acknowledged += 1

    async def _first(self, voter: Voter, kind: str, answer: "_Answer") -> None:
        self._note(voter, kind, Again(1, voter.body), answer)
        if voter.more:
            await self._more.put((voter, answer.body["receipt"]))

    async def _sync_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_SYNC_S)
            await asyncio.to_thread(self._journal.sync)

    # --- The batch endpoint

    async def _cast_batch(self, voters: list[Voter]) -> None:
        """Casts a batch until each voter has a receipt; the lines without one are sent again."""
        waiting, begun, tries = voters, time.monotonic(), 0
        while True:
            answers, tries = await self._post_batch(waiting), tries + 1
            again: list[Voter] = []
            for voter, answer in zip(waiting, answers, strict=True):
                if answer.status == _ACCEPTED:
                    await self._first(voter, "batch", answer._replace(tries=tries))
                else:
                    _require_retry(answer, begun, f"the vote of {voter.subject}")
                    again.append(voter)
            if not again:
                return
            self._seen.retries += len(again)
            waiting = again
            await self._pause(answers)

    async def _post_batch(self, voters: list[Voter]) -> "list[_Answer]":
        lines = [
            json.dumps({**self._named(voter), "idempotencyKey": _key(voter, 1), **voter.body}) for voter in voters
        ]
        headers = {"Authorization": f"Bearer {self._door.credential}", "Content-Type": "application/x-ndjson"}
        url, body = f"{self._door.url}/votes:batch", "\n".join(lines).encode() + b"\n"
        try:
            async with self._kept.post(url, data=body, headers=headers) as response:
                if response.content_type != "application/x-ndjson":
                    return [_Answer(response.status, await _json(response))] * len(voters)
                return await _line_answers(response, len(voters))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return [_no_answer(error)] * len(voters)

    def _named(self, voter: Voter) -> Mapping[str, str]:
        if self._door.anonymous:
            return {"token": self._door.token(voter.subject)}
        return {"subject": voter.subject}

    # --- One vote per request

    async def _cast_single(self, voter: Voter | Refusable) -> None:
        if isinstance(voter, Refusable):
            await self._cast_refusable(voter)
            return
        answer = await self._until_taken(self._kept, voter, Again(1, voter.body))
        await self._first(voter, "single", answer)

    async def _cast_more(self, work: tuple[Voter, str]) -> None:
        """Casts further votes one after the other, so that the voter's own votes are in the order of the log."""
        voter, first = work
        receipts = {1: first}
        for vote in voter.more:
            known = receipts.get(vote.number)
            if known is not None:
                await self._repeat(voter, vote, known)
                continue
            answer = await self._until_taken(self._fresh, voter, vote)
            receipts[vote.number] = answer.body["receipt"]
            self._seen.more += 1
            self._note(voter, "more", vote, answer)

    async def _repeat(self, voter: Voter, vote: Again, receipt: str) -> None:
        """Casts the same vote again. The process that took it returns its receipt, any other one a new receipt."""
        for _ in range(self._elsewhere_tries):
            answer = await self._until_taken(self._fresh, voter, vote)
            if answer.body["receipt"] != receipt:
                self._seen.repeated += 1
                self._note(voter, "retry", vote, answer)
                return
            self._seen.replayed += 1

    async def _cast_refusable(self, voter: Refusable) -> None:
        """Casts once: a refusal is wanted. Retries only after answers that say nothing about the ballot."""
        begun = time.monotonic()
        while True:
            answer = await self._post_one(self._kept, voter.subject, f"{voter.subject}-1", voter.body)
            if answer.status not in _AGAIN:
                break
            _require_retry(answer, begun, f"the ballot of {voter.subject}")
            self._seen.retries += 1
            await self._pause([answer])
        if answer.status == _ACCEPTED:
            self._seen.accepted_invalid += 1
        else:
            self._seen.refused[answer.problem] += 1

    async def _until_taken(self, client: aiohttp.ClientSession, voter: Voter, vote: Again) -> "_Answer":
        begun, tries, key, body = time.monotonic(), 1, _key(voter, vote.number), _encode(vote.body)
        while (answer := await self._post_one(client, voter.subject, key, body)).status != _ACCEPTED:
            _require_retry(answer, begun, f"the vote of {voter.subject}")
            self._seen.retries += 1
            tries += 1
            await self._pause([answer])
        return answer._replace(tries=tries)

    async def _post_one(self, client: aiohttp.ClientSession, subject: str, key: str, body: bytes) -> "_Answer":
        headers = {
            "Authorization": f"Bearer {self._door.token(subject)}",
            "Content-Type": "application/json",
            "Idempotency-Key": key,
        }
        try:
            async with client.post(f"{self._door.url}/votes", data=body, headers=headers) as response:
                return _Answer(response.status, await _json(response), response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _no_answer(error)

    async def _pause(self, answers: "Iterable[_Answer]") -> None:
        """Pauses with jitter, so that voters who were turned away do not all come back at once."""
        told = [float(said) for answer in answers if (said := answer.retry_after or "").isdigit()]
        low, high = _PAUSES_S
        await asyncio.sleep(self._rng.uniform(low, max([high, *told]) if told else high))


# --- Answers


class _Answer(NamedTuple):
    """The answer to a vote. `tries`: how often its request was sent."""

    status: int
    body: Mapping[str, Any]
    retry_after: str | None = None
    tries: int = 1

    @property
    def problem(self) -> str:
        """The last part of the problem's type."""
        return str(self.body.get("type", self.status)).rsplit("/", 1)[-1]


def _no_answer(error: BaseException) -> _Answer:
    return _Answer(503, {"type": "no-answer", "detail": f"{type(error).__name__}: {error}"})


async def _json(response: aiohttp.ClientResponse) -> Mapping[str, Any]:
    try:
        body = json.loads(await response.read())
    except ValueError:
        return {"detail": f"status {response.status} without JSON"}
    return body if isinstance(body, dict) else {"detail": f"status {response.status}: not an object"}


async def _line_answers(response: aiohttp.ClientResponse, lines: int) -> list[_Answer]:
    """Reads one answer per line. If the connection breaks, the lines that got none are sent again."""
    answers: list[_Answer] = []
    broken: BaseException = EOFError("the answer ended early")
    try:
        async for line in response.content:
            if line.endswith(b"\n"):
                body = json.loads(line)
                answers.append(_Answer(body["status"], body))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        broken = error
    return answers + [_no_answer(broken)] * (lines - len(answers))


def _require_retry(answer: _Answer, begun: float, whose: str) -> None:
    if (answer.status in _AGAIN or answer.problem == _IN_USE) and time.monotonic() - begun < _GIVE_UP_S:
        return
    raise Unanswered(f"ingest did not take {whose}: {answer.problem} ({answer.body.get('detail', answer.status)})")


def _key(voter: Voter, number: int) -> str:
    """Returns the Idempotency-Key of a voter's vote."""
    return f"{voter.subject}-{number}"


def _encode(body: Body) -> bytes:
    return json.dumps(body).encode()


async def _pace(begun: float, number: int, rate: float | None) -> None:
    if rate is not None:
        await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))


async def _consume(queue: "asyncio.Queue[Any]", work: Callable[[Any], Awaitable[None]]) -> None:
    while True:
        each = await queue.get()
        await work(each)
        queue.task_done()


# --- Straight into the log


def _produce(settings: Settings, poison: Sequence[Poison]) -> int:
    """Writes records past ingest; returns how many. Raises LogUnavailable."""
    failed: list[KafkaError] = []
    producer = Producer({**client_config(settings), "acks": "all", "enable.idempotence": True})
    for record in poison:
        producer.produce(
            votes_topic(settings.session_uid),
            record.value,
            record.key,
            record.partition,
            on_delivery=lambda error, _: failed.append(error) if error is not None else None,
        )
        producer.poll(0)
    if producer.flush(30.0) or failed:
        raise LogUnavailable(f"invalid records could not be written: {failed[0].str() if failed else 'time-out'}")
    return len(poison)
