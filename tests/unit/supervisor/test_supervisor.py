"""Processes under care, with real ones."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.waiting import wait_until

from psephos.platform.backoff import Backoff
from psephos.platform.child_process import ChildProcess
from psephos.platform.supervisor import RoleFailed, Supervised, Supervisor

WAITS = "import time; print('up', flush=True); time.sleep(60)"
Make = Callable[[str], Supervised]
QUICK = {"first_s": 0.05, "longest_s": 0.1}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Supervised] = []

    def make(program: str) -> Supervised:
        name = f"process {len(made)}"
        child = ChildProcess(name, [sys.executable, "-c", program], tmp_path / f"{name}.log")
        made.append(Supervised(name, child, backoff=Backoff(**QUICK)))
        return made[-1]

    yield make
    for each in made:
        each.child.kill()


def test_pauses_double_up_to_a_limit_and_are_short_again_after_a_long_run() -> None:
    backoff = Backoff(first_s=1, longest_s=5, steady_s=60)
    assert [backoff.after(ran_s) for ran_s in (0, 0, 59, 0, 0, 60, 0)] == [1, 2, 4, 5, 5, 1, 2]


def test_a_process_that_dies_is_started_again_and_all_are_stopped(make: Make) -> None:
    heard: list[dict[str, int]] = []
    first, second = make(WAITS), make(WAITS)
    supervisor = Supervisor([first, second], on_change=lambda pids: heard.append(dict(pids)))
    supervisor.start()
    before = supervisor.pids
    assert heard == [before]
    first.child.kill()
    wait_until(lambda: supervisor.restarts == 1, "it was started again")
    wait_until(lambda: len(heard) == 2, "and its new process id was reported")
    assert heard[1] == supervisor.pids
    assert supervisor.pids["process 0"] != before["process 0"]
    assert supervisor.pids["process 1"] == before["process 1"]
    supervisor.stop(together=True)
    assert [each.child.exit_code for each in (first, second)] == [-signal.SIGTERM] * 2
    supervisor.check()


def test_processes_that_are_released_run_on(make: Make) -> None:
    each = make(WAITS)
    supervisor = Supervisor([each])
    supervisor.start()
    supervisor.release()
    assert each.child.running


def test_a_configuration_error_at_the_first_start_is_reported_with_the_reason(make: Make) -> None:
    supervisor = Supervisor([make("import sys; print('psephos: PSEPHOS_HOST is wrong'); sys.exit(2)")])
    supervisor.start()
    wait_until(lambda: supervisor._failure is not None, "it is given up")
    with pytest.raises(RoleFailed, match=r"^process 0: PSEPHOS_HOST is wrong$"):
        supervisor.check()
    supervisor.stop()


def test_a_configuration_error_of_a_later_start_is_tried_again(make: Make, tmp_path: Path) -> None:
    """A server that is unavailable at a restart is no reason to give up."""
    mark = tmp_path / "started"
    program = (
        f"import pathlib, sys; mark = pathlib.Path({str(mark)!r}); sys.exit(2 if mark.exists() else mark.touch())"
    )
    supervisor = Supervisor([make(program)])
    supervisor.start()
    wait_until(lambda: supervisor.restarts >= 3, "it is started again and again")
    supervisor.check()
    supervisor.stop()
