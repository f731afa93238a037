import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.guards.leftovers import BOUND, runs
from tests.waiting import PATIENCE_S, wait_until

from psephos.platform.child_process import (
    ChildProcess,
    CommandMissingError,
    ProcessError,
    first_to_end,
    stop_together,
)
from psephos.platform.signals import StopRequest, stop_requests

PARENT = Path(__file__).with_name("parent.py")
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
)

MakeChild = Callable[[str], ChildProcess]


@pytest.fixture
def python_child(tmp_path: Path) -> Iterator[MakeChild]:
    """Children that run a Python program, killed after the test."""
    made: list[ChildProcess] = []

    def make(program: str) -> ChildProcess:
        made.append(ChildProcess("a child", [sys.executable, "-c", program], tmp_path / f"{len(made)}.log"))
        return made[-1]

    yield make
    for child in made:
        child.kill()


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with two children that are up, in a process group of its own, as a terminal would start it."""
    started = subprocess.Popen(
        [*BOUND, sys.executable, str(PARENT), str(tmp_path)], stdout=subprocess.PIPE, text=True, process_group=0
    )
    yield started
    started.kill()
    started.communicate()


def children_of(parent: subprocess.Popen[str], logs: Path) -> list[int]:
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    wait_until(lambda: "up" in read(logs / "one.log") and "up" in read(logs / "two.log"), "both children are up")
    return pids


def read(log: Path | None) -> str:
    return log.read_text() if log and log.exists() else ""


def test_output_and_errors_go_to_the_log_file(python_child: MakeChild) -> None:
    child = python_child("import sys; print('to output'); print('to errors', file=sys.stderr)")
    child.start()
    assert child.wait(PATIENCE_S) == 0
    assert set(read(child.log).split("\n")) == {"to output", "to errors", ""}


def test_without_a_log_file_a_child_writes_to_the_standard_error_of_its_parent(
    capfd: pytest.CaptureFixture[str],
) -> None:
    child = ChildProcess("a child", [sys.executable, "-c", "print('said')"], log=None)
    child.start()
    assert child.wait(PATIENCE_S) == 0
    assert capfd.readouterr().err == "said\n"


def test_the_environment_of_the_child_is_the_parents_and_what_is_added(tmp_path: Path) -> None:
    program = "import os; print(os.environ['PATH'] + os.environ['ADDED'])"
    child = ChildProcess("a child", [sys.executable, "-c", program], tmp_path / "log", env={"ADDED": "+added"})
    child.start()
    assert child.wait(PATIENCE_S) == 0
    assert read(child.log).strip() == os.environ["PATH"] + "+added"


def test_stop_asks_with_sigterm_first(python_child: MakeChild) -> None:
    child = python_child("import time; print('up', flush=True); time.sleep(60)")
    child.start()
    wait_until(lambda: "up" in read(child.log), "the child is up")
    assert child.stop() == -signal.SIGTERM
    assert not child.running


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(python_child: MakeChild) -> None:
    child = python_child(DEAF)
    child.start()
    wait_until(lambda: "up" in read(child.log), "the child is up")
    assert child.stop(grace=0.1) == -signal.SIGKILL


def test_a_paused_child_does_nothing_until_resumed_and_can_be_stopped(python_child: MakeChild) -> None:
    child = python_child("import time\nwhile True: print('beat', flush=True); time.sleep(0.01)")
    child.start()
    wait_until(lambda: "beat" in read(child.log), "the child is up")
    child.pause()
    stat = Path(f"/proc/{child.pid}/stat")
    wait_until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T", "the child is stopped")
    said = read(child.log)
    assert child.running
    child.resume()
    wait_until(lambda: len(read(child.log)) > len(said), "the child goes on")
    child.pause()
    assert child.stop(grace=PATIENCE_S) == -signal.SIGTERM


def test_a_child_can_be_started_again_after_it_was_killed(python_child: MakeChild) -> None:
    child = python_child("import time; print('up', flush=True); time.sleep(60)")
    child.start()
    first = child.pid
    with pytest.raises(ProcessError, match="already running"):
        child.start()
    child.kill()
    child.start()
    assert child.running
    assert child.pid != first


def test_a_missing_program_is_one_readable_line(tmp_path: Path) -> None:
    child = ChildProcess("Redis", ["no-such-server"], tmp_path / "log")
    with pytest.raises(CommandMissingError) as error:
        child.start()
    assert str(error.value) == "Redis can't start: `no-such-server` is not installed or not on the PATH"


def test_the_last_words_are_the_last_error_of_this_start(python_child: MakeChild) -> None:
    child = python_child("print('ERROR of now'); print('bye')")
    assert child.log
    child.log.write_text("ERROR of an earlier start\n")
    child.start()
    child.wait(PATIENCE_S)
    assert child.last_words() == "ERROR of now"


def test_the_first_child_to_end_is_named(python_child: MakeChild) -> None:
    lasting, ending = python_child("import time; time.sleep(60)"), python_child("raise SystemExit(3)")
    lasting.start()
    ending.start()
    ended = first_to_end([lasting, ending], StopRequest())
    assert ended is ending
    assert ending.exit_code == 3
    stop_together([lasting, ending])
    assert not lasting.running


def test_a_stop_signal_becomes_a_flag_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: bool(stop), "the request is noted")
        assert stop.signal_number == signal.SIGTERM
        assert first_to_end([], stop) is None
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_child_outlives_the_thread_that_started_it(python_child: MakeChild) -> None:
    child = python_child("import time; print('up', flush=True); time.sleep(60)")
    starter = threading.Thread(target=child.start)
    starter.start()
    starter.join()
    wait_until(lambda: "up" in read(child.log), "the child is up")
    assert child.wait(0.5) is None


def test_a_killed_parent_leaves_no_child(parent: subprocess.Popen[str], tmp_path: Path) -> None:
    pids = children_of(parent, tmp_path)
    assert [runs(pid) for pid in pids] == [True, True]
    parent.kill()
    wait_until(lambda: not any(runs(pid) for pid in pids), "both children are gone")
    assert "got" not in read(tmp_path / "one.log")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_terminals_signal_reaches_the_parent_alone_which_stops_its_children(
    parent: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    pids = children_of(parent, tmp_path)
    os.killpg(parent.pid, number)
    said, _ = parent.communicate(timeout=PATIENCE_S)
    assert said.split("\n") == ["asked to stop", "0 0", ""]
    assert [read(tmp_path / f"{name}.log") for name in ("one", "two")] == ["up\ngot SIGTERM\n"] * 2
    assert not any(runs(pid) for pid in pids)
