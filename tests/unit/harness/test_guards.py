"""What the guards of a run conclude from process tables, exit codes and files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.guards.deaths import LAST_LINES, ending, last_output
from tests.guards.leftovers import BOUND, command, descendants, describe, end_orphans_of, parents
from tests.guards.worker import STATE, State, read_state, time_limit
from tests.waiting import wait_until

WAIT = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_descendants_are_found_at_any_remove_and_nobody_else_is() -> None:
    assert descendants(10, {10: 1, 11: 10, 12: 11, 13: 12, 20: 1, 21: 20}) == [11, 12, 13]
    assert descendants(30, {10: 1, 11: 10}) == []


@pytest.mark.parametrize(
    ("code", "words"), [(-6, "died by SIGABRT"), (-9, "died by SIGKILL"), (3, "ended with exit code 3")]
)
def test_an_exit_code_is_told_in_words(code: int, words: str) -> None:
    assert ending(code) == words


def test_the_last_lines_of_each_output_are_shown_and_silence_is_said(tmp_path: Path) -> None:
    assert last_output(tmp_path) == "It wrote nothing."
    (tmp_path / "stdout").write_text("".join(f"line {number}\n" for number in range(LAST_LINES + 1)))
    (tmp_path / "stderr").write_text(" \n")
    (tmp_path / "log").write_bytes(b"Fatal \xff\n")
    lines = last_output(tmp_path).splitlines()
    assert lines[:2] == [f"--- stdout: {tmp_path / 'stdout'}", "line 1"]
    assert lines[-3:] == [f"line {LAST_LINES}", f"--- log: {tmp_path / 'log'}", "Fatal \ufffd"]


def test_a_process_that_has_not_said_what_it_does_is_starting(tmp_path: Path) -> None:
    assert read_state(tmp_path) == State("while starting")
    (tmp_path / STATE).write_text('["while running a", 12.5, "a"]')
    assert read_state(tmp_path) == State("while running a", 12.5, "a")


@pytest.mark.timeout(123)
def test_a_tests_own_mark_says_how_long_it_may_take(request: pytest.FixtureRequest) -> None:
    assert time_limit(request.node) == 123


def test_without_a_mark_the_settings_say_it(request: pytest.FixtureRequest) -> None:
    assert time_limit(request.node) == float(request.config.getini("timeout")) > 0


def test_a_process_is_described_by_its_command_and_the_test_that_started_it() -> None:
    with subprocess.Popen([*BOUND, *WAIT]) as child:
        wait_until(lambda: command(child.pid).startswith(sys.executable), "it runs the wanted program")
        assert parents()[child.pid] == os.getpid()
        said = describe(child.pid)
        child.kill()
    assert f"process {child.pid}, started in {os.environ['PYTEST_CURRENT_TEST']}: {' '.join(WAIT)}" == said
    assert child.pid not in parents()
    assert command(child.pid) == ""


def test_of_the_processes_below_this_one_those_with_all_marks_are_ended() -> None:
    children = [
        subprocess.Popen([*BOUND, *WAIT], env={**os.environ, "MARK": mark, "RUN": run})
        for mark, run in (("one", "1"), ("one", "2"), ("two", "1"))
    ]
    try:
        wait_until(lambda: all(command(child.pid).startswith(sys.executable) for child in children), "all run")
        end_orphans_of({"MARK": "one", "RUN": "1"})
        assert children[0].wait(20) == -9
        assert [child.poll() for child in children[1:]] == [None, None]
    finally:
        for child in children:
            child.kill()
            child.wait()
