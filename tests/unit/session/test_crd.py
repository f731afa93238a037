"""The committed CRD is what the model says, in the form that the API server takes."""

from pathlib import Path
from typing import Any

import yaml

from psephos_operator.crd import crd, text

COMMITTED = Path(__file__).parents[3] / "crds" / "votingsessions.psephos.dev.yaml"
STRUCTURAL = {
    *("type", "description", "default", "enum", "pattern", "format", "required", "properties", "items"),
    *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
    *("additionalProperties", "x-kubernetes-int-or-string", "x-kubernetes-validations"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}
"""Members that a structural schema may have, as far as this one needs them."""


def schema() -> dict[str, Any]:
    (version,) = crd()["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def nodes(node: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, node)]
    for name, member in node.get("properties", {}).items():
        found += nodes(member, f"{path}.{name}")
    if "additionalProperties" in node:
        found += nodes(node["additionalProperties"], f"{path}{{}}")
    if "items" in node:
        found += nodes(node["items"], f"{path}[]")
    return found


def test_the_committed_file_is_what_the_model_says_now() -> None:
    message = "run: python -m psephos_operator.crd > crds/votingsessions.psephos.dev.yaml"
    assert COMMITTED.read_text(encoding="utf-8") == text(), message
    assert yaml.safe_load(text()) == crd()


def test_the_schema_is_structural() -> None:
    for path, node in nodes(schema()):
        assert set(node) <= STRUCTURAL, path
        assert isinstance(node.get("type"), str) or node.get("x-kubernetes-int-or-string"), path


def test_every_field_of_the_spec_says_what_it_is() -> None:
    for path, node in nodes(schema()["properties"]["spec"]):
        assert path.endswith("[]") or node.get("description"), path


def test_defaults_are_those_that_the_parser_takes() -> None:
    spec = schema()["properties"]["spec"]["properties"]
    assert spec["closeGrace"]["default"] == "10s"
    assert spec["results"]["default"] == {}
    assert "default" not in spec["ballot"]["properties"]["max"], "it depends on the ballot's type"
    assert all(node.get("default", 0) is not None for _, node in nodes(schema()))


def test_names_and_columns_are_those_of_the_contract() -> None:
    spec = crd()["spec"]
    assert crd()["metadata"]["name"] == "votingsessions.psephos.dev"
    assert (spec["group"], spec["names"]["kind"], spec["names"]["shortNames"]) == (
        "psephos.dev",
        "VotingSession",
        ["vs"],
    )
    (version,) = spec["versions"]
    assert version["name"] == "v1alpha1"
    assert version["subresources"] == {"status": {}}
    columns = [column["name"] for column in version["additionalPrinterColumns"]]
    assert columns == ["Phase", "Accepted", "Closes", "Leader", "Ready", "Age"]
