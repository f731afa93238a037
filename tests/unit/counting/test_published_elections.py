"""Five real votes: counting their ballots finds the published figures again, round by round."""

import csv
import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from psephos.domain.counting import MILLION, CountingRules, count, outcome_json, totals
from psephos.domain.session import Session, parse_session

EXAMPLES = Path(__file__).parents[3] / "manifests" / "examples"
RUNOFFS = ("burlington-2009-irv", "oakland-2010-irv")
SUMS = ("gdansk-2020-single", "krakow-2022-score", "warszawa-2026-approval")


class Example:
    """One folder of the examples, read."""

    def __init__(self, name: str) -> None:
        folder = EXAMPLES / name
        self.session: Session = parse_session((folder / "session.yaml").read_bytes())
        self.rules = CountingRules.of(self.session)
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        self.patterns: Counter[bytes] = Counter()
        for row in csv.DictReader(io.StringIO(ballots_text(folder))):
            body = self.rules.ballot.parse_cell(row["choices"])
            self.patterns[self.rules.ballot.encode(body)] += int(row["count"]) * MILLION


def ballots_text(folder: Path) -> str:
    plain = folder / "ballots.csv"
    raw = plain.read_bytes() if plain.exists() else gzip.decompress((folder / "ballots.csv.gz").read_bytes())
    return raw.decode()


@pytest.mark.parametrize("name", RUNOFFS + SUMS)
def test_every_ballot_is_there(name: str) -> None:
    example = Example(name)
    assert example.session.name == name
    assert sum(example.patterns.values()) == example.expected["ballots"] * MILLION
    assert example.patterns[b""] == example.expected.get("blank", 0) * MILLION


@pytest.mark.parametrize("name", SUMS)
def test_totals_are_those_that_were_published(name: str) -> None:
    example = Example(name)
    found = dict(zip(example.session.option_ids, totals(example.rules, example.patterns), strict=True))
    assert found == {option: votes * MILLION for option, votes in example.expected["totals"].items()}
    outcome = outcome_json(count(example.rules, example.patterns), example.session.option_ids)
    assert outcome["rounds"][0]["tally"] == example.expected["totals"]
    assert outcome["winners"] == [max(example.expected["totals"], key=example.expected["totals"].__getitem__)]


def runoff(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our outcome, with the names of the published figures for ids, and what is expected."""
    example = Example(name)
    names = [example.expected["options"][option] for option in example.session.option_ids]
    return outcome_json(count(example.rules, example.patterns), names), example.expected


@pytest.mark.parametrize("name", RUNOFFS)
def test_every_round_is_the_published_one(name: str) -> None:
    outcome, expected = runoff(name)
    assert len(outcome["rounds"]) == len(expected["recount"])
    for found, wanted in zip(outcome["rounds"], expected["recount"], strict=True):
        assert found["tally"] == wanted["tally"]
        assert found["eliminated"] == wanted.get("eliminated", [])
        assert found["exhausted"] == wanted["exhausted_or_blank"]
    assert outcome["winners"] == [expected["recount"][-1]["winner"]]
    assert outcome["tieBreaks"] == []


@pytest.mark.parametrize("name", RUNOFFS)
def test_every_figure_that_officials_published_is_found(name: str) -> None:
    outcome, expected = runoff(name)
    for found, official in zip(outcome["rounds"], expected["published"], strict=True):
        assert found["tally"].items() >= official.items()


def test_burlington_is_counted_in_batches_down_to_kiss_and_wright() -> None:
    outcome, _ = runoff("burlington-2009-irv")
    assert [sorted(turn["tally"].values(), reverse=True) for turn in outcome["rounds"]] == [
        [2951, 2585, 2063, 1306, 36, 35],
        [3294, 2981, 2554],
        [4313, 4061],
    ]
    assert [turn["exhausted"] for turn in outcome["rounds"]] == [8, 155, 610]
    assert outcome["winners"] == ["Bob Kiss"]


def test_oakland_goes_through_ten_rounds_to_quan_and_perata() -> None:
    outcome, _ = runoff("oakland-2010-irv")
    assert len(outcome["rounds"]) == 10
    assert outcome["rounds"][-1]["tally"] == {"JEAN QUAN": 53897, "DON PERATA": 51872}
    assert outcome["winners"] == ["JEAN QUAN"]
