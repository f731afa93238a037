"""Autoscalers: by CPU or by viewers for ingest and gateway, by lag for the tally if KEDA is installed. Pure.

They start at what the session's capacity asks for: the first minute of voting is the busiest, and no autoscaler is
quick enough for it.
"""

from typing import Any

from psephos.adapters.kafka import tally_group, votes_topic
from psephos.domain.sizing import VIEWERS_PER_GATEWAY, Pods
from psephos_operator.builders import secrets
from psephos_operator.builders.meta import Manifest, child
from psephos_operator.builders.plan import Api, Plan
from psephos_operator.builders.secrets import Access
from psephos_operator.builders.workloads import autoscaled, roles

CPU_PERCENT = 60
LAG_RECORDS = 50_000  # per worker: less than a second of its work
VIEWERS_METRIC = "psephos_gateway_viewers"


def autoscalers(plan: Plan, access: Access) -> list[Manifest]:
    """Returns the autoscalers; none for a small session, or for one that has ended."""
    wanted = [role for role in roles(plan) if autoscaled(plan, role.name)]
    return [
        manifest
        for role in wanted
        for manifest in (
            _by_lag(plan, access, role.size) if role.name == "tally" else [_horizontal(plan, role.name, role.size)]
        )
    ]


def _horizontal(plan: Plan, role: str, size: Pods) -> Manifest:
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.child(role)},
        "minReplicas": size.replicas,
        "maxReplicas": size.most,
        "metrics": [_metric(plan, role)],
        # Viewers and voters that lose their pod all come back at once.
        "behavior": {
            "scaleDown": {
                "stabilizationWindowSeconds": 300,
                "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}],
            }
        },
    }
    return child(plan, "autoscaling/v2", "HorizontalPodAutoscaler", role, role, spec=spec)


def _metric(plan: Plan, role: str) -> dict[str, Any]:
    if role == "gateway" and Api.CUSTOM_METRICS in plan.apis:
        target = {"type": "AverageValue", "averageValue": str(VIEWERS_PER_GATEWAY // 2)}
        return {"type": "Pods", "pods": {"metric": {"name": VIEWERS_METRIC}, "target": target}}
    utilization = {"type": "Utilization", "averageUtilization": CPU_PERCENT}
    return {"type": "Resource", "resource": {"name": "cpu", "target": utilization}}


def _by_lag(plan: Plan, access: Access, size: Pods) -> list[Manifest]:
    metadata = {
        "bootstrapServers": plan.settings.kafka_bootstrap,
        "consumerGroup": tally_group(plan.uid),
        "topic": votes_topic(plan.uid),
        "lagThreshold": str(LAG_RECORDS),
        "offsetResetPolicy": "earliest",
    }
    trigger: dict[str, Any] = {"type": "kafka", "metadata": metadata}
    credentials = kafka_credentials(access.kafka_properties)
    extra: list[Manifest] = []
    if credentials:
        trigger["authenticationRef"] = {"name": plan.child("kafka")}
        extra = [_authentication(plan, credentials)]
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": plan.child("tally")},
        "minReplicaCount": size.replicas,
        "maxReplicaCount": size.most,
        "pollingInterval": 15,
        "cooldownPeriod": 300,
        "triggers": [trigger],
    }
    return [*extra, child(plan, "keda.sh/v1alpha1", "ScaledObject", "tally", "tally", spec=spec)]


def _authentication(plan: Plan, credentials: dict[str, str]) -> Manifest:
    name = plan.child("keda")
    spec = {
        "secretTargetRef": [{"parameter": key, "name": name, "key": key} for key in sorted(credentials)],
    }
    return child(plan, "keda.sh/v1alpha1", "TriggerAuthentication", "kafka", "tally", spec=spec)


def authentication_secret(plan: Plan, access: Access) -> list[Manifest]:
    """Returns a Secret with the Kafka credentials under the names that KEDA uses for them."""
    credentials = kafka_credentials(access.kafka_properties)
    if not credentials or not autoscaled(plan, "tally") or plan.sizes.small:
        return []
    return [secrets.opaque(plan, "keda", "tally", credentials)]


_MECHANISMS = {"PLAIN": "plaintext", "SCRAM-SHA-256": "scram_sha256", "SCRAM-SHA-512": "scram_sha512"}
_TLS_PARTS = {"ssl.ca.pem": "ca", "ssl.certificate.pem": "cert", "ssl.key.pem": "key"}


def kafka_credentials(properties: str) -> dict[str, str]:
    """Converts librdkafka's properties to parameters of KEDA's Kafka scaler; empty for plain text without SASL."""
    known = dict(_property(line) for line in properties.splitlines() if "=" in line and line[0] != "#")
    found: dict[str, str] = {}
    if known.get("security.protocol", "plaintext").lower() in ("ssl", "sasl_ssl"):
        found["tls"] = "enable"
    mechanism = known.get("sasl.mechanisms") or known.get("sasl.mechanism")
    if mechanism is not None and mechanism.upper() in _MECHANISMS:
        found["sasl"] = _MECHANISMS[mechanism.upper()]
        found |= {"username": known.get("sasl.username", ""), "password": known.get("sasl.password", "")}
    return found | {ours: known[theirs] for theirs, ours in _TLS_PARTS.items() if theirs in known}


def _property(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name.strip(), value.strip().replace("\\n", "\n")
