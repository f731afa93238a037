"""The pod of a role: its container, variables, files, probes and rights. Pure.

NB: nothing here may depend on the operator's own version: a new one would restart every session in the cluster.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from psephos.domain.sizing import VIEWERS_PER_GATEWAY, Pods
from psephos_operator.builders import config, secrets
from psephos_operator.builders.meta import digest, labels, selector
from psephos_operator.builders.plan import Plan
from psephos_operator.builders.secrets import Access

INGEST_PORT, GATEWAY_PORT, ADMIN_PORT = 8080, 8081, 9090
SETTINGS_DIR = "/etc/psephos"
DATA_DIR = "/var/lib/psephos"
USER = 65532
DATA = "data"  # the volume that a role may fill
SMALL_DATA_GIB = 2
NOTICE_S = 5  # between the end of new connections and SIGTERM
ROLL_KEY, TOKEN_KEY = "roll", "token-key"


@dataclass(frozen=True)
class Role:
    """Description of how a role runs. `ports`: by name; `drain_s`: from SIGTERM to SIGKILL; `published`: labels of
    Services; `stores`: it uses the object store."""

    name: str
    size: Pods
    arguments: tuple[str, ...]
    ports: tuple[tuple[str, int], ...]
    drain_s: int
    published: tuple[str, ...] = ()
    takes_votes: bool = False
    signs: bool = False
    projects: bool = False
    stores: bool = False
    keeps: bool = False
    own: tuple[tuple[str, str], ...] = ()


def template(plan: Plan, access: Access, role: Role) -> dict[str, Any]:
    """Returns the pod template of a workload that keeps running."""
    container = {
        **_container(plan, role),
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in role.ports],
        "startupProbe": _probe("/livez", period=2, failures=60),
        "livenessProbe": _probe("/livez", period=10, failures=6),
        "readinessProbe": _probe("/readyz", period=5, failures=2),
        "lifecycle": {"preStop": {"sleep": {"seconds": NOTICE_S}}},
    }
    return {
        "metadata": _metadata(plan, access, role),
        "spec": {
            **_spec(plan, role, container),
            "terminationGracePeriodSeconds": role.drain_s + NOTICE_S,
            **_spread(plan, role),
        },
    }


def job_template(plan: Plan, access: Access, role: Role) -> dict[str, Any]:
    """Returns the pod template of something that ends: it reads what is there when it begins."""
    return {
        "metadata": {"labels": labels(plan, role.name)},
        "spec": {
            **_spec(plan, role, _container(plan, role)),
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": role.drain_s,
        },
    }


def _metadata(plan: Plan, access: Access, role: Role) -> dict[str, Any]:
    reads = {"session": config.fingerprint(plan, role.name), "backends": digest(_access(access, role))}
    return {
        "labels": {**labels(plan, role.name), **dict.fromkeys(role.published, "true")},
        "annotations": {f"psephos.dev/{what}-hash": value for what, value in reads.items()},
    }


def _access(access: Access, role: Role) -> list[Any]:
    """Returns what the role uses of `access`. NB: omits unused values, so that adding one in a new version
    restarts no pod."""
    common = [access.kafka_properties, access.redis_url, dict(access.aws)]
    store = [dict(access.s3)] if role.stores else []
    return [*common, *store, *([access.redis_ca] if access.redis_ca else [])]


def _spec(plan: Plan, role: Role, container: dict[str, Any]) -> dict[str, Any]:
    settings = plan.settings
    optional: dict[str, Any] = {}
    if settings.service_account is not None:
        optional["serviceAccountName"] = settings.service_account
    if settings.image_pull_secrets:
        optional["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return {
        **optional,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": list(_volumes(plan, role)),
    }


def _container(plan: Plan, role: Role) -> dict[str, Any]:
    return {
        "name": "psephos",
        "image": plan.image,
        "imagePullPolicy": plan.settings.image_pull_policy,
        "command": ["psephos"],
        "args": list(role.arguments),
        "env": list(_variables(plan, role)),
        "resources": {
            "requests": {"cpu": f"{_share(plan, role.size.cpu)}m", "memory": f"{role.size.memory}Mi"},
            "limits": {"memory": f"{2 * role.size.memory}Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": list(_mounts(plan, role)),
    }


def _share(plan: Plan, cpu: int) -> int:
    """Returns the millicores of `cpu` to request: fewer than a peak takes, if a small cluster is to hold all."""
    return max(1, cpu * plan.settings.cpu_percent // 100)


# --- Variables


def _variables(plan: Plan, role: Role) -> Iterator[dict[str, Any]]:
    settings, backends = plan.settings, plan.child("backends")
    values = {
        "SESSION_FILE": f"{SETTINGS_DIR}/session/{config.KEY}",
        "SESSION_UID": plan.uid,
        "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "KAFKA_REPLICATION": str(settings.kafka_replication),
        "KAFKA_PROPERTIES_FILE": f"{SETTINGS_DIR}/backends/{secrets.KAFKA_PROPERTIES}",
        "DYNAMODB_ENDPOINT": settings.dynamodb_endpoint,
        "DYNAMODB_TABLE": settings.dynamodb_table,
        "AWS_REGION": settings.aws_region,
        "DATA_DIR": DATA_DIR,
        "ADMIN_PORT": str(ADMIN_PORT),
        **dict(_role_values(plan, role)),
        **dict(role.own),
    }
    for name, value in values.items():
        if value is not None:
            yield {"name": f"PSEPHOS_{name}", "value": value}
    if role.projects:
        yield {"name": "PSEPHOS_REDIS_URL", "valueFrom": _secret_key(backends, secrets.REDIS_URL)}
        yield from _redis_variables(plan)
    if role.stores:
        yield from _store_variables(plan)
    if role.name == "tally":  # the pod's name ends in its ordinal and never changes
        yield {"name": "PSEPHOS_WORKER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        yield {"name": name, "valueFrom": _secret_key(backends, name, optional=True)}


def _redis_variables(plan: Plan) -> Iterator[dict[str, Any]]:
    if plan.settings.redis_cluster:
        yield {"name": "PSEPHOS_REDIS_CLUSTER", "value": "true"}
    if plan.settings.redis_ca_file is not None:
        yield {"name": "PSEPHOS_REDIS_CA_FILE", "value": f"{SETTINGS_DIR}/backends/{secrets.REDIS_CA}"}


def _store_variables(plan: Plan) -> Iterator[dict[str, Any]]:
    settings, backends = plan.settings, plan.child("backends")
    for name, value in (("S3_ENDPOINT", settings.s3_endpoint), ("S3_REGION", settings.s3_region)):
        if value is not None:
            yield {"name": f"PSEPHOS_{name}", "value": value}
    for name, key in (("S3_ACCESS_KEY_ID", secrets.S3_KEY_ID), ("S3_SECRET_ACCESS_KEY", secrets.S3_SECRET)):
        yield {"name": f"PSEPHOS_{name}", "valueFrom": _secret_key(backends, key, optional=True)}


def _role_values(plan: Plan, role: Role) -> Iterator[tuple[str, str | None]]:
    if role.takes_votes:
        yield "SESSION_KEY_FILE", f"{SETTINGS_DIR}/keys/{secrets.SESSION_KEY}"
        yield "INGEST_PORT", str(INGEST_PORT)
        if _token_secret(plan) is not None:
            yield "TOKEN_KEY_FILE", f"{SETTINGS_DIR}/tokens/{TOKEN_KEY}"
        if _roll_config_map(plan) is not None:
            yield "ROLL_FILE", f"{SETTINGS_DIR}/roll/{ROLL_KEY}"
    if role.name in ("gateway", "serve"):
        yield "GATEWAY_PORT", str(GATEWAY_PORT)
        yield "GATEWAY_VIEWERS", str(VIEWERS_PER_GATEWAY)
        yield "INGEST_URL", plan.public_url
    if role.published:
        yield "TRUSTED_PROXIES", str(plan.settings.trusted_proxies)
    if role.signs:
        yield "SIGNING_KEY_FILE", f"{SETTINGS_DIR}/signing/{secrets.SIGNING_KEY}"
        yield "LOT_SEED_FILE", f"{SETTINGS_DIR}/signing/{secrets.LOT_SEED}"


def _secret_key(name: str, key: str, *, optional: bool = False) -> dict[str, Any]:
    return {"secretKeyRef": {"name": name, "key": key, **({"optional": True} if optional else {})}}


def _token_secret(plan: Plan) -> tuple[str, str] | None:
    tokens = plan.session.spec.voters.tokens
    return None if tokens is None or tokens.secret_ref is None else (tokens.secret_ref.name, tokens.secret_ref.key)


def _roll_config_map(plan: Plan) -> tuple[str, str] | None:
    roll = plan.session.spec.voters.roll
    if roll is None or roll.config_map_ref is None:
        return None
    return roll.config_map_ref.name, roll.config_map_ref.key


# --- Files


def _volumes(plan: Plan, role: Role) -> Iterator[dict[str, Any]]:
    yield {"name": "session", "configMap": {"name": plan.child("session")}}
    certificates = (secrets.REDIS_CA,) if plan.settings.redis_ca_file is not None else ()
    yield _secret_volume("backends", plan.child("backends"), secrets.KAFKA_PROPERTIES, None, *certificates)
    yield {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}
    if not role.keeps:  # otherwise it has its own volume, by claim
        yield {"name": DATA, "emptyDir": {"sizeLimit": f"{SMALL_DATA_GIB}Gi"}}
    if role.takes_votes:
        yield _secret_volume("keys", secrets.session_key_name(plan), secrets.SESSION_KEY)
        token, roll = _token_secret(plan), _roll_config_map(plan)
        if token is not None:
            yield _secret_volume("tokens", token[0], token[1], TOKEN_KEY)
        if roll is not None:
            items = [{"key": roll[1], "path": ROLL_KEY}]
            yield {"name": "roll", "configMap": {"name": roll[0], "items": items}}
    if role.signs:
        yield _secret_volume(
            "signing", secrets.signing_key_name(plan), secrets.SIGNING_KEY, None, secrets.LOT_SEED
        )


def _secret_volume(volume: str, secret: str, key: str, path: str | None = None, *more: str) -> dict[str, Any]:
    items = [{"key": key, "path": path or key}, *({"key": other, "path": other} for other in more)]
    return {"name": volume, "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}}


def _mounts(plan: Plan, role: Role) -> Iterator[dict[str, Any]]:
    for volume in _volumes(plan, role):
        name = volume["name"]
        if name == "tmp":
            yield {"name": name, "mountPath": "/tmp"}  # noqa: S108 - the only other place that may be written
        elif name != DATA:
            yield {"name": name, "mountPath": f"{SETTINGS_DIR}/{name}", "readOnly": True}
    yield {"name": DATA, "mountPath": DATA_DIR}


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "admin"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _spread(plan: Plan, role: Role) -> dict[str, Any]:
    """Returns the rules that spread pods over zones, and over nodes wherever they are.

    NB: not two constraints: if nodes have no zone, so that one can't be met, the scheduler ignores both.
    """
    zones = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": _same(plan, role)}
    preferred = [{"weight": 100, "podAffinityTerm": apart}]
    return {
        "topologySpreadConstraints": [{**zones, "labelSelector": _same(plan, role)}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}},
    }


def _same(plan: Plan, role: Role) -> dict[str, Any]:
    return {"matchLabels": selector(plan, role.name)}
