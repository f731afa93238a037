"""Children of a fork server: each is what a program that is executed would be, and none outlives its parent."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.guards.leftovers import runs
from tests.waiting import wait_until

from psephos.platform.child_process import ProcessError
from psephos.platform.forkserver import ForkedProcess, ForkServer

FOLDER = Path(__file__).parent
MakeChild = Callable[..., ForkedProcess]


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = ForkServer(["json", "random"])
    yield server
    server.close()


@pytest.fixture
def make(server: ForkServer, tmp_path: Path) -> MakeChild:
    def make(*arguments: str, name: str = "a child", **env: str) -> ForkedProcess:
        number = len(list(tmp_path.iterdir()))
        log = tmp_path / f"{number}.log"
        log.touch()
        return ForkedProcess(server, name, "program", arguments, log, env)

    return make


def read(child: ForkedProcess) -> str:
    return child.log.read_text() if child.log and child.log.exists() else ""


def described(child: ForkedProcess) -> dict[str, Any]:
    child.start()
    assert child.wait(10) == 0, read(child)
    found: dict[str, Any] = json.loads(read(child))
    return found


def started(child: ForkedProcess) -> ForkedProcess:
    child.start()
    wait_until(lambda: "up" in read(child), "the child is up")
    return child


def status(pid: int | None, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:"))


def test_a_child_has_its_arguments_its_environment_and_nothing_of_the_fork_server(
    make: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_PARENT", "1")
    child = make("describe", "more", OF_THE_CHILD="2", TZ="Etc/GMT-3")
    found = described(child)
    assert found["arguments"] == ["describe", "more"]
    assert found["main"] == "__main__"
    environment = found["environment"]
    assert environment == {**os.environ, "OF_THE_CHILD": "2", "TZ": "Etc/GMT-3"}
    assert found["zone"] == "+03"
    assert found["input"] == ""
    assert found["descriptors"] == ["0", "1", "2"]
    assert found["signals"] == ["SIGINT"], "what Python itself handles"
    assert found["blocked"] == []
    assert found["threads"] == 1
    assert found["group"] is True


def test_no_child_has_what_another_one_has_in_its_environment(make: MakeChild) -> None:
    described(make("describe", OF_THE_FIRST="1"))
    assert "OF_THE_FIRST" not in described(make("describe", OF_THE_SECOND="1"))["environment"]


def test_the_fork_server_gets_none_of_its_parents_variables_and_has_one_thread(
    server: ForkServer, make: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSEPHOS_SESSION_KEY_FILE", "/secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    child = started(make("wait"))
    assert server.pid is not None
    process = Path(f"/proc/{server.pid}")
    variables = {each.partition(b"=")[0] for each in (process / "environ").read_bytes().split(b"\0")}
    assert b"PATH" in variables
    assert not any(name.startswith((b"PSEPHOS_", b"AWS_")) for name in variables)
    assert len(list((process / "task").iterdir())) == 1
    child.kill()
    assert len(list((process / "fd").iterdir())) == 6, "standard streams, the parent, and a pair for signals"


def test_children_make_different_random_numbers(make: MakeChild) -> None:
    assert described(make("describe"))["random"] != described(make("describe"))["random"]


def test_ps_shows_a_child_by_its_name(make: MakeChild) -> None:
    child = started(make("wait", name="tally-0"))
    shown = subprocess.run(
        ["ps", "-o", "comm=,args=", "-p", str(child.pid)], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["tally-0", "tally-0"]
    assert status(child.pid, "Name") == "tally-0"


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_the_programs(make: MakeChild, code: int) -> None:
    child = make("exit", str(code))
    assert child.exit_code is None
    child.start()
    assert child.wait(10) == code
    assert not child.running


def test_an_error_that_the_program_does_not_handle_is_its_last_word(make: MakeChild) -> None:
    child = make("fail")
    child.start()
    assert child.wait(10) == 1
    assert child.last_words() == "EOFError: what the program did not expect"


def test_a_child_is_asked_to_stop_paused_resumed_and_killed_as_any_other(make: MakeChild) -> None:
    assert started(make("wait")).stop() == -signal.SIGTERM
    child = started(make("deaf"))
    child.pause()
    wait_until(lambda: status(child.pid, "State").startswith("T"), "the child is stopped")
    assert child.running
    child.resume()
    wait_until(lambda: status(child.pid, "State").startswith("S"), "the child goes on")
    with pytest.raises(ProcessError, match="already running"):
        child.start()
    assert child.stop(grace=0.1) == -signal.SIGKILL
    first = child.pid
    child.start()
    assert child.running
    assert child.pid != first
    child.kill()


def test_without_a_log_file_a_child_writes_to_the_standard_error_of_the_parent(
    server: ForkServer, capfd: pytest.CaptureFixture[str]
) -> None:
    child = ForkedProcess(server, "a child", "program", ["describe"], log=None)
    child.start()
    assert child.wait(10) == 0
    assert '"main": "__main__"' in capfd.readouterr().err


def test_children_end_with_the_fork_server_and_the_next_start_has_a_new_one(
    server: ForkServer, make: MakeChild
) -> None:
    first, second = started(make("deaf")), started(make("deaf"))
    before = server.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert first.wait(10) == -signal.SIGKILL
    assert second.exit_code == -signal.SIGKILL
    assert not runs(first.pid or 0)
    assert not runs(second.pid or 0), "when the parent learns of it, both have ended: their ports are free"
    assert server.pid is None
    assert server.deaths == 1
    started(first)
    assert server.pid not in (None, before)


def test_a_module_that_cannot_be_imported_is_named_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    server = ForkServer(["no_such_module"])
    with pytest.raises(ProcessError, match="the fork server ended"):
        server.start("a child", "program", [], {}, None)
    said = capfd.readouterr().err
    assert said == "psephos: the fork server can't import no_such_module: No module named 'no_such_module'\n"


def test_a_killed_parent_leaves_neither_the_fork_server_nor_its_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, str(FOLDER / "parent.py"), str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        wait_until(lambda: log.exists() and "up" in log.read_text(), "the child is up")
        assert all(runs(pid) for pid in pids)
        parent.kill()
        wait_until(lambda: not any(runs(pid) for pid in pids), "both are gone")
