"""Roles that are forked from one process: each is what it would be alone, and all of them come back."""

import json
import os
import re
import signal
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.prepared import Prepared
from tests.waiting import READY_S, wait_until

from psephos.control import set_phase
from psephos.formats.control import Phase
from psephos.platform.child_process import ChildProcess
from psephos.platform.settings import load_settings
from psephos.platform.signals import STACKS
from psephos.platform.supervisor import RoleFailed, Supervisor
from psephos.roles.serve import layout
from psephos.roles.serve.layout import RoleProcess
from psephos.roles.serve.roles import supervise
from psephos_lab.keys import make_door_keys
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

NAMES = {"ingest": "ingest", "gateway": "gateway", "projector": "projector", "tally-0": "tally"}
"""Roles by the names of their processes."""


class Served:
    """A session's roles under a supervisor of ours."""

    def __init__(self, backends: Backends, folder: Path) -> None:
        prepared = Prepared(backends, f"forked-{os.urandom(4).hex()}", folder, closesAt=None)
        set_phase(prepared.settings, Phase.OPEN)
        self.folder = folder
        self.environ = {
            **prepared.environ,
            "PSEPHOS_TOKEN_KEY_FILE": str(make_door_keys(folder / "door").token),
            "PSEPHOS_ADMIN_PORT": str(free_port()),
            "PSEPHOS_INGEST_PORT": str(free_port()),
            "PSEPHOS_GATEWAY_PORT": str(free_port()),
        }
        self.roles = {role.name: role for role in layout(load_settings(self.environ))}
        self.supervisor: Supervisor = supervise(list(self.roles.values()), self.environ, folder / "logs")

    @property
    def fork_server(self) -> int:
        """The parent of all roles."""
        [parent] = {int(status(pid, "PPid")) for pid in self.supervisor.pids.values()}
        return parent

    def log(self, name: str) -> str:
        return (self.folder / "logs" / f"{name}.log").read_text()

    def wait_for_others_than(self, before: dict[str, int]) -> None:
        """Until these processes have been started again, and all are ready."""
        wait_until(
            lambda: all(self.supervisor.pids.get(name, pid) != pid for name, pid in before.items()),
            "they were started again",
            READY_S,
        )
        assert self.supervisor.wait_ready(READY_S)


