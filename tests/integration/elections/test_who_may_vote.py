"""`psephos dev run` with a roll, and in a session that is open to all: a small election, whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.elections.playing import Command
from tests.integration.elections.test_eligibility_on_this_machine import SESSION

BALLOTS = {"pizza": 170, "soup": 130}
TOKENS = 'tokens: {issuer: "https://id.example", audience: lunch}'
VOTERS = {
    "roll": f"{{eligibility: roll, {TOKENS}, roll: {{configMapRef: {{name: roll}}}}}}",
    "open": "{eligibility: open}",
}


@pytest.mark.long
@pytest.mark.parametrize("who", VOTERS)
def test_an_election_is_played_whoever_may_vote(who: str, tmp_path: Path, started: Callable[..., Command]) -> None:
    session, ballots = tmp_path / "lunch.yaml", tmp_path / "ballots.csv"
    session.write_text(f"{SESSION}  voters: {VOTERS[who]}\n")
    ballots.write_text("count,choices\n" + "".join(f"{votes},{option}\n" for option, votes in BALLOTS.items()))
    run = started("run", session, "--ballots", ballots, "--duplicates", "0.1", "--invalid", "0.04", "--json")
    result = run.result()
    assert run.finish() == 0, run.errors
    assert result["state"] == "Final"
    assert result["totals"] == BALLOTS
    assert result["turnout"]["accepted"] == 300
    assert result["turnout"]["duplicate"] >= 30, "an unconfirmed vote that is sent again is one, too"
    assert sum(result["turnout"]["rejected"].values()) == 6
    assert sum(result["turnout"]["refused"].values()) == 6
    assert "not-eligible" not in result["turnout"]["refused"], "they may vote, but not like this"
    assert result["recount"]["match"] is True
