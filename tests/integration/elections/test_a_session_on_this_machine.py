"""`psephos dev up`: a person's own session, from the first vote by hand to a second start on the same folder."""

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.elections.playing import Command, psephos
from tests.waiting import wait_until

from psephos.client.http import request

LUNCH = """
apiVersion: psephos.dev/v1alpha1
kind: VotingSession
metadata: {name: lunch}
spec:
  title: Where to have lunch
  ballot:
    type: single
    options: [{id: pizza, label: Pizza}, {id: soup, label: Soup}]
  voters:
    tokens: {issuer: "https://id.example", audience: lunch}
"""


PORTS = ("--port", "0", "--ingest-port", "0", "--admin-port", "0")


@pytest.fixture(scope="module")
def lunch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The session, up."""
    folder = tmp_path_factory.mktemp("up")
    session = folder / "lunch.yaml"
    session.write_text(LUNCH)
    stack = Command(folder / "lunch", "up", session, *PORTS)
    try:
        stack.wait_for_words("Ctrl-C")
        yield stack
    finally:
        stack.stop()


def test_a_refused_vote_is_one_line_and_exit_code_1(lunch: Command) -> None:
    url = f"http://127.0.0.1:{lunch.settings.ingest_port}/v1/sessions/lunch"
    key = ("--session", lunch.folder / "session.yaml", "--key-file", lunch.folder / "keys" / "tokens-hs256")
    token = psephos("tokens", "mint", "eve", *key).stdout.strip()
    other = psephos("tokens", "mint", "eve", *key, "--audience", "dinner").stdout.strip()
    for arguments, says in (
        (("--token", token, "--choice", "cake"), "(invalid-ballot)"),
        (("--token", token, "--choice", "soup", "--choice", "pizza"), "(invalid-ballot)"),
        (("--token", other, "--choice", "soup"), "(invalid-token)"),
        (("--token", token[:-3], "--choice", "soup"), "(invalid-token)"),
    ):
        done = psephos("vote", url, *arguments)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert says in line


def test_a_session_is_voted_on_by_hand_stopped_and_goes_on_where_it_was(
    lunch: Command, started: Callable[..., Command]
) -> None:
    uid, folder = lunch.settings.session_uid, lunch.folder
    for key in (folder / "keys").iterdir():
        assert stat.S_IMODE(key.stat().st_mode) == 0o600, key
    receipt = _vote(lunch, "ada", "pizza")
    _vote(lunch, "bob", "soup")
    _vote(lunch, "bob", "pizza")
    frame = wait_until(lambda: _counted(lunch, 3), "three votes are counted")
    assert frame["totals"] == {"pizza": 1, "soup": 1}
    assert lunch.stop() == 0, lunch.errors

    second = started("up", folder.parent / "lunch.yaml", *PORTS, folder=folder)
    second.wait_for_words("Ctrl-C")
    assert second.settings.session_uid == uid
    _vote(second, "cyd", "soup")
    _vote(second, "ada", "soup")
    frame = wait_until(lambda: _counted(second, 5), "five votes are counted")
    assert frame["totals"] == {"pizza": 1, "soup": 2}
    assert frame["turnout"]["duplicate"] == 2
    assert request(f"{_url(second)}/receipts/{receipt}").body["status"] == "counted"

    audit = psephos("recount", "--audit", "--json", env=second.environment)
    assert audit.returncode == 0, audit.stderr
    assert json.loads(audit.stdout)["recount"] == {
        "match": True,
        "logRecords": 5,
        "differences": [],
        "differenceCount": 0,
    }
    shown = psephos("results", _url(second))
    assert shown.returncode == 0
    assert "Soup" in shown.stdout
    assert "66.7 %" in shown.stdout

    children = second.pids()
    assert {"kafka-1", "redis", "dynamodb", "ingest", "tally-0"} <= children.keys()
    second.process.kill()
    wait_until(lambda: not any(map(runs, children.values())), "a killed parent leaves no orphan")


def runs(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _vote(stack: Command, subject: str, choice: str) -> str:
    """By the commands that the stack itself tells; the receipt."""
    keys, session = stack.folder / "keys", stack.folder / "session.yaml"
    token = psephos("tokens", "mint", subject, "--session", session, "--key-file", keys / "tokens-hs256")
    assert token.returncode == 0, token.stderr
    url = f"http://127.0.0.1:{stack.settings.ingest_port}/v1/sessions/lunch"
    cast = psephos("vote", url, "--token", token.stdout.strip(), "--choice", choice)
    assert cast.returncode == 0, cast.stderr
    receipt: str = cast.stdout.strip()
    return receipt


def _url(stack: Command) -> str:
    return f"http://127.0.0.1:{stack.settings.gateway_port}/v1/sessions/lunch"


def _counted(stack: Command, records: int) -> dict[str, Any] | None:
    answer = request(f"{_url(stack)}/results")
    counted = answer.status == 200 and answer.body["turnout"]["received"] == records
    return answer.body if counted else None
