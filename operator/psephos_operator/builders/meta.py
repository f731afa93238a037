"""Names, labels and owner, which all manifests have in common. Pure."""

import hashlib
import json
from typing import Any

from psephos.domain.session import API_VERSION, KIND
from psephos_operator.builders.plan import Plan

Manifest = dict[str, Any]

MANAGER = "psephos-operator"
COMPONENT_LABEL = "app.kubernetes.io/component"
SESSION_LABEL = "psephos.dev/session"
UID_LABEL = "psephos.dev/session-uid"
VOTES_LABEL, RESULTS_LABEL = "psephos.dev/votes", "psephos.dev/results"
"""Pods with one of them (`true`) belong to the Service for votes, or to the one for results."""

DESIRED_ANNOTATION = "psephos.dev/desired"
"""Hash of the manifest as it was built. If it is the same while the object has changed, that is drift."""


def labels(plan: Plan, component: str) -> dict[str, str]:
    """Returns the labels of a child; `selector` is the part that never changes."""
    return {
        **selector(plan, component),
        "app.kubernetes.io/part-of": "psephos",
        "app.kubernetes.io/managed-by": MANAGER,
        UID_LABEL: plan.uid,
    }


def selector(plan: Plan, component: str) -> dict[str, str]:
    """Returns the labels that select a component's pods. Immutable in workloads."""
    return {
        "app.kubernetes.io/name": "psephos",
        COMPONENT_LABEL: component,
        SESSION_LABEL: plan.name,
    }


def child(
    plan: Plan, api_version: str, kind: str, suffix: str, component: str, *, owned: bool = True, **members: Any
) -> Manifest:
    """Returns a manifest in the session's namespace; `owned`: garbage collection deletes it with the session."""
    metadata: dict[str, Any] = {
        "name": plan.child(suffix),
        "namespace": plan.namespace,
        "labels": labels(plan, component),
    }
    if owned:
        metadata["ownerReferences"] = [owner(plan)]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **members}


def owner(plan: Plan) -> dict[str, Any]:
    """Returns an owner reference. Only inside the namespace: elsewhere garbage collection would delete at once."""
    return {"apiVersion": API_VERSION, "kind": KIND, "name": plan.name, "uid": plan.uid, "controller": True}


def digest(value: Any) -> str:
    """Returns 16 hex digits that change with the value; plain JSON types, members in any order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def stamped(manifest: Manifest) -> Manifest:
    """Returns the manifest with its own hash as an annotation."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), DESIRED_ANNOTATION: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}
