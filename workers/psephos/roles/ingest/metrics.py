"""Metrics of ingest. Never a subject, a token, a key, a receipt or an option."""

from collections.abc import Callable

from prometheus_client import Counter, Enum, Gauge

from psephos.formats.control import Phase
from psephos.platform.histogram import BulkHistogram
from psephos.platform.registry import role_registry
from psephos.roles.ingest.problems import KINDS

REGISTRY = role_registry()

ACCEPTED = "accepted"
REPLAYED = "replayed"

_votes = Counter(
    "psephos_ingest_requests_total",
    "Votes offered, by outcome; each line of a batch is one",
    ["outcome"],
    registry=REGISTRY,
)
_by_outcome = {outcome: _votes.labels(outcome) for outcome in (ACCEPTED, REPLAYED, *KINDS)}
_ack = BulkHistogram(
    "psephos_ingest_ack_seconds",
    "From handing a vote (or a part of a batch) to the producer until the log has acknowledged it",
    (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
    registry=REGISTRY,
)
_in_flight = Gauge("psephos_ingest_in_flight", "Votes enqueued and not yet acknowledged", registry=REGISTRY)
_limit = Gauge(
    "psephos_ingest_in_flight_limit",
    "Votes in flight above which new ones are refused as overloaded",
    registry=REGISTRY,
)
_skew = Gauge(
    "psephos_ingest_clock_skew_seconds",
    "How far this clock is ahead of the brokers' at least; behind: negative",
    registry=REGISTRY,
)
_phase = Enum(
    "psephos_ingest_phase",
    "The session's phase as this process knows it",
    states=[phase.value for phase in Phase],
    registry=REGISTRY,
)
_closes_at = Gauge(
    "psephos_ingest_closes_at_timestamp_seconds",
    "When voting ends as this process knows it, Unix time; 0: that is not fixed",
    registry=REGISTRY,
)
_fetches = Counter(
    "psephos_ingest_jwks_fetches_total",
    "Attempts to fetch the issuer's published keys, by outcome",
    ["outcome"],
    registry=REGISTRY,
)
_keys = Gauge(
    "psephos_ingest_jwks_keys", "Usable keys in the issuer's set as it was fetched last", registry=REGISTRY
)
_fetched_at = Gauge(
    "psephos_ingest_jwks_fetched_timestamp_seconds",
    "When the issuer's set was fetched last, Unix time",
    registry=REGISTRY,
)
_rolls = Counter(
    "psephos_ingest_roll_loads_total", "Electoral rolls that were read, by outcome", ["outcome"], registry=REGISTRY
)
_roll_voters = Gauge(
    "psephos_ingest_roll_voters", "Voters on the electoral roll that is in force", registry=REGISTRY
)
_tokens = Counter(
    "psephos_ingest_anonymous_tokens_total", "Tokens handed out in an open session", registry=REGISTRY
)
_connections = Gauge("psephos_ingest_connections", "Open connections of clients", registry=REGISTRY)
_connections_limit = Gauge(
    "psephos_ingest_connections_limit", "Open connections above which new ones are refused", registry=REGISTRY
)
_slow = Counter(
    "psephos_ingest_slow_clients_total",
    "Connections closed because a request's headers did not arrive",
    registry=REGISTRY,
)

observe_acks = _ack.observe
count_slow = _slow.inc
count_token = _tokens.inc
set_skew = _skew.set


def count(outcome: str, votes: int = 1) -> None:
    """Counts votes by `outcome`: ACCEPTED, REPLAYED or a problem's slug."""
    _by_outcome[outcome].inc(votes)


def show_phase(phase: Phase) -> None:
    _phase.state(phase.value)


def show_end(closes_at_ms: int | None) -> None:
    """Shows the closing time; `closes_at_ms`: milliseconds since 1970."""
    _closes_at.set((closes_at_ms or 0) / 1000)


def watch_queue(in_flight: Callable[[], int], limit: int) -> None:
    """Shows the queue; `in_flight` is called at each scrape."""
    _in_flight.set_function(in_flight)
    _limit.set(limit)


def count_jwks(outcome: str, keys: int | None = None) -> None:
    """Counts fetches of key sets. `outcome`: fetched or failed; `keys`: number of keys in a fetched set."""
    _fetches.labels(outcome).inc()
    if keys is not None:
        _keys.set(keys)
        _fetched_at.set_to_current_time()


def count_roll(outcome: str, voters: int | None = None) -> None:
    """Counts loads of the roll. `outcome`: loaded or failed; `voters`: number of voters on a loaded roll."""
    _rolls.labels(outcome).inc()
    if voters is not None:
        _roll_voters.set(voters)


def watch_connections(open_now: Callable[[], int], limit: int) -> None:
    """Shows connections; `open_now` is called at each scrape."""
    _connections.set_function(open_now)
    _connections_limit.set(limit)
