"""The CustomResourceDefinition of `VotingSession`, built from the one model, so that they can't differ.

`make manifests` writes the committed file, and what is derived from it.
What a schema can't express (fields that depend on each other) stays with `psephos.domain.session.validate`.
"""

from __future__ import annotations

import sys
from typing import Any

import yaml

from psephos.domain.session import API_VERSION, KIND, NAME_PATTERN, Spec
from psephos.formats.control import Phase
from psephos_operator.admission.immutability import rules
from psephos_operator.reconcile.status import CONDITIONS

GROUP, VERSION = API_VERSION.split("/")
PLURAL = "votingsessions"
HEADER = (
    "# Written by `python -m psephos_operator.crd` from psephos/domain/session.py: change the model, not this.\n"
)

_FOREIGN = frozenset({"title", "additionalProperties", "anyOf", "$ref"})
"""JSON Schema keywords that a structural schema doesn't need or may not have; see `structural`."""


def crd() -> dict[str, Any]:
    """Returns the manifest as plain YAML types."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["vs"],
                "categories": ["all", "psephos"],
            },
            "versions": [_version()],
        },
    }


def _version() -> dict[str, Any]:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            _column("Phase", "string", ".status.phase"),
            _column("Accepted", "integer", ".status.accepted"),
            # As text: kubectl shows the type `date` as an age, and this one is in the future.
            _column("Closes", "string", ".status.closesAt"),
            _column("Leader", "string", ".status.leader"),
            _column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
            _column("Age", "date", ".metadata.creationTimestamp"),
        ],
        "schema": {"openAPIV3Schema": _object()},
    }


def _column(name: str, kind: str, path: str) -> dict[str, str]:
    return {"name": name, "type": kind, "jsonPath": path}


def _object() -> dict[str, Any]:
    schema = Spec.model_json_schema(by_alias=True)
    return {
        "type": "object",
        "description": "A vote: what is voted on, by whom, when, and how it is counted.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "pattern": NAME_PATTERN}},
            },
            "spec": structural(schema, schema.get("$defs", {})),
            "status": status_schema(),
        },
        "x-kubernetes-validations": rules(),
    }


def status_schema() -> dict[str, Any]:
    """Returns the schema of what `psephos_operator.reconcile.status` writes. No totals per option before the
    result is final."""
    whole, text = {"type": "integer", "minimum": 0}, {"type": "string"}
    return _described(
        "What the operator observes.",
        observedGeneration={**whole, "description": "Generation of the spec that this status is about."},
        phase={"type": "string", "enum": [phase.value for phase in Phase], "description": "Phase of the session."},
        accepted={**whole, "description": "Votes that were accepted so far."},
        turnout=_described(
            "Records by class so far.",
            received=whole,
            accepted=whole,
            duplicate=whole,
            superseded=whole,
            voters=whole,
            rejected={"type": "object", "description": "By reason.", "additionalProperties": whole},
        ),
        leader={
            **text,
            "description": "Option that is ahead or has won; sealed under embargo; tie; empty without votes.",
        },
        partitions=_described(
            "Partitions of the votes topic: all, owned by a tally worker, sealed, recounted.",
            total=whole,
            owned=whole,
            sealed=whole,
            verdicts=whole,
        ),
        closesAt={
            **text,
            "format": "date-time",
            "description": "When voting closes; the ledger's time once fixed.",
        },
        endpoints=_described("Where voters and viewers reach the session.", votes=text, results=text),
        epoch={**text, "description": "Epoch of the genesis: since it is there, the rules are fixed."},
        publicKey={**text, "description": "Public key of the final result's signature, hex."},
        receiptKey={**text, "description": "Public key of receipts, hex."},
        image={**text, "description": "Image of the session's pods: the one that it began with."},
        layout={
            "type": "string",
            "enum": ["serve", "roles"],
            "description": "One pod for all, or a workload a role.",
        },
        exports={**text, "description": "Where the final result was exported to."},
        outcome=_described(
            "The final result.",
            winners={"type": "array", "items": text},
            totals={
                "type": "object",
                "description": "By option; weighted ones as exact texts.",
                "additionalProperties": {"x-kubernetes-int-or-string": True},
            },
            version=whole,
            sealedAt={**text, "format": "date-time"},
        ),
        conditions=_conditions(),
    )


def _described(description: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "description": description, "properties": properties}


def _conditions() -> dict[str, Any]:
    condition = {
        **_described(
            "One of " + ", ".join(CONDITIONS) + ".",
            type={"type": "string"},
            status={"type": "string", "enum": ["True", "False", "Unknown"]},
            reason={"type": "string"},
            message={"type": "string"},
            observedGeneration={"type": "integer", "format": "int64"},
            lastTransitionTime={"type": "string", "format": "date-time"},
        ),
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
    }
    return {
        "type": "array",
        "description": "How the session is.",
        "items": condition,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }


def structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Returns a JSON schema as Kubernetes takes it: references written out, `X or null` as X, no titles.

    The API server itself prunes unknown fields and drops nulls, so neither needs anything here.
    """
    merged = {**_meant(schema, definitions), **{k: v for k, v in schema.items() if k not in _FOREIGN}}
    result = {
        key: value
        for key, value in merged.items()
        if key not in _FOREIGN | {"$defs"} and not (key == "default" and value is None)
    }
    if "properties" in result and "default" in result:
        result["default"] = {}  # an object that is there gets its members' own defaults
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "properties" in result:
        result["properties"] = {
            name: structural(member, definitions) for name, member in result["properties"].items()
        }
    if "items" in result:
        result["items"] = structural(result["items"], definitions)
    return result


def _meant(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema that a reference or an optional stands for; members next to it override its own."""
    if "$ref" in schema:
        return structural(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    alternatives = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if len(alternatives) > 1:
        raise ValueError(f"a structural schema has no alternatives: {alternatives}")
    return structural(alternatives[0], definitions) if alternatives else {}


def text() -> str:
    """Returns the committed file, byte for byte."""
    return HEADER + yaml.safe_dump(crd(), sort_keys=False, width=110, allow_unicode=True)


if __name__ == "__main__":
    sys.stdout.write(text())
