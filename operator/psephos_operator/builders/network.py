"""Access to the session: Services, routes, policies, disruption budgets. Pure."""

from typing import Any

from psephos_operator.builders.meta import (
    RESULTS_LABEL,
    SESSION_LABEL,
    UID_LABEL,
    VOTES_LABEL,
    Manifest,
    child,
    selector,
)
from psephos_operator.builders.plan import Plan
from psephos_operator.builders.pods import ADMIN_PORT, GATEWAY_PORT, INGEST_PORT
from psephos_operator.builders.workloads import roles

PORT = 80
VOTE_PATHS = ("votes", "votes:batch", "tokens")
"""Paths below /v1/sessions/<name> that ingest serves. The gateway serves all others."""
ASSETS = "/assets"  # of the pages: the same files at every gateway


def services(plan: Plan) -> list[Manifest]:
    """Returns the Services. NB: they select by what a pod does and not by its role, so that `serve` and single
    roles can replace each other without a gap."""
    doors = [
        _service(plan, "votes", VOTES_LABEL, INGEST_PORT),
        _service(plan, "results", RESULTS_LABEL, GATEWAY_PORT),
    ]
    if plan.sizes.small or not plan.counts:
        return doors
    ports = [{"name": "admin", "port": ADMIN_PORT, "targetPort": "admin", "protocol": "TCP"}]
    spec = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {**selector(plan, "tally"), UID_LABEL: plan.uid},
        "ports": ports,
    }
    return [*doors, child(plan, "v1", "Service", "tally", "tally", spec=spec)]


def _service(plan: Plan, door: str, label: str, port: int) -> Manifest:
    ports = [{"name": "http", "port": PORT, "targetPort": port, "protocol": "TCP", "appProtocol": "http"}]
    # By uid as well: pods of a previous session of the same name may still be there and take votes.
    spec = {"type": "ClusterIP", "selector": {**_pods(plan), label: "true"}, "ports": ports}
    return child(plan, "v1", "Service", door, door, spec=spec)


def _pods(plan: Plan) -> dict[str, str]:
    return {SESSION_LABEL: plan.name, UID_LABEL: plan.uid}


def endpoints(plan: Plan) -> dict[str, str]:
    """Returns the URLs by which voters and viewers reach the session: published, else inside the cluster."""
    path = f"/v1/sessions/{plan.name}"
    if plan.public_url is not None:
        return {"votes": plan.public_url + path, "results": plan.public_url + path}
    inside = {door: f"http://{plan.child(door)}.{plan.namespace}.svc" for door in ("votes", "results")}
    return {door: address + path for door, address in inside.items()}


def routes(plan: Plan) -> list[Manifest]:
    """Returns an Ingress or an HTTPRoute, if the session is to be published."""
    if plan.settings.routing == "ingress":
        return [_ingress(plan)]
    return [_http_route(plan)] if plan.settings.routing == "gateway" else []


def _ingress(plan: Plan) -> Manifest:
    settings, base = plan.settings, f"/v1/sessions/{plan.name}"
    paths = [
        *(_path(plan, f"{base}/{path}", "Exact", "votes") for path in VOTE_PATHS),
        *(_path(plan, path, "Prefix", "results") for path in _read(plan)),
    ]
    spec: dict[str, Any] = {"rules": [{"host": plan.public_host, "http": {"paths": paths}}]}
    if settings.ingress_class is not None:
        spec["ingressClassName"] = settings.ingress_class
    if settings.tls_secret is not None:
        spec["tls"] = [{"hosts": [plan.public_host], "secretName": settings.tls_secret}]
    return child(plan, "networking.k8s.io/v1", "Ingress", "public", "public", spec=spec)


def _read(plan: Plan) -> list[str]:
    """Returns the path prefixes that the gateway serves: all of them if the session has its own host."""
    if "{name}" in (plan.settings.host or ""):
        return ["/"]
    return [f"/v1/sessions/{plan.name}", f"/sessions/{plan.name}", ASSETS]


def _path(plan: Plan, path: str, kind: str, door: str) -> dict[str, Any]:
    backend = {"service": {"name": plan.child(door), "port": {"number": PORT}}}
    return {"path": path, "pathType": kind, "backend": backend}


def _http_route(plan: Plan) -> Manifest:
    namespace, _, name = (plan.settings.gateway or "").partition("/")
    base = f"/v1/sessions/{plan.name}"
    spec = {
        "parentRefs": [
            {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": namespace, "name": name}
        ],
        "hostnames": [plan.public_host],
        "rules": [
            _rule(plan, "votes", [("Exact", f"{base}/{path}") for path in VOTE_PATHS]),
            _rule(plan, "results", [("PathPrefix", path) for path in _read(plan)]),
        ],
    }
    return child(plan, "gateway.networking.k8s.io/v1", "HTTPRoute", "public", "public", spec=spec)


def _rule(plan: Plan, door: str, paths: list[tuple[str, str]]) -> dict[str, Any]:
    backend = {"group": "", "kind": "Service", "name": plan.child(door), "port": PORT, "weight": 1}
    return {
        "matches": [{"path": {"type": kind, "value": path}} for kind, path in paths],
        "backendRefs": [backend],
    }


def policies(plan: Plan) -> list[Manifest]:
    """Returns policies that let anyone connect to votes and results, and the cluster to the pods' admin ports.

    Connections from the pods are not restricted: the addresses of brokers and of the cloud's endpoints are not
    known here.
    """
    if not plan.settings.network_policies:
        return []
    admin = {"ports": [{"port": ADMIN_PORT, "endPort": ADMIN_PORT + 3, "protocol": "TCP"}]}
    cluster = {"from": [{"namespaceSelector": {}}], **admin}
    doors = {"votes": (VOTES_LABEL, INGEST_PORT), "results": (RESULTS_LABEL, GATEWAY_PORT)}
    return [
        _policy(plan, "pods", _pods(plan), [cluster]),
        *(
            _policy(
                plan,
                door,
                {**_pods(plan), label: "true"},
                [{"ports": [{"port": port, "protocol": "TCP"}]}],
            )
            for door, (label, port) in doors.items()
        ),
    ]


def _policy(plan: Plan, suffix: str, pods: dict[str, str], ingress: list[Any]) -> Manifest:
    spec = {"podSelector": {"matchLabels": pods}, "policyTypes": ["Ingress"], "ingress": ingress}
    return child(plan, "networking.k8s.io/v1", "NetworkPolicy", suffix, suffix, spec=spec)


def disruption_budgets(plan: Plan) -> list[Manifest]:
    """Returns budgets by which a drain takes at most one pod of a role at a time; a single one may always go."""
    return [
        child(
            plan,
            "policy/v1",
            "PodDisruptionBudget",
            role.name,
            role.name,
            spec={
                "maxUnavailable": 1,
                "selector": {"matchLabels": selector(plan, role.name)},
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        )
        for role in roles(plan)
    ]
