"""The command file: one controller, one command at a time, and whatever dies in between."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.waiting import PATIENCE_S, wait_until

from psephos.control import CommandFile, DesiredState, LifecycleError, NotAcknowledged, apply_commands
from psephos.control.desired_state import commands_of
from psephos.formats.control import Control, Phase
from psephos.platform.clock import now_ms

OPEN = Control(phase=Phase.OPEN, number=1)
Decide = Callable[[Control, DesiredState], Control]


def obedient(control: Control, desired: DesiredState) -> Control:
    return apply_commands(control, commands_of(control, desired), now_ms(), closing=False).control


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "commands"


@contextmanager
def controlled(folder: Path, control: Control = OPEN, decide: Decide = obedient) -> Iterator[list[Control]]:
    """A controller without a log: it observes, decides and acknowledges. Yields its states."""
    stop, states = threading.Event(), [control]

    def run() -> None:
        file = CommandFile(folder, "lunch")
        with file.held():
            while not stop.is_set():
                pending = file.pending()
                known = decide(states[-1], pending.desired)
                if known != states[-1]:
                    states.append(known)
                file.acknowledge(pending.number, known, closing=False)
                while not stop.wait(0.01) and not file.waiting():
                    pass

    with ThreadPoolExecutor(1) as pool:
        controlling = pool.submit(run)
        try:
            wait_until(CommandFile(folder, "lunch").running, "the controller runs")
            yield states
        finally:
            stop.set()
        controlling.result(PATIENCE_S)


def test_a_command_is_carried_out_and_acknowledged(folder: Path) -> None:
    with controlled(folder) as states:
        file = CommandFile(folder, "lunch")
        assert file.give(DesiredState(paused=True)).phase is Phase.PAUSED
        assert file.give(DesiredState(paused=True)).phase is Phase.PAUSED
        assert file.give(DesiredState(paused=False)).phase is Phase.OPEN
    assert [state.phase for state in states] == [Phase.OPEN, Phase.PAUSED, Phase.OPEN]
    assert not file.running()


def test_a_command_that_can_not_be_carried_out_is_not_written(folder: Path) -> None:
    with controlled(folder, Control(phase=Phase.CLOSING, number=3)):
        file = CommandFile(folder, "lunch")
        with pytest.raises(LifecycleError, match=r"^lunch: the session is Closing: voting is over$"):
            file.give(DesiredState(paused=True))
        assert file.pending().number == 0


def test_a_command_that_comes_too_late_is_taken_back(folder: Path) -> None:
    """Voting ended between the check of the session and the command."""

    def ending(control: Control, desired: DesiredState) -> Control:
        return Control(phase=Phase.CLOSING, number=2) if desired.paused else control

    with controlled(folder, decide=ending):
        file = CommandFile(folder, "lunch")
        with pytest.raises(LifecycleError, match="voting is over"):
            file.give(DesiredState(paused=True))
        assert file.pending().desired == DesiredState()


def test_what_is_sealed_is_not_void_though_its_phase_does_not_say_so_yet(folder: Path) -> None:
    with controlled(folder, Control(phase=Phase.RECOUNTING, number=4), lambda control, _desired: control):
        file = CommandFile(folder, "lunch")
        with pytest.raises(LifecycleError, match="its result is sealed, and stands"):
            file.give(DesiredState(void="too late"))
        assert file.pending().desired == DesiredState()


def test_what_was_commanded_stands_until_a_controller_takes_it(folder: Path) -> None:
    with controlled(folder):
        pass
    file = CommandFile(folder, "lunch")
    with pytest.raises(NotAcknowledged, match="does not run"):
        file.give(DesiredState(paused=True))
    with file.held(), pytest.raises(NotAcknowledged, match="is busy; the command stands"):
        CommandFile(folder, "lunch").give(DesiredState(paused=True), timeout_s=0.1)
    with controlled(folder) as states:
        wait_until(lambda: states[-1].phase is Phase.PAUSED, "the command is taken at the next start")


def test_a_controller_that_goes_away_is_reported_at_once(folder: Path) -> None:
    with controlled(folder):
        pass
    file, submitter = CommandFile(folder, "lunch"), CommandFile(folder, "lunch")
    with ThreadPoolExecutor(1) as pool:
        with file.held():
            giving = pool.submit(submitter.give, DesiredState(paused=True), PATIENCE_S)
            wait_until(lambda: file.pending().number == 1, "the command is there")
        with pytest.raises(NotAcknowledged, match="was stopped; the command stands"):
            giving.result(PATIENCE_S)


def test_there_is_one_controller(folder: Path) -> None:
    with (
        controlled(folder),
        pytest.raises(LifecycleError, match="another controller runs"),
        CommandFile(folder, "lunch").held(),
    ):
        pass


def test_commands_given_at_once_are_all_carried_out(folder: Path) -> None:
    later = now_ms() + 3_600_000
    commands = [
        DesiredState(paused=True),
        DesiredState(closes_at=later),
        DesiredState(paused=True),
        DesiredState(closes_at=later),
    ]
    with controlled(folder) as states, ThreadPoolExecutor(len(commands)) as pool:
        list(pool.map(lambda command: CommandFile(folder, "lunch").give(command), commands))
    assert (states[-1].phase, states[-1].closes_at) == (Phase.PAUSED, later)


def test_numbers_go_on_when_the_commands_were_deleted(folder: Path) -> None:
    with controlled(folder) as states:
        file = CommandFile(folder, "lunch")
        file.give(DesiredState(paused=True))
        (folder / "desired.json").unlink()
        assert file.give(DesiredState(paused=False)).phase is Phase.OPEN
        assert states[-1].phase is Phase.OPEN


def test_commands_that_can_not_be_read_are_none(folder: Path) -> None:
    with controlled(folder) as states:
        (folder / "desired.json").write_text('{"number": 5, "desired": {"paused": "perhaps"}}')
        file = CommandFile(folder, "lunch")
        assert not file.waiting()
        assert file.give(DesiredState(paused=True)).phase is Phase.PAUSED
        assert len(states) == 2


def test_a_session_that_has_ended_says_so_without_a_controller(folder: Path) -> None:
    with controlled(folder, Control(phase=Phase.VOID, number=4, reason="fire")):
        wait_until(lambda: CommandFile(folder, "lunch").acknowledged() is not None, "it is acknowledged")
    file = CommandFile(folder, "lunch")
    with pytest.raises(LifecycleError, match="the session is Void: voting is over"):
        file.give(DesiredState(paused=True))
    assert file.give(DesiredState(void="water")).reason == "fire", "it is void, whoever asks again"