@pytest.fixture(scope="module")
def served(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """All of its roles are ready after each test."""
    served = Served(backends, tmp_path_factory.mktemp("served"))
    try:
        served.supervisor.start()
        assert served.supervisor.wait_ready(READY_S)
        yield served
    finally:
        served.supervisor.stop()


def status(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:"))


def caught(pid: int) -> set[int]:
    mask = int(status(pid, "SigCgt"), 16)
    return {number for number in range(1, 65) if mask & 1 << number - 1}


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text: str = response.read().decode()
    return text


def families(text: str) -> set[str]:
    """Names and types of all series, but for when each was made: that shows with the first value of a label."""
    return set(re.findall(r"^# TYPE (\S+(?<!_created) \w+)$", text, re.MULTILINE))


def sample(text: str, name: str) -> float:
    [value] = re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(value)


def events(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def alone(served: Served, name: str, held: ExitStack) -> int:
    """The same role, executed, beside the forked one; its admin port."""
    port, role = free_port(), served.roles[name].role
    own = {"ADMIN_PORT": port, "INGEST_PORT": free_port(), "GATEWAY_PORT": free_port(), "WORKER": "alone"}
    folder = {"DATA_DIR": served.folder / "alone"}
    environ = {f"PSEPHOS_{key}": str(value) for key, value in (own | folder).items()}
    command = (sys.executable, "-m", "psephos.cli", role)
    child = ChildProcess(name, command, served.folder / f"{name}-alone.log", {**served.environ, **environ})
    child.start()
    held.callback(child.stop)
    return port


def answers(port: int) -> bool:
    try:
        return bool(metrics(port))
    except OSError:
        return False


def test_a_forked_role_names_the_same_series_as_one_that_was_started_alone(served: Served) -> None:
    with ExitStack() as held:
        ports = {name: alone(served, name, held) for name in NAMES}
        for port in ports.values():
            wait_until(lambda port=port: answers(port), "it shows its metrics", READY_S)  # type: ignore[misc]
        for name, port in ports.items():
            forked = metrics(served.roles[name].admin_ports[0])
            assert families(forked) == families(metrics(port))
            own = {line for line in families(forked) if line.startswith("psephos_")}
            assert own
            assert all(line.startswith(f"psephos_{NAMES[name]}_") for line in own)


def test_what_metrics_say_of_the_process_is_said_of_the_forked_one(served: Served) -> None:
    forked_at = Path(f"/proc/{served.fork_server}").stat().st_ctime
    for name, pid in served.supervisor.pids.items():
        text = metrics(served.roles[name].admin_ports[0])
        assert sample(text, "process_start_time_seconds") > forked_at
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        assert abs(sample(text, "process_open_fds") - descriptors) < 10


def test_each_role_has_a_title_a_log_and_signal_handlers_of_its_own(served: Served) -> None:
    for name, pid in served.supervisor.pids.items():
        assert status(pid, "Name") == name
        assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == name.encode()
        roles = {event["role"] for event in events(served.log(name)) if "role" in event}
        assert roles == {NAMES[name]}
        for descriptor in (1, 2):
            assert Path(f"/proc/{pid}/fd/{descriptor}").resolve().name == f"{name}.log"
        assert {signal.SIGTERM, signal.SIGINT, STACKS} <= caught(pid)
        assert signal.SIGCHLD not in caught(pid), "that is the fork server's"
    assert {event["worker"] for event in events(served.log("tally-0")) if "worker" in event} == {"0"}


def test_the_fork_server_has_one_thread_and_none_of_the_sessions_secrets(served: Served) -> None:
    process = Path(f"/proc/{served.fork_server}")
    assert len(list((process / "task").iterdir())) == 1
    assert status(served.fork_server, "Threads") == "1"
    assert b"PSEPHOS_" not in (process / "environ").read_bytes()
    opened = [descriptor.readlink() for descriptor in (process / "fd").iterdir()]
    assert not [path for path in opened if str(path).startswith(str(served.folder))]


def test_a_role_writes_its_stacks_to_its_log_and_goes_on(served: Served) -> None:
    before = served.supervisor.pids
    os.kill(before["projector"], STACKS)
    wait_until(lambda: "Current thread" in served.log("projector"), "its stacks are in its log")
    assert served.supervisor.pids == before


def test_a_killed_role_comes_back_and_the_others_go_on(served: Served) -> None:
    before = served.supervisor.pids
    parent = served.fork_server
    os.kill(before["tally-0"], signal.SIGKILL)
    served.wait_for_others_than({"tally-0": before["tally-0"]})
    assert {**served.supervisor.pids, "tally-0": 0} == {**before, "tally-0": 0}
    assert served.fork_server == parent


def test_all_roles_come_back_when_the_fork_server_is_killed(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    before, parent = served.supervisor.pids, served.fork_server
    os.kill(parent, signal.SIGKILL)
    served.wait_for_others_than(before)
    assert served.fork_server != parent
    assert capfd.readouterr().out.count("the fork server ended and every process with it") == 1


def test_a_role_with_wrong_settings_ends_with_one_line_and_exit_code_2(served: Served, tmp_path: Path) -> None:
    port = free_port()
    own = {"PSEPHOS_ADMIN_PORT": str(port), "PSEPHOS_GATEWAY_PORT": "none"}
    role = RoleProcess("gateway", "gateway", own, range(port, port + 1))
    supervisor = supervise([role], served.environ, tmp_path)
    supervisor.start()
    try:
        with pytest.raises(RoleFailed, match=r"^gateway: PSEPHOS_GATEWAY_PORT"):
            supervisor.wait_ready(READY_S)
        [line] = (tmp_path / "gateway.log").read_text().splitlines()
        assert line.startswith("psephos: PSEPHOS_GATEWAY_PORT")
        assert [each.child.exit_code for each in supervisor.processes] == [2]
    finally:
        supervisor.stop()
