"""The session as its pods read it, and the parts of it that each role depends on. Pure."""

from typing import Any

import yaml

from psephos.domain.session import rules_document
from psephos_operator.builders.meta import Manifest, child, digest
from psephos_operator.builders.plan import Plan

KEY = "session.yaml"
_TOLD_OTHERWISE = ("opensAt", "closesAt", "capacity", "recount", "deletionPolicy")
"""Times reach the roles by the control topic, sizes by their workloads: changing them restarts no pod."""


def document(plan: Plan, *, defaults: bool = True) -> dict[str, Any]:
    """Returns the session without what roles do not read, with defaults written out or without them."""
    whole: dict[str, Any] = plan.session.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_defaults=not defaults
    )
    spec = {name: value for name, value in whole["spec"].items() if name not in _TOLD_OTHERWISE}
    return {**whole, "metadata": {"name": plan.name}, "spec": spec}


def session_file(plan: Plan) -> Manifest:
    """Returns a ConfigMap with the session's YAML."""
    text = yaml.safe_dump(document(plan), sort_keys=False, allow_unicode=True)
    return child(plan, "v1", "ConfigMap", "session", "session", data={KEY: text})


def fingerprint(plan: Plan, role: str) -> str:
    """Returns a hash that changes when a role has to restart because of the session. The tally's never does.

    NB: without defaults, so that a field that a later version adds restarts no pod.
    """
    spec = document(plan, defaults=False)["spec"]
    rules = rules_document(plan.session)
    read: dict[str, Any] = {
        "tally": [rules],
        "projector": [rules, spec.get("results")],
        "ingest": [rules, spec["voters"], spec.get("closeGrace")],
    }
    shown = {name: value for name, value in spec.items() if name != "exports"}
    return digest(read.get(role, shown))
