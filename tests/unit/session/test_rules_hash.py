"""Genesis fixes the hash of the counting rules: it must move with each rule, and with nothing else."""

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from psephos.domain.session import parse_session, rules_document, rules_hash

BASE: dict[str, Any] = {
    "apiVersion": "psephos.dev/v1alpha1",
    "kind": "VotingSession",
    "metadata": {"name": "final"},
    "spec": {
        "ballot": {"type": "ranked", "options": [{"id": "ada"}, {"id": "bob"}, {"id": "cy"}]},
        "voters": {"tokens": {"issuer": "i", "audience": "a"}},
    },
}

Change = Callable[[dict[str, Any]], Any]


def changed(change: Change) -> bytes:
    source = copy.deepcopy(BASE)
    change(source["spec"])
    return rules_hash(parse_session(source))


def test_the_hash_is_sha256_of_the_canonical_json() -> None:
    session = parse_session(BASE)
    expected = (
        '{"elimination":"single","max":3,"method":"irv","min":1,"options":["ada","bob","cy"],"revote":"first",'
        '"scale":null,"segments":[],"stop":"two","tieBreak":"declared","type":"ranked","votesPerVoter":1,'
        '"weighted":false}'
    )
    assert rules_document(session) == json.loads(expected)
    assert rules_hash(session) == hashlib.sha256(expected.encode()).digest()


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec["ballot"]["options"].reverse(),
        lambda spec: spec["ballot"]["options"].append({"id": "dee"}),
        lambda spec: spec["ballot"].update(type="approval"),
        lambda spec: spec["ballot"].update(min=0),
        lambda spec: spec["ballot"].update(max=2),
        lambda spec: spec["ballot"].update(method="borda"),
        lambda spec: spec["ballot"].update(elimination="batch"),
        lambda spec: spec["ballot"].update(stop="majority"),
        lambda spec: spec["ballot"].update(tieBreak="lot"),
        lambda spec: spec["ballot"].update(type="score", scale={"min": 0, "max": 5}),
        lambda spec: spec["ballot"].update(type="score", scale={"min": 1, "max": 5}),
        lambda spec: spec["voters"].update(revote="last"),
        lambda spec: spec["voters"].update(votesPerVoter=2),
        lambda spec: spec["voters"].update(segments=["no"]),
        lambda spec: spec["voters"]["tokens"].update(segmentClaim="country"),
        lambda spec: spec["voters"]["tokens"].update(weightClaim="weight"),
    ],
)
def test_each_counting_rule_is_in_the_hash(change: Change) -> None:
    assert changed(change) != rules_hash(parse_session(BASE))


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(title="Other words"),
        lambda spec: spec["ballot"]["options"][0].update(label="Ada Lovelace"),
        lambda spec: spec.update(closesAt="2030-01-01T00:00:00Z", closeGrace="1m"),
        lambda spec: spec.update(capacity={"votesPerSecond": 100_000}),
        lambda spec: spec["voters"]["tokens"].update(issuer="other"),
        lambda spec: spec["ballot"].update(max=3, method="irv", stop="two"),
    ],
)
def test_nothing_else_is_in_the_hash(change: Change) -> None:
    assert changed(change) == rules_hash(parse_session(BASE))
