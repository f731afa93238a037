"""What a session of a given size needs, and how `psephos size` says it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from psephos.cli.app import app
from psephos.domain.session import Capacity
from psephos.domain.sizing import Estimate, estimate, figures
from psephos.domain.sizing.estimate import KEY_WRITE_UNITS, cores


def of(votes: int, viewers: int, partitions: int | None = None) -> Estimate:
    values = {"votesPerSecond": votes, "viewers": viewers, "partitions": partitions}
    return estimate(Capacity.model_validate({name: value for name, value in values.items() if value is not None}))


def test_a_television_final_is_what_the_architecture_says() -> None:
    found = of(250_000, 1_000_000)
    assert 32 <= found.log.partitions <= 64
    assert 25 <= cores(found.pods.ingest) <= 40
    assert 3 <= cores(found.pods.tally) <= 4
    assert (found.table.write_units, found.table.warm) == (8_000, True)
    assert found.table.a_key <= KEY_WRITE_UNITS
    assert found.audience.gbit_per_second == pytest.approx(2.4)
    assert found.audience.memory_gb == pytest.approx(18)
    assert [driver.what for driver in found.drivers][:2] == ["gateway", "ingest"]


def test_a_poll_in_a_team_is_one_pod_and_costs_nothing_to_speak_of() -> None:
    found = of(10, 20)
    assert [driver.what for driver in found.drivers if driver.unit == "cores"] == ["serve"]
    assert found.table.write_units == 1
    assert not found.table.warm
    assert found.log.requests_per_second <= 10


@given(st.integers(1, 10**6), st.integers(1, 10**7), st.floats(0.1, 4))
def test_more_of_anything_never_needs_less(votes: int, viewers: int, frames: float) -> None:
    small = estimate(Capacity.model_validate({"votesPerSecond": votes, "viewers": viewers}), 4, frames)
    large = estimate(Capacity.model_validate({"votesPerSecond": 2 * votes, "viewers": 2 * viewers}), 4, 2 * frames)
    assert large.table.write_units >= small.table.write_units
    assert large.log.mb_per_second >= small.log.mb_per_second
    assert large.log.requests_per_second >= small.log.requests_per_second
    assert large.audience.gbit_per_second >= small.audience.gbit_per_second
    assert large.pods.ingest.replicas >= small.pods.ingest.replicas


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["size", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_says_it_in_words_and_as_json() -> None:
    text = run("--votes-per-second", "250000", "--viewers", "1000000")
    for words in ("36 ingest", "63 partitions", "8,000 write units", "2.4 Gbit/s", "warm"):
        assert words in text
    document = json.loads(run("--votes-per-second", "250000", "--viewers", "1000000", "--json"))
    assert document["pods"]["ingest"] == {"replicas": 36, "most": 72, "cpu": 1000, "memory": 512}
    assert document["log"]["partitions"] == 63
    assert document["figures"]["ingestMicros"]["origin"] == figures.INGEST_MICROS.origin
    assert {driver["what"] for driver in document["drivers"]} >= {"ingest", "ledger", "frames to viewers"}


def test_a_small_session_is_told_that_one_pod_does() -> None:
    assert "one pod with all roles" in run("--votes-per-second", "100", "--viewers", "100")


@pytest.mark.parametrize(
    "arguments",
    [["--votes-per-second", "0"], ["--viewers", "-1"], ["--votes-per-second", "many"], ["--partitions", "1000"]],
)
def test_sizes_that_can_not_be_are_refused_in_one_line(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["size", *arguments])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_every_figure_says_where_it_is_from() -> None:
    assert len(figures.ALL) >= 10
    for name, figure in figures.ALL.items():
        assert figure.value > 0, name
        assert figure.unit
        assert figure.origin
