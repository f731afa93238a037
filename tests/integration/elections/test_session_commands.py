"""`psephos session`: pause, resume, extend, close and void, told to a session that runs, seen at every door."""

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bench import obeying
from tests.integration.elections.playing import Command
from tests.integration.elections.test_a_session_on_this_machine import LUNCH, PORTS, runs
from tests.waiting import PATIENCE_S, READY_S, wait_until

from psephos.cli import main
from psephos.client.http import request
from psephos.client.tokens import TokenTemplate, signer
from psephos.control import CommandFile
from psephos.domain.session import parse_session
from psephos_lab.stack import Stack

OBEYED_S = (
    PATIENCE_S  # the contract is 2 s, which `python -m bench obeying` measures; a noisy machine is no failure
)
PROMPT = ("--ingest-processes", "2")


class Lunch:
    """A session that is up, and what a person and its voters see of it."""

    def __init__(self, stack: Command, session: Path) -> None:
        self.stack = stack
        self.session = session

    def tell(self, *arguments: str) -> tuple[object, str, str]:
        """Runs `psephos session ARGUMENTS --data` of all sessions' folder, in this process: it starts fast."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(["session", *arguments, "--data", str(self.stack.folder.parent)])
        return ended.value.code, out.getvalue(), err.getvalue()

    def told(self, *arguments: str) -> str:
        """What it says when it does what it is told."""
        code, out, err = self.tell(*arguments)
        assert code == 0, err
        return out.strip()

    def refused(self, *arguments: str) -> str:
        """The one line of an order that can't be obeyed."""
        code, out, err = self.tell(*arguments)
        assert code in (1, 2), out
        (line,) = err.splitlines()
        return line

    def vote(self, subject: str) -> str:
        """`counted` or the problem's name, from a fresh connection: any of the ingest processes."""
        key = (self.stack.folder / "keys" / "tokens-hs256").read_bytes()
        claims = TokenTemplate("https://id.example", "lunch").claims(subject, int(time.time()))
        token = signer("HS256", key)(claims)
        answer = request(
            f"http://127.0.0.1:{self.stack.settings.ingest_port}/v1/sessions/lunch/votes",
            body=json.dumps({"choices": ["soup"]}).encode(),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
            },
        )
        return "accepted" if answer.status == 202 else str(answer.body["type"]).rpartition("/")[2]

    def get(self, path: str = "") -> dict[str, Any]:
        answer = request(f"http://127.0.0.1:{self.stack.settings.gateway_port}/v1/sessions/lunch{path}")
        return answer.body if answer.status == 200 else {}

    def shown(self, phase: str, timeout_s: float = OBEYED_S) -> None:
        """The gateway says so at once, and the frame soon."""
        wait_until(lambda: self.get().get("phase") == phase, f"the gateway says {phase}", timeout_s)
        wait_until(lambda: self.get("/results").get("phase") == phase, f"the frame says {phase}", OBEYED_S)

    def answered(self, subject: str, outcome: str) -> None:
        wait_until(lambda: self.vote(subject) == outcome, f"ingest says {outcome}", OBEYED_S)


@pytest.fixture
def lunch(started: Callable[..., Command], tmp_path: Path) -> Lunch:
    session = tmp_path / "lunch.yaml"
    session.write_text(LUNCH.replace("spec:\n", "spec:\n  closeGrace: 2s\n"))
    stack = started("up", session, *PORTS, *PROMPT)
    stack.wait_for_words("Ctrl-C")
    return Lunch(stack, session)


