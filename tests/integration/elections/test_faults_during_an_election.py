"""Processes die in the middle of an election, and its result is the same."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.elections.playing import Command, example
from tests.waiting import wait_until

from psephos.adapters.dynamodb import Ledger
from psephos.adapters.kafka import LogAdmin
from psephos.client.http import request
from psephos.domain.genesis import decode_genesis
from psephos.formats.blocks import decode_block
from psephos_lab.published import read_published

KILLS = 3
LAG = 1_000  # records


@pytest.mark.long
def test_a_tally_worker_killed_three_times_under_lag_changes_nothing(started: Callable[..., Command]) -> None:
    session, ballots = example("oakland-2010-irv")
    load = ("--duplicates", "0.1", "--invalid", "0.01", "--workers", "2")
    run = started("run", session, "--ballots", ballots, *load, "--json")
    run.wait_for_words("voting ")
    backlog = Backlog(run)
    for number in range(1, KILLS + 1):
        _kill_under_lag(run, backlog, number)
    result = run.result()
    assert run.finish() == 0, run.errors
    published = read_published(ballots)
    assert published is not None
    assert published.differences(result) == []
    assert result["recount"]["match"] is True
    assert result["outcome"]["winners"] == ["jean-quan"]
    blocks = {name: len(run.log_events(name, "block")) for name in ("tally-0", "tally-1")}
    print(f"blocks written: {blocks}")
    assert all(blocks.values())


class Backlog:
    """Records in the log behind the ledger's heads."""

    def __init__(self, run: Command) -> None:
        settings = run.settings
        self._ledger = Ledger.of(settings)
        self._log = LogAdmin(settings)
        genesis = self._ledger.get("genesis")
        assert genesis is not None
        self._partitions = decode_genesis(genesis).partitions

    def records(self) -> int:
        heads = [self._ledger.head(partition) for partition in range(self._partitions)]
        counted = sum(decode_block(head.payload).end for head in heads if head is not None)
        return sum(self._log.end_offsets(self._partitions)) - counted


def _kill_under_lag(run: Command, backlog: Backlog, number: int) -> None:
    pid, lag = wait_until(lambda: _victim(run, backlog, number), f"a backlog for kill {number}")
    os.kill(pid, signal.SIGKILL)
    print(f"kill {number}: tally-1 (process {pid}) with a lag of {lag} records")
    wait_until(lambda: run.pid("tally-1") != pid, "tally-1 is started again")


def _victim(run: Command, backlog: Backlog, number: int) -> tuple[int, int] | None:
    """The process of tally-1 and the lag, as soon as it owns partitions and there is enough for it to do."""
    assigned = [each for each in run.log_events("tally-1", "partitions assigned") if each["partitions"]]
    if len(assigned) < number:
        return None
    lag = backlog.records()
    return (run.pid("tally-1"), lag) if lag > LAG else None


@pytest.mark.long  # shorter: test_redis_outage.py, and Redis's pod in e2e
def test_redis_killed_and_started_empty_costs_no_vote_and_results_are_right_again(
    started: Callable[..., Command],
) -> None:
    session, ballots = example("burlington-2009-irv")
    run = started("run", session, "--ballots", ballots, "--rate", "600", "--json")
    run.wait_for_words("voting ")
    url = f"http://127.0.0.1:{run.settings.gateway_port}/v1/sessions/burlington-2009-irv/results"
    before = wait_until(lambda: _frame(url, received=500), "live results")
    assert not before["stale"]
    redis = run.pid("redis")
    run.kill("redis")
    stale = wait_until(lambda: _frame(url, stale=True), "results are marked stale")
    assert stale["turnout"]["received"] >= before["turnout"]["received"], "the last results are still served"
    wait_until(lambda: run.pid("redis") != redis, "Redis is started again, empty")
    after = wait_until(lambda: _frame(url, stale=False), "results are fresh again")
    assert (after["epoch"], after["version"]) >= (stale["epoch"], stale["version"]), "never backwards"
    result = run.result()
    assert run.finish() == 0, run.errors
    assert result["turnout"]["refused"] == {}
    assert result["turnout"]["accepted"] == 8984
    retried = result["turnout"]["duplicate"]  # on a busy machine an answer may come too late
    assert result["turnout"]["received"] == 8984 + retried
    published = read_published(ballots)
    assert published is not None
    assert published.differences(result) == []


def _frame(url: str, *, received: int = 0, stale: bool | None = None) -> dict[str, Any] | None:
    answer = request(url)
    if answer.status != 200 or answer.body["turnout"]["received"] < received:
        return None
    frame: dict[str, Any] = answer.body
    return frame if stale is None or frame["stale"] is stale else None
