"""Metrics of the process above the roles."""

from prometheus_client import Counter, Gauge

from psephos.platform.registry import role_registry

REGISTRY = role_registry()

AUDITS = Counter(
    "psephos_audits_total", "Audits of the open session, by what came out.", ["outcome"], registry=REGISTRY
)
AUDIT_DIFFERS = Gauge(
    "psephos_audit_differs", "1 while log and ledger differ by the last audit.", registry=REGISTRY
)
AUDITED_AT = Gauge(
    "psephos_audit_timestamp_seconds", "When the last audit that was done ended, Unix time.", registry=REGISTRY
)
