"""Alert rules and dashboard ask for metrics that exist, by labels that these have; every alert has a runbook."""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import psephos
import psephos_operator

ROOT = Path(__file__).parents[3]
FILES = ROOT / "charts" / "psephos" / "files"
ALERTS = [
    rule for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
OF_PROMETHEUS = {"namespace", "pod", "le", "psephos_dev_session"}
"""Labels that scraping adds; `le` is a histogram's."""


def expressions() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of every alert and every panel."""
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    for panel in json.loads((FILES / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


@pytest.fixture(scope="module")
def metrics() -> dict[str, set[str]]:
    """Labels of every sample that some role or the operator can show."""
    registries = []
    for package in (psephos, psephos_operator):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith(".metrics"):
                registries.append(importlib.import_module(module.name).REGISTRY)
    return {
        name: set(getattr(collector, "_labelnames", ()))
        for registry in registries
        for name, collector in registry._names_to_collectors.items()
    }


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_it_asks_for_metrics_that_exist_by_labels_that_they_have(
    where: str, expression: str, metrics: dict[str, set[str]]
) -> None:
    asked = set(re.findall(r"\bpsephos_(?!dev_)[a-z_]+", expression))
    assert asked
    assert asked <= set(metrics)
    labels = {name for names in re.findall(r"by \(([^)]*)\)", expression) for name in names.split(", ")}
    labels |= set(re.findall(r"([a-z_]+)(?:=~|!~|!=|=)\"", expression))
    assert labels <= OF_PROMETHEUS.union(*(metrics[name] for name in asked))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    place, _, file = rule["annotations"]["runbook_url"].partition("/")
    assert place == "RUNBOOKS"
    assert (ROOT / "docs" / "runbooks" / file).is_file()


def test_values_of_labels_are_those_that_the_code_gives() -> None:
    """`outcome` and `stage` in expressions are words that stand in the code as well."""
    code = "".join(path.read_text() for part in ("workers", "operator") for path in (ROOT / part).rglob("*.py"))
    values = {
        value
        for _, expression in EXPRESSIONS
        for given in re.findall(r"(?:phase|stage|outcome)=~?\"([^\"$]+)\"", expression)
        for value in given.split("|")
    }
    assert values >= {"Disputed", "stopped", "overloaded"}
    for value in values:
        assert f'"{value}"' in code, value
