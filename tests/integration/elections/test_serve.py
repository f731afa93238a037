"""`psephos serve --conduct`: all roles of a session below one process, from its opening to its end."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.guards.leftovers import BOUND
from tests.integration.elections.playing import PSEPHOS
from tests.prepared import Prepared
from tests.waiting import READY_S, wait_until

from psephos.adapters.kafka import read_control
from psephos.client.http import NoAnswer, request
from psephos.control.command_file import CommandFile
from psephos.control.commands import NOTICE_MS
from psephos.control.desired_state import DesiredState
from psephos.domain.results import verify_result
from psephos.formats.control import Phase
from psephos.platform.clock import now_ms
from psephos_lab.keys import make_door_keys
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

VOTING = timedelta(hours=1)  # until it is told to close: how long the roles take to start is not known here


def test_a_session_is_served_through_the_death_of_a_role_to_its_final_result_and_drained(
    backends: Backends, unique: Callable[[str], str], tmp_path: Path
) -> None:
    closes_at = datetime.now(UTC) + VOTING
    prepared = Prepared(
        backends, unique("serve")[-40:], tmp_path, closesAt=closes_at.isoformat(timespec="seconds")
    )
    gateway = free_port()
    environment = {
        **os.environ,
        **prepared.environ,
        "PSEPHOS_TOKEN_KEY_FILE": str(make_door_keys(tmp_path / "keys").token),
        "PSEPHOS_ADMIN_PORT": str(free_port(row=6)),
        "PSEPHOS_INGEST_PORT": str(free_port()),
        "PSEPHOS_GATEWAY_PORT": str(gateway),
    }
    log, command = tmp_path / "serve.log", [*BOUND, *PSEPHOS, "serve", "--workers", "2", "--conduct"]
    with log.open("wb") as errors:
        serving = subprocess.Popen(command, env=environment, stderr=errors)
    try:
        wait_until(lambda: '"serving"' in log.read_text(), "all roles are ready", READY_S)
        url = f"http://127.0.0.1:{gateway}/v1/sessions/test"
        victim = _roles(serving.pid, "gateway")[0]
        os.kill(victim, signal.SIGKILL)
        prepared.produce([prepared.vote("ada"), prepared.vote("bob"), prepared.vote("ada")])
        wait_until(lambda: _received(url) == 3, "the gateway is back and shows what was counted", READY_S)
        assert _roles(serving.pid, "gateway") not in ([], [victim])
        orders = CommandFile(prepared.settings.commands_dir, "test")
        orders.give(DesiredState(close_at=now_ms() + NOTICE_MS), READY_S)
        wait_until(lambda: _phase(prepared) is Phase.FINAL, "closed by the clock, recounted and final", READY_S)
        document = request(f"{url}/publication").body
        assert document["turnout"]["accepted"] == 2
        assert verify_result(json.dumps(document).encode(), prepared.genesis.public_key)
    finally:
        serving.terminate()
        code = serving.wait(60)
    assert code == 0, log.read_text()
    stopped = [json.loads(line)["name"] for line in log.read_text().splitlines() if '"process stopped"' in line]
    assert stopped == ["ingest", "gateway", "projector", "tally-0", "tally-1"], "in the order of draining"


def _roles(serving: int, name: str) -> list[int]:
    """Process ids of a session's processes by name, as `ps` shows it."""
    return [pid for pid in _children(serving) if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n"]


def _children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def _received(url: str) -> int | None:
    try:
        answer = request(f"{url}/results")
    except NoAnswer:
        return None
    received: int | None = answer.body["turnout"]["received"] if answer.status == 200 else None
    return received


def _phase(prepared: Prepared) -> Phase | None:
    control = read_control(prepared.settings)
    return None if control is None else control.phase
