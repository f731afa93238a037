"""Secrets: the session's keys, made once and never again, and access to the backends. Pure.

Pods get what they need and no more: those that take votes do not see the key that signs the result.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field

from psephos_operator.builders.meta import Manifest, child, labels
from psephos_operator.builders.plan import Plan

SESSION_KEY, SIGNING_KEY, LOT_SEED, REDIS_PASSWORD = "session-key", "signing-key", "lot-seed", "password"
KAFKA_PROPERTIES, REDIS_URL, REDIS_CA = "kafka.properties", "redis-url", "redis-ca.crt"
S3_KEY_ID, S3_SECRET = "s3-access-key-id", "s3-secret-access-key"


@dataclass(frozen=True)
class Access:
    """Access of a session's pods to the backends. `aws`: variables of static credentials, empty with an IAM role;
    `s3`: the object store's own key, by S3_KEY_ID and S3_SECRET, empty if those of `aws` apply; `redis_ca`: PEM,
    empty if the system's apply."""

    kafka_properties: str = ""
    redis_url: str = ""
    aws: Mapping[str, str] = field(default_factory=dict)
    s3: Mapping[str, str] = field(default_factory=dict)
    redis_ca: str = ""


def session_key_name(plan: Plan) -> str:
    """Returns the name of the Secret with the key of voter ids, for pods that take votes."""
    return f"{plan.key_prefix}-session-key"


def signing_key_name(plan: Plan) -> str:
    """Returns the name of the Secret with the final result's key and the lot's seed, only for the sealing step."""
    return f"{plan.key_prefix}-signing-key"


def redis_user_name(plan: Plan) -> str:
    """Returns the name of the Secret with the password of the session's own Redis user."""
    return f"{plan.key_prefix}-redis"


def made_once(plan: Plan, name: str, values: Mapping[str, bytes]) -> Manifest:
    """Returns a Secret that is created if it is missing, and never changed: immutable, and never pruned.

    It has no owner: under deletionPolicy Retain, what it opens is retained as well.
    """
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": plan.namespace, "labels": labels(plan, "keys")},
        "type": "Opaque",
        "immutable": True,
        "data": {key: b64encode(value).decode() for key, value in values.items()},
    }


def backends(plan: Plan, access: Access) -> Manifest:
    """Returns a Secret with the pods' access to Kafka, Redis and the ledger; follows the operator's settings."""
    values = {KAFKA_PROPERTIES: access.kafka_properties, REDIS_URL: access.redis_url, **access.aws, **access.s3}
    if access.redis_ca:
        values[REDIS_CA] = access.redis_ca
    return opaque(plan, "backends", "backends", values)


def opaque(plan: Plan, suffix: str, component: str, values: Mapping[str, str]) -> Manifest:
    """Returns a Secret that follows its values, and is deleted with the session."""
    data = {key: b64encode(value.encode()).decode() for key, value in values.items()}
    return child(plan, "v1", "Secret", suffix, component, type="Opaque", data=data)