def test_a_session_is_paused_resumed_extended_and_closed(lunch: Lunch, tmp_path: Path) -> None:
    assert lunch.vote("ada") == "accepted"
    assert lunch.told("pause") == "lunch is Paused"
    lunch.answered("bob", "session-paused")
    lunch.shown("Paused")
    assert lunch.told("resume", "lunch") == "lunch is Open"
    lunch.answered("bob", "accepted")
    lunch.shown("Open")

    assert "has no end so far: say --to TIME" in lunch.refused("extend", "--by", "15m")
    hour = timedelta(hours=1)
    soon = datetime.now(UTC).replace(microsecond=0) + hour
    late = soon + hour
    assert lunch.told("extend", "--to", soon.isoformat()).startswith("lunch is Open, until ")
    assert "can only be moved to later" in lunch.refused("extend", "--to", (soon - hour / 60).isoformat())
    assert "ingest needs 3 s to hear of it" in lunch.refused("extend", "--to", "2020-01-01T00:00:00Z")
    lunch.told("extend", "--by", "1h")
    wait_until(lambda: datetime.fromisoformat(lunch.get()["closesAt"]) == late, "the gateway says when", OBEYED_S)

    assert "before that: extend it first" in lunch.refused("close", "--at", (late + hour).isoformat())
    lunch.told("close")
    assert "already" in lunch.refused("close")
    assert "closesAt is fixed" in lunch.refused("extend", "--by", "1h")
    lunch.shown("Final", READY_S)  # closing, a recount and a seal come before it
    wait_until(lambda: "Final" in lunch.refused("pause"), "its controller says so as well", OBEYED_S)
    lunch.answered("cyd", "session-closed")
    assert lunch.get("/results")["totals"] == {"pizza": 0, "soup": 2}
    for order in (("pause",), ("resume",), ("extend", "--by", "1h"), ("close",), ("void", "--reason", "too late")):
        assert "the session is Final" in lunch.refused(*order)


@pytest.mark.long
def test_a_void_session_is_void_for_ever_also_after_it_was_stopped(
    lunch: Lunch, started: Callable[..., Command]
) -> None:
    assert lunch.vote("ada") == "accepted"
    assert "say why it is void" in lunch.refused("void")
    assert lunch.told("void", "--reason", "fire alarm") == "lunch is Void, because: fire alarm"
    lunch.answered("bob", "session-closed")
    lunch.shown("Void")
    assert lunch.get()["reason"] == "fire alarm"
    for order in (("pause",), ("resume",), ("extend", "--to", "2040-01-01T00:00:00Z"), ("close",)):
        assert "the session is Void" in lunch.refused(*order)
    assert lunch.stack.stop() == 0, lunch.stack.errors

    again = Lunch(started("up", lunch.session, *PORTS, folder=lunch.stack.folder), lunch.session)
    again.stack.wait_for_words("Ctrl-C")
    again.shown("Void")
    assert again.vote("bob") == "session-closed"


@pytest.mark.long
def test_an_order_is_carried_out_by_the_next_controller_if_the_session_was_killed(
    lunch: Lunch, started: Callable[..., Command]
) -> None:
    """The order is on disk before anything is done: it is given here as a command does it, to nobody."""
    children = lunch.stack.pids()
    lunch.stack.process.kill()
    wait_until(lambda: not any(map(runs, children.values())), "nothing of it runs any more", OBEYED_S)
    book = CommandFile(lunch.stack.folder / "data" / "commands", "lunch")
    assert not book.running()
    assert "does not run: start it with `psephos dev up`" in lunch.refused("pause")
    (lunch.stack.folder / "data" / "commands" / "desired.json").write_text(
        '{"number": 99, "desired": {"paused": true}}'
    )
    again = started("up", lunch.session, *PORTS, folder=lunch.stack.folder)
    again.wait_for_words("Ctrl-C")
    resumed = Lunch(again, lunch.session)
    resumed.answered("ada", "session-paused")
    assert resumed.told("resume") == "lunch is Open"
    resumed.answered("ada", "accepted")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path / "stack", parse_session(obeying.SESSION), obeying.SESSION) as running:
        yield running


def test_every_process_obeys_a_pause_and_an_extension(stack: Stack) -> None:
    book = CommandFile(stack.settings.commands_dir, stack.session.name)
    with obeying.processes(stack) as doors:
        assert len(doors) == 4
        found = {"pause": obeying.pauses(book, doors, 4), "extend": obeying.extensions(book, doors, 2)}
    print(f"\n{obeying.table(found)}")
    assert max(found["pause"].obeyed) < OBEYED_S
    assert max(found["extend"].obeyed) < OBEYED_S
