"""Sessions and settings that the operator's tests share."""

from typing import Any

from psephos.domain.session import Session, parse_session
from psephos_operator.builders import Access
from psephos_operator.builders.plan import Plan
from psephos_operator.settings import OperatorSettings, load_operator_settings

UID = "0b6f4f0a-8f3e-4a55-9a3a-2f1c3f0e7d11"
ACCESS = Access(redis_url="redis://redis:6379/0")
VARIABLES = {
    "PSEPHOS_OPERATOR_IMAGE": "ghcr.io/psephos/psephos:1.0.0",
    "PSEPHOS_OPERATOR_KAFKA_BOOTSTRAP": "kafka:9092",
    "PSEPHOS_OPERATOR_REDIS_URL": "redis://redis:6379/0",
}


def session(name: str = "lunch", **spec: Any) -> Session:
    """A small session; `spec` replaces members of its spec."""
    document = {
        "apiVersion": "psephos.dev/v1alpha1",
        "kind": "VotingSession",
        "metadata": {"name": name, "namespace": "votes", "uid": UID},
        "spec": {
            "title": "Lunch",
            "ballot": {"type": "single", "options": [{"id": "pizza"}, {"id": "soup"}]},
            "voters": {
                "tokens": {
                    "secretRef": {"name": "keys", "key": "hs256"},
                    "issuer": "https://id.example",
                    "audience": "lunch",
                }
            },
            **spec,
        },
    }
    return parse_session(document)


def settings(**values: str) -> OperatorSettings:
    """The operator's settings; `values`: further variables without their prefix."""
    more = {f"PSEPHOS_OPERATOR_{name.upper()}": value for name, value in values.items()}
    return load_operator_settings({**VARIABLES, **more})


def plan(of: Session | None = None, *, given: OperatorSettings | None = None, **members: Any) -> Plan:
    """A plan for a session, by default the small one."""
    of, given = of or session(), given or settings()
    return Plan(
        session=of,
        namespace="votes",
        uid=UID,
        settings=given,
        image=given.image,
        **{"partitions": of.partitions, **members},
    )
