"""PodMonitors, if the Prometheus operator is installed. Pure."""

from psephos_operator.builders.meta import SESSION_LABEL, Manifest, child
from psephos_operator.builders.plan import Api, Plan
from psephos_operator.builders.workloads import roles

INTERVAL = "15s"


def monitors(plan: Plan) -> list[Manifest]:
    """Returns one monitor for all of the session's pods, with every admin port that any of them has."""
    if not plan.settings.monitors or Api.PROMETHEUS not in plan.apis:
        return []
    ports = sorted({name for role in roles(plan) for name, _ in role.ports if name.startswith("admin")})
    spec = {
        "selector": {"matchLabels": {SESSION_LABEL: plan.name}},
        "podMetricsEndpoints": [{"port": port, "path": "/metrics", "interval": INTERVAL} for port in ports],
        "podTargetLabels": ["app.kubernetes.io/component", SESSION_LABEL],
    }
    return [child(plan, "monitoring.coreos.com/v1", "PodMonitor", "pods", "pods", spec=spec)]
