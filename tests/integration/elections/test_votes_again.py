"""Voters who may vote again, on real ballots: the result is what a reference model of ten lines says."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.elections.playing import Command, example

BURLINGTON, GDANSK = "burlington-2009-irv", "gdansk-2020-single"
LAST, FIVE = "last", "votesPerVoter: 5"
MODES: dict[str, dict[str, Any]] = {LAST: {"revote": "last"}, FIVE: {"votesPerVoter": 5}}
ALWAYS = ((BURLINGTON, LAST),)
OTHERS = ((BURLINGTON, FIVE), (GDANSK, LAST), (GDANSK, FIVE))
DUPLICATES, EXTRA, INVALID = 0.1, 0.2, 0.01


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    every = metafunc.config.getoption("--all-elections")
    metafunc.parametrize(("election", "mode"), (*ALWAYS, *OTHERS) if every else ALWAYS)


def test_extra_votes_and_retries_at_other_processes_come_to_what_a_reference_model_says(
    election: str, mode: str, started: Callable[..., Command], tmp_path: Path
) -> None:
    """The model's own verdict is the exit code; here stands what it can't know: how many votes there must be."""
    source, ballots = example(election)
    session = tmp_path / "session.yaml"
    document = yaml.safe_load(source.read_text())
    document["spec"]["voters"] |= MODES[mode]
    session.write_text(yaml.safe_dump(document))
    shares = ("--duplicates", str(DUPLICATES), "--extra", str(EXTRA), "--invalid", str(INVALID))
    run = started(
        "run", session, "--ballots", ballots, *shares, "--ingest-processes", "2", "--workers", "2", "--json"
    )
    result = run.result()
    assert run.finish() == 0, run.errors

    voters = json.loads((ballots.parent / "expected.json").read_text())["ballots"]
    turnout = result["turnout"]
    again = _number(run.errors, r"([\d,]+) tried again")  # of an unconfirmed vote the log may have one record more
    cast = turnout["accepted"] + turnout["duplicate"] + turnout["rejected"]["quota"]
    assert 0 <= cast - (1 + EXTRA + DUPLICATES) * voters <= 2 + again, "each retry is a record of its own"
    assert turnout["duplicate"] > 0.9 * DUPLICATES * voters, "but for retries of what a quota refused"
    assert (turnout["rejected"]["quota"] > 0) is (mode == FIVE)
    assert result["recount"]["match"] is True
    assert result["recount"]["logRecords"] == turnout["received"]
    assert _statuses(run.errors, "reference model")["counted"] == (voters if mode == LAST else turnout["accepted"])
    told = _statuses(run.errors, "receipts asked for at the gateway")
    assert set(told) == {"counted", "duplicate", "superseded" if mode == LAST else "rejected quota"}
    assert min(told.values()) > 10


def _number(errors: str, pattern: str) -> int:
    match = re.search(pattern, errors)
    assert match is not None, errors
    return int(match[1].replace(",", ""))


def _statuses(errors: str, line: str) -> dict[str, int]:
    """Numbers by what they are, from the line `... <line>: 10 counted, 2 rejected quota`."""
    match = re.search(rf"{line}: (.+)$", errors, re.MULTILINE)
    assert match is not None, errors
    pairs = [each.split(" ", 1) for each in match[1].split(", ")]
    return {name: int(number.replace(",", "")) for number, name in pairs}
