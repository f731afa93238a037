"""Metrics of the projector."""

from prometheus_client import Counter, Gauge, Histogram

from psephos.platform.registry import role_registry

REGISTRY = role_registry()

FRAMES = Counter(
    "psephos_projector_frames", "Frames written to Redis that were newer than the one there.", registry=REGISTRY
)
LAG = Gauge(
    "psephos_projector_lag_seconds",
    "How long the oldest record not yet counted has been waiting.",
    registry=REGISTRY,
)
VERSION = Gauge("psephos_projector_version", "Version of the newest frame.", registry=REGISTRY)
AGE = Histogram(
    "psephos_projector_vote_age_seconds",
    "Age of the newest vote of a tally record when it arrives here, by the ingest's clock.",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60),
    registry=REGISTRY,
)
TALLIES = Counter(
    "psephos_projector_tallies", "Tally records read, by what became of them.", ["outcome"], registry=REGISTRY
)
REDIS_ERRORS = Counter("psephos_projector_redis_errors", "Calls of Redis that failed.", registry=REGISTRY)
LEDGER_READS = Counter("psephos_projector_ledger_reads", "Heads read from the ledger.", registry=REGISTRY)
