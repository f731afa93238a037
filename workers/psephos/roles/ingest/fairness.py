"""The limits of a request: that of its client's address, and that of its voter. Batches are subject to neither."""

from collections.abc import Mapping
from time import monotonic

from aiohttp import web

from psephos.http.rate_limit import Key, Limit, LimitReached, client_of
from psephos.platform.settings import Settings
from psephos.roles.ingest.problems import Problem


class Fairness:
    """The limits of one process; several processes have several allowances."""

    def __init__(self, settings: Settings) -> None:
        self._proxies = settings.trusted_proxies
        self._votes: Limit[str] | None = None
        self._voters: Limit[bytes] | None = None
        if settings.ingest_address_rate:
            self._votes = Limit("address", settings.ingest_address_rate, settings.ingest_address_burst)
        if settings.ingest_voter_rate:
            self._voters = Limit("voter", settings.ingest_voter_rate, settings.ingest_voter_burst)
        self._tokens: Limit[str] = Limit("address", settings.ingest_open_rate, settings.ingest_open_burst)

    def admit_client(self, remote: str | None, headers: Mapping[str, str]) -> None:
        """Admits a vote from this address. Raises Problem rate-limited."""
        if self._votes is not None:
            _take_of_client(self._votes, client_of(remote, headers, self._proxies))

    def admit_voter(self, voter: bytes) -> dict[str, str]:
        """Admits a vote of this voter; returns the header fields for its answer. Raises Problem rate-limited."""
        if self._voters is None:
            return {}
        return {
            "RateLimit": _take(self._voters, voter),
            "RateLimit-Policy": self._voters.policy,
        }

    def admit_newcomer(self, request: web.BaseRequest) -> None:
        """Admits a request for an anonymous token from this address. Raises Problem rate-limited."""
        _take_of_client(self._tokens, client_of(request.remote, request.headers, self._proxies))


def _take_of_client(limit: Limit[str], client: str | None) -> None:
    """Takes from a client's limit. Local clients have none: they are proxies, load tests, or the local stack."""
    if client is not None:
        _take(limit, client)


def _take(limit: Limit[Key], key: Key) -> str:
    """Takes from a limit; returns the RateLimit field for the answer. Raises Problem rate-limited."""
    try:
        return limit.take(key, monotonic())
    except LimitReached as reached:
        raise Problem("rate-limited", str(reached), headers=reached.headers) from None
