"""The examples in manifests/examples: the parser takes them, a real API server takes them, and none is missing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.apiserver.binaries import ROOT
from tests.apiserver.cluster import Cluster, psephos_crd

from psephos.domain.session import parse_session

EXAMPLES = sorted((ROOT / "manifests" / "examples").glob("*/*.yaml"))


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_the_parser_takes_it(path: Path) -> None:
    assert parse_session(path.read_text()).name


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_the_api_server_takes_it_and_knows_each_field(path: Path, cluster: Cluster, namespace: str) -> None:
    session = yaml.load(path.read_text(), _AsText)
    session["metadata"]["namespace"] = namespace
    stored = cluster.admin.create(session)
    parse_session({member: value for member, value in stored.items() if member != "status"})


def test_every_field_and_every_choice_is_in_some_example() -> None:
    spec = psephos_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    shown = {what for path in EXAMPLES for what in used(yaml.load(path.read_text(), _AsText)["spec"], "spec")}
    assert set(choices(spec, "spec")) - shown == set()


def choices(schema: dict[str, Any], path: str) -> Iterator[str]:
    """Paths of all fields, and `path=value` of each value of an enumeration."""
    for member, inner in schema.get("properties", {}).items():
        yield f"{path}.{member}"
        yield from choices(inner, f"{path}.{member}")
    if "items" in schema:
        yield from choices(schema["items"], path)
    yield from (f"{path}={value}" for value in schema.get("enum", ()))


def used(value: Any, path: str) -> Iterator[str]:
    """The same of what an example says."""
    if isinstance(value, dict):
        for member, inner in value.items():
            yield f"{path}.{member}"
            yield from used(inner, f"{path}.{member}")
    elif isinstance(value, list):
        for inner in value:
            yield from used(inner, path)
    else:
        yield f"{path}={value}"


class _AsText(yaml.SafeLoader):
    """Times as text, as kubectl sends them."""


_AsText.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
