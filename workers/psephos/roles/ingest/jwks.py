"""An issuer's published keys (JWKS): fetched, cached, and fetched again when they are old or a key is unknown.

Voting does not depend on the issuer's site: while it is down, the keys fetched earlier continue to verify tokens.
Only a process that has never had any is not ready, and keeps trying.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

import aiohttp

from psephos.platform.backoff import Backoff, spread
from psephos.platform.errors import PsephosError
from psephos.platform.logs import get_logger
from psephos.roles.ingest import metrics
from psephos.roles.ingest.keys import JWKS_LIMIT, KeySet, UnusableKey, parse_jwks
from psephos.roles.ingest.problems import Problem, busy

DEFAULT_AGE_S: Final = 300.0  # for an issuer that gives no max-age
SHORTEST_AGE_S: Final = 60.0
LONGEST_AGE_S: Final = 3600.0
UNKNOWN_KEY_PAUSE_S: Final = 10.0  # made-up key names must not make us hammer the issuer
FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 60.0
_TIMEOUT = aiohttp.ClientTimeout(total=5)
_MAX_AGE: Final = re.compile(r"(?:^|,)\s*max-age\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)
_HEADERS: Final = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
log = get_logger()


class FetchFailed(PsephosError):
    """The set could not be fetched, or is not a key set. The message is one line."""


class PublishedKeys:
    """Keeps an issuer's keys current. Lives in one event loop: `run` is its task."""

    def __init__(self, url: str, algorithms: Sequence[str], use: Callable[[KeySet], None]) -> None:
        """`use` is called with every set that was fetched."""
        self.known = False
        self.trouble: str | None = None
        self._url = url
        self._algorithms = algorithms
        self._use = use
        self._under_way: asyncio.Task[float] | None = None
        self._last_ask = float("-inf")

    async def run(self) -> None:
        """Fetches at once, and again whenever the set has aged; after a failure sooner, with back-off."""
        backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)
        while True:
            try:
                pause_s = await self._fetched()
                backoff.reset()
            except FetchFailed:
                pause_s = spread(backoff.next_s())
            await asyncio.sleep(pause_s)

    async def look_again(self) -> bool:
        """Fetches the set again because of a key that is not in the old one; returns whether it did.

        It does so at most once per UNKNOWN_KEY_PAUSE_S; concurrent callers share the fetch in progress. Raises
        Problem overloaded if the issuer does not answer: then it is unknown whether the key is the issuer's.
        """
        now = monotonic()
        if self._under_way is None:
            if now - self._last_ask < UNKNOWN_KEY_PAUSE_S:
                if self.trouble is not None:
                    raise _unknown_at_present()
                return False
            self._last_ask = now
        try:
            await self._fetched()
        except FetchFailed:
            raise _unknown_at_present() from None
        return True

    async def _fetched(self) -> float:
        """Fetches the set; returns the seconds until it is old. Single flight. Raises FetchFailed."""
        if self._under_way is None:
            self._under_way = asyncio.create_task(self._fetch())
            self._under_way.add_done_callback(self._landed)
        return await asyncio.shield(self._under_way)

    def _landed(self, task: "asyncio.Task[float]") -> None:
        self._under_way = None
        if not task.cancelled():
            task.exception()  # callers that waited have it; if there are none, it has been logged

    async def _fetch(self) -> float:
        try:
            data, age_s = await _get(self._url)
            keys = parse_jwks(data, self._algorithms)
        except Exception as error:  # whatever happens to the issuer's site, the known keys stay in force
            why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            metrics.count_jwks("failed")
            log.warning("token keys can't be fetched", why=why, cached=self.known)
            self.trouble = why
            raise FetchFailed(why) from None
        self._use(keys)
        metrics.count_jwks("fetched", len(keys.keys))
        if self.trouble is not None or not self.known:
            log.info("token keys fetched", keys=len(keys.keys), again_in_s=age_s)
        self.known, self.trouble = True, None
        return age_s


def age_of(cache_control: str | None) -> float:
    """Returns how long a set counts as new, in seconds: the issuer's max-age, within bounds."""
    told = _MAX_AGE.search(cache_control or "")
    return min(max(float(told[1]) if told else DEFAULT_AGE_S, SHORTEST_AGE_S), LONGEST_AGE_S)


async def _get(url: str) -> tuple[bytes, float]:
    """Returns the body and how long it counts as new. Follows no redirects: only the session names the address."""
    async with (
        aiohttp.ClientSession(timeout=_TIMEOUT, headers=_HEADERS, auto_decompress=False) as http,
        http.get(url, allow_redirects=False) as answer,
    ):
        if answer.status != 200:
            raise ValueError(f"the answer is {answer.status}, not 200")
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > JWKS_LIMIT:
                raise UnusableKey(f"the key set is larger than {JWKS_LIMIT} bytes")
        return bytes(body), age_of(answer.headers.get("Cache-Control"))


def _unknown_at_present() -> Problem:
    return busy("overloaded", "the token's key is not known here, and its issuer does not answer; try again")
