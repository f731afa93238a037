"""Four more real votes with their real ballots come to their published results, whatever voters do besides."""

from collections.abc import Callable

import pytest
from tests.integration.elections.playing import Command, example
from tests.integration.elections.published import DUPLICATES, INVALID, require_published

ELECTIONS = ("gdansk-2020-single", "krakow-2022-score", "warszawa-2026-approval", "oakland-2010-irv")


@pytest.mark.long
@pytest.mark.parametrize("election", ELECTIONS)
def test_published_results_come_out_in_spite_of_duplicates_and_invalid_ballots(
    election: str, started: Callable[..., Command]
) -> None:
    session, ballots = example(election)
    load = ("--duplicates", str(DUPLICATES), "--invalid", str(INVALID), "--workers", "2")
    run = started("run", session, "--ballots", ballots, *load, "--json")
    result = run.result()
    assert run.finish() == 0, run.errors
    assert run.process.stdout is not None
    assert run.process.stdout.read() == "", "standard output is one object and nothing else"
    require_published(election, result)
