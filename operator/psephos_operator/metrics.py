"""The operator's metrics, for SREs. docs/operator.md lists them."""

from prometheus_client import Counter, Gauge, Histogram

from psephos.adapters.kafka import ADMIN_PROCESSES_ENDED
from psephos.platform.registry import role_registry

REGISTRY = role_registry()
REGISTRY.register(ADMIN_PROCESSES_ENDED)

RECONCILES = Counter(
    "psephos_operator_reconciles_total", "Looks at a session, by outcome.", ["outcome"], registry=REGISTRY
)
SECONDS = Histogram(
    "psephos_operator_reconcile_seconds",
    "Duration of a look at a session.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
    registry=REGISTRY,
)
DRIFT = Counter(
    "psephos_operator_drift_total",
    "Objects that others had changed or deleted, put right.",
    ["kind"],
    registry=REGISTRY,
)
APPLIED = Counter("psephos_operator_applied_total", "Server-side applies.", ["kind"], registry=REGISTRY)
REQUESTS = Counter(
    "psephos_operator_requests_total", "Requests to the Kubernetes API.", ["verb"], registry=REGISTRY
)
STATUS_WRITES = Counter("psephos_operator_status_writes_total", "Writes of a session's status.", registry=REGISTRY)
WATCH_ERRORS = Counter(
    "psephos_operator_watch_errors_total", "Watches that broke off.", ["kind"], registry=REGISTRY
)
SESSIONS = Gauge("psephos_operator_sessions", "Sessions by phase.", ["phase"], registry=REGISTRY)
NEXT_TRANSITION = Gauge(
    "psephos_operator_next_transition_seconds",
    "Until the next session opens or closes; below 0: overdue.",
    registry=REGISTRY,
)
QUEUE = Gauge("psephos_operator_queue", "Sessions that wait for a worker.", registry=REGISTRY)
LEADER = Gauge("psephos_operator_leader", "1 on the replica that acts.", registry=REGISTRY)
HEARTBEAT = Gauge("psephos_operator_heartbeat_age_seconds", "Since the loop last went round.", registry=REGISTRY)
CLEANUPS = Counter(
    "psephos_operator_cleanups_total",
    "Deleted sessions that were let go, by outcome.",
    ["outcome"],
    registry=REGISTRY,
)
