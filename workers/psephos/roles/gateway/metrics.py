"""Metrics of the gateway."""

from prometheus_client import Counter, Gauge

from psephos.platform.registry import role_registry

REGISTRY = role_registry()

VIEWERS = Gauge("psephos_gateway_viewers", "Viewers connected now.", ["kind"], registry=REGISTRY)
REFUSED = Counter(
    "psephos_gateway_viewers_refused", "Viewers refused: this process has as many as it may.", registry=REGISTRY
)
FRAMES = Counter(
    "psephos_gateway_frames_sent", "Frames handed to viewers' connections.", ["kind"], registry=REGISTRY
)
SLOW = Counter(
    "psephos_gateway_slow_viewers_closed", "Viewers closed because they did not read.", registry=REGISTRY
)
SILENT = Counter(
    "psephos_gateway_silent_viewers_closed",
    "Viewers closed because they did not answer a ping.",
    registry=REGISTRY,
)
NOT_MODIFIED = Counter(
    "psephos_gateway_not_modified", "Answers of 304: the ETag was that of the newest frame.", registry=REGISTRY
)
RECEIPTS = Counter(
    "psephos_gateway_receipts", "Receipts looked up, by what was found.", ["status"], registry=REGISTRY
)
MISMATCHES = Counter(
    "psephos_gateway_log_mismatches",
    "Receipts whose record is not the one that the ledger holds there: look into it.",
    registry=REGISTRY,
)
STALE = Gauge("psephos_gateway_stale", "1 while results are served as stale.", registry=REGISTRY)
VERSION = Gauge("psephos_gateway_version", "Version of the frame that is served.", registry=REGISTRY)
REDIS_ERRORS = Counter("psephos_gateway_redis_errors", "Calls of Redis that failed.", registry=REGISTRY)
