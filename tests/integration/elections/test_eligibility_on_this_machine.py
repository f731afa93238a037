"""`psephos dev up` for a session that is open to all, and for one with a roll."""

from collections.abc import Callable
from pathlib import Path

from tests.integration.elections.playing import Command, psephos

from psephos.client.http import request

SESSION = """
apiVersion: psephos.dev/v1alpha1
kind: VotingSession
metadata: {name: lunch}
spec:
  ballot: {type: single, options: [{id: pizza}, {id: soup}]}
  capacity: {partitions: 4}
"""
PORTS = ("--port", "0", "--ingest-port", "0", "--admin-port", "0")


def up(folder: Path, started: Callable[..., Command], voters: str) -> tuple[Command, str]:
    """The stack, and where it takes votes."""
    session = folder / "lunch.yaml"
    session.write_text(f"{SESSION}  voters: {voters}\n")
    stack = started("up", session, *PORTS, folder=folder / "lunch")
    stack.wait_for_words("Ctrl-C")
    return stack, f"http://127.0.0.1:{stack.settings.ingest_port}/v1/sessions/lunch"


def test_an_open_session_hands_out_tokens_that_vote(tmp_path: Path, started: Callable[..., Command]) -> None:
    stack, url = up(tmp_path, started, "{eligibility: open}")
    assert f"curl -X POST {url}/tokens" in stack.said.read_text()
    tokens = [request(f"{url}/tokens", body=b"") for _ in range(2)]
    assert [answer.status for answer in tokens] == [201, 201]
    for answer in tokens:
        cast = psephos("vote", url, "--token", answer.body["token"], "--choice", "soup")
        assert (cast.returncode, cast.stderr) == (0, "")
    assert stack.stop() == 0, stack.errors


def test_a_roll_in_a_file_lets_in_whom_it_names(tmp_path: Path, started: Callable[..., Command]) -> None:
    roll = tmp_path / "roll.txt"
    roll.write_text("ada\nbob\n")
    tokens = 'tokens: {issuer: "https://id.example", audience: lunch}'
    stack, url = up(tmp_path, started, f"{{eligibility: roll, {tokens}, roll: {{url: {roll.as_uri()}}}}}")
    key = ("--session", stack.folder / "session.yaml", "--key-file", stack.folder / "keys" / "tokens-hs256")
    for subject, code, says in (("ada", 0, ""), ("eve", 1, "(not-eligible)"), ("bob", 0, "")):
        token = psephos("tokens", "mint", subject, *key).stdout.strip()
        cast = psephos("vote", url, "--token", token, "--choice", "soup")
        assert cast.returncode == code, cast.stderr
        assert says in cast.stderr
    assert stack.stop() == 0, stack.errors
