"""A program that becomes its own fork server: to its parent nothing has changed, and it leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.guards.leftovers import runs
from tests.waiting import wait_until

FOLDER = Path(__file__).parent


class Hosted:
    """The program, and the process ids of its first child and of that one's child."""

    def __init__(self, what: str, log: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(FOLDER), "OF_THE_FIRST": "1"}
        command = [sys.executable, str(FOLDER / "hosted.py"), str(log), what]
        self.log = log
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.first, self.child = map(int, self.process.stdout.readline().split())

    def ends(self) -> int:
        """Its exit code, when none of the three runs any more."""
        code = self.process.wait(30)
        wait_until(lambda: not runs(self.first) and not runs(self.child), "nothing is left")
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Hosted]]:
    started: list[Hosted] = []

    def start(what: str) -> Hosted:
        started.append(Hosted(what, tmp_path / "log"))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def test_it_ends_with_the_exit_code_of_the_program_and_ends_what_that_has_left(
    start: Callable[[str], Hosted],
) -> None:
    assert start("exit").ends() == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_program(start: Callable[[str], Hosted], number: signal.Signals) -> None:
    hosted = start("wait")
    hosted.process.send_signal(number)
    assert hosted.ends() == -number


@pytest.mark.parametrize("victim", ["host", "first"])
def test_all_end_when_one_of_the_two_is_killed(start: Callable[[str], Hosted], victim: str) -> None:
    hosted = start("wait")
    os.kill({"host": hosted.process.pid, "first": hosted.first}[victim], signal.SIGKILL)
    assert hosted.ends() == -signal.SIGKILL


def test_the_program_kills_its_children_when_it_closes_the_fork_server(start: Callable[[str], Hosted]) -> None:
    assert start("close").ends() == 0


def test_the_fork_server_has_one_thread_and_nothing_of_the_programs_environment(
    start: Callable[[str], Hosted],
) -> None:
    process = Path(f"/proc/{start('wait').process.pid}")
    assert len(list((process / "task").iterdir())) == 1
    assert b"OF_THE_FIRST" not in (process / "environ").read_bytes()
    opened = [str(descriptor.readlink()) for descriptor in (process / "fd").iterdir()]
    assert not [path for path in opened if "memfd" in path]


def test_a_child_is_what_it_would_be_of_any_fork_server(start: Callable[[str], Hosted]) -> None:
    hosted = start("describe")
    assert hosted.ends() == 0
    found = json.loads(hosted.log.read_text())
    assert found["environment"]["OF_THE_FIRST"] == "1"
    assert found["descriptors"] == ["0", "1", "2"]
    assert found["input"] == ""
    assert found["signals"] == ["SIGINT"]
    assert found["blocked"] == []
    assert found["group"]
