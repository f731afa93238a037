"""Whether an election that was played comes to its published result."""

import json
from collections.abc import Mapping
from typing import Any

from tests.integration.elections.playing import example

from psephos_lab.published import read_published

DUPLICATES, INVALID = 0.1, 0.01


def require_published(election: str, result: Mapping[str, Any]) -> None:
    """Turnout and outcome of an election played with DUPLICATES and INVALID are what was published."""
    _, ballots = example(election)
    expected = json.loads((ballots.parent / "expected.json").read_text())
    _require_turnout(result, expected["ballots"])
    published = read_published(ballots)
    assert published is not None
    assert published.differences(result) == []
    if "recount" in expected:
        _require_rounds(result, expected)


def _require_turnout(result: Mapping[str, Any], ballots: int) -> None:
    turnout, recount = result["turnout"], result["recount"]
    invalid = round(INVALID * ballots)
    assert turnout["accepted"] == ballots
    assert abs(turnout["duplicate"] - DUPLICATES * ballots) <= 1
    assert sum(turnout["refused"].values()) == invalid // 2
    assert sum(turnout["rejected"].values()) == invalid - invalid // 2
    assert turnout["rejected"]["malformed"] > 0
    assert turnout["rejected"]["invalid-ballot"] > 0
    classes = (turnout["accepted"], turnout["duplicate"], *turnout["rejected"].values())
    assert sum(classes) == turnout["received"] == recount["logRecords"]
    assert result["state"] == "Final"
    assert recount["match"] is True
    assert recount["differences"] == []


def _require_rounds(result: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Each round whole: tallies, who goes out, what is exhausted; and who wins."""
    ids = {label: option for option, label in expected["options"].items()}
    rounds = result["outcome"]["rounds"]
    assert [each["tally"] for each in rounds] == [
        {ids[label]: votes for label, votes in each["tally"].items()} for each in expected["recount"]
    ]
    assert [each["exhausted"] for each in rounds] == [each["exhausted_or_blank"] for each in expected["recount"]]
    assert [set(each["eliminated"]) for each in rounds] == [
        {ids[label] for label in each.get("eliminated", [])} for each in expected["recount"]
    ]
    assert result["outcome"]["winners"] == [ids[expected["recount"][-1]["winner"]]]
