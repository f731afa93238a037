"""Descriptions of the API are whole, and the page made from them is the one in docs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import validator_for

from psephos.domain.ballots import BallotRules
from psephos.domain.ballots.rules import InvalidBallot
from psephos.domain.session import Session, parse_session
from psephos.roles.gateway import openapi as read_side
from psephos.roles.gateway.problems import KINDS as READ_KINDS
from psephos.roles.ingest import openapi as write_side
from psephos.roles.ingest.problems import KINDS as WRITE_KINDS
from psephos_lab.api_docs import api_markdown

PAGE = Path(__file__).parents[3] / "docs/api.md"
OPTIONS = [{"id": "ada"}, {"id": "bob"}, {"id": "cyd"}]


def session(**ballot: Any) -> Session:
    spec = {"ballot": {"type": "single", "options": OPTIONS, **ballot}, "voters": {"eligibility": "open"}}
    return parse_session(
        {
            "apiVersion": "psephos.dev/v1alpha1",
            "kind": "VotingSession",
            "metadata": {"name": "lunch"},
            "spec": spec,
        }
    )


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for member in node.values():
            yield from references(member)
    elif isinstance(node, list):
        for member in node:
            yield from references(member)


def types(document: Any) -> set[str]:
    return {
        kind.rpartition("/")[2]
        for path in document["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
        for response in operation["responses"].values()
        for content in response.get("content", {}).values()
        for kind in content["schema"].get("properties", {}).get("type", {}).get("enum", [])
        if kind.startswith("https://psephos.dev/problems/")
    }


def test_the_page_of_the_api_is_up_to_date() -> None:
    assert PAGE.read_text() == api_markdown(), "write it anew: python -m psephos_lab.api_docs"


def test_every_problem_is_in_a_description_and_on_the_page() -> None:
    assert types(write_side.openapi(session())) == set(WRITE_KINDS)
    assert types(read_side.openapi(session(), "uid")) == set(READ_KINDS)
    page = PAGE.read_text()
    for kinds in (WRITE_KINDS, READ_KINDS):
        for slug, kind in kinds.items():
            assert f"| `{slug}` | {kind.status} | {kind.title} | {kind.cause} | {kind.remedy} |" in page


def test_references_lead_somewhere() -> None:
    document = read_side.asyncapi(session())
    found = list(references(document))
    assert len(found) >= 6
    for reference in found:
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


@pytest.mark.parametrize(
    "ballot",
    [
        {"type": "single", "min": 0},
        {"type": "approval", "max": 2},
        {"type": "ranked", "min": 2, "max": 2},
        {"type": "score", "scale": {"min": -1, "max": 3}, "min": 1, "max": 2},
    ],
)
def test_a_ballot_is_valid_by_its_description_if_it_is_by_the_rules(ballot: dict[str, Any]) -> None:
    described, rules = (
        validator_for(write_side.ballot_schema(session(**ballot))),
        BallotRules.of(session(**ballot)),
    )
    choices = [
        [],
        ["ada"],
        ["ada", "bob"],
        ["bob", "ada"],
        ["ada", "ada"],
        ["ada", "bob", "cyd"],
        ["dot"],
        "ada",
        [1],
    ]
    scores = [
        {},
        {"ada": 3},
        {"ada": 4},
        {"ada": -1, "bob": 0},
        {"ada": -2},
        {"ada": True},
        {"dot": 1},
        {"ada": "1"},
    ]
    bodies: list[dict[str, Any]] = [{"choices": some} for some in choices] + [{"scores": some} for some in scores]
    bodies += [{}, {"choices": ["ada"], "scores": {"ada": 1}}, {"choices": ["ada"], "more": 1}]
    valid = 0
    for body in bodies:
        try:
            rules.encode(body)
            allowed = True
        except InvalidBallot:
            allowed = False
        assert described.is_valid(json.loads(json.dumps(body))) == allowed, body
        valid += allowed
    assert valid >= 2, "some are valid"
