"""Looks up a sample of the journal's receipts at the gateway, as their voters would."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import aiohttp

from psephos_lab.journal import Acknowledged
from psephos_lab.proof import place_of
from psephos_lab.reference import DUPLICATE

SAMPLE = 1_000
_AT_ONCE = 16
_TRIES = 5
_PAUSE_S = 0.5
_TIMEOUT = aiohttp.ClientTimeout(total=20)


class Resolved(NamedTuple):
    """The gateway's answers: receipts by status, and one line for each whose status was not the expected one."""

    statuses: Counter[str]
    failures: Sequence[str]


def sample(votes: Iterable[Acknowledged], seed: int, size: int = SAMPLE) -> list[Acknowledged]:
    """Returns `size` votes if there are that many, an equal share of each kind as far as it has them."""
    kinds: dict[str, list[Acknowledged]] = defaultdict(list)
    for vote in votes:
        kinds[vote.kind].append(vote)
    rng = random.Random(seed)  # noqa: S311 - a sample
    chosen: list[Acknowledged] = []
    scarce_first = sorted(kinds.values(), key=len)
    for place, kind in enumerate(scarce_first):
        share = -(-(size - len(chosen)) // (len(scarce_first) - place))
        chosen += rng.sample(kind, min(max(0, share), len(kind)))
    return chosen


async def resolve(
    url: str, votes: Sequence[Acknowledged], expected: Mapping[str, str], repeats: Collection[tuple[int, int]]
) -> Resolved:
    """Asks the gateway of the session at `url`. `expected`: status by receipt, followed by its reason.

    `repeats`: as in `Proof`. A vote that an earlier try precedes in the log, or may precede, may be a duplicate
    instead.
    """
    statuses: Counter[str] = Counter()
    failures: list[str] = []
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(vote: Acknowledged) -> None:
        async with gate:
            status = await _status(client, f"{url}/receipts/{vote.receipt}")
        statuses[status] += 1
        wanted = expected[vote.receipt]
        twice = vote.uncertain or place_of(vote) in repeats
        if status != wanted and not (twice and status == DUPLICATE):
            failures.append(f"receipt of {vote.subject} ({vote.kind} vote): {status}, should be {wanted}")

    async with aiohttp.ClientSession(timeout=_TIMEOUT) as client, asyncio.TaskGroup() as tasks:
        for vote in votes:
            tasks.create_task(ask(vote))
    return Resolved(statuses, failures)


async def _status(client: aiohttp.ClientSession, url: str) -> str:
    """Returns a receipt's status and its reason; for any other answer, after some tries, what the gateway said."""
    said = "no answer"
    for attempt in range(_TRIES):
        if attempt:
            await asyncio.sleep(_PAUSE_S)
        try:
            async with client.get(url) as response:
                body = await response.json(content_type=None)
                if response.status == 200 and isinstance(body, dict):
                    return " ".join(filter(None, (str(body.get("status")), body.get("reason"))))
                said = f"status {response.status}"
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            said = f"{type(error).__name__}: {error}"
    return said
