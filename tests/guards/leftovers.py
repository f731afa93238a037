"""Processes that were started by a test and still run when they should not.

The process that leads a run adopts whatever loses its parent, so that all that the run started is found below it,
at whatever remove. Linux only; elsewhere nothing is found.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from psephos.platform.forkserver import linux

GRACE_S = 5.0  # for what was asked to end and has not ended yet
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
BOUND = ("setpriv", "--pdeathsig", "KILL", "--") if sys.platform == "linux" else ()
"""Before the command of a process that a test starts by itself: the kernel kills it when its parent dies.

NB: its parent is the thread that started it.
"""
_ENDED = "ZX"  # states: waits to be reaped, is gone
_TRACKER = "multiprocessing.resource_tracker"  # Python's own helper: it ends with the process that it serves


class Leftovers:
    """A plugin of the process that leads a run and ends last: it names what is left, ends it, fails the run."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.found += end_all()
        if self.found and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object, error: object) -> None:
        """What another process of the run found at its own end."""
        self.found += getattr(node, "workeroutput", {}).pop("leftovers", [])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.found:
            terminalreporter.section("processes left running: the run failed", red=True)
            terminalreporter.write_line("\n".join(self.found))


def adopt_orphans() -> None:
    """From now on a process whose parent died, and that descends from this one, becomes a child of this one."""
    if sys.platform == "linux":
        linux.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(parent: int) -> None:
    """From now on the kernel kills this process when the one that started it ends.

    `parent`: its process id; it may have ended already.
    """
    if sys.platform == "linux":
        try:
            linux.end_with_parent(parent)
        except linux.ParentGone:
            os.kill(os.getpid(), signal.SIGKILL)


def end_all(grace_s: float = GRACE_S) -> list[str]:
    """Kills what still runs below this process after a grace; a line for each."""
    deadline = time.monotonic() + grace_s
    while (left := _left()) and time.monotonic() < deadline:
        time.sleep(0.05)
    found = [describe(pid) for pid in left]
    while left:  # a killed one may have started another in the last moment
        kill(left)
        left = _left()
    return found


def _left() -> list[int]:
    return [pid for pid in descendants(os.getpid(), parents()) if _TRACKER not in command(pid)]


def end_orphans_of(marks: Mapping[str, str]) -> None:
    """Kills what runs below this process and has these variables in its environment."""
    wanted = [f"{name}={value}" for name, value in marks.items()]
    kill(pid for pid in descendants(os.getpid(), parents()) if set(wanted) <= set(environment(pid)))


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def parents() -> dict[int, int]:
    """The parent of each process of this machine that has not ended."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        state, parent = _state_and_parent(int(folder.name))
        if state not in _ENDED:
            found[int(folder.name)] = parent
    return found


def runs(pid: int) -> bool:
    """Whether a process has not ended; on Linux, one that only waits to be reaped has."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return sys.platform != "linux" or _state_and_parent(pid)[0] not in _ENDED
    return False


def _state_and_parent(pid: int) -> tuple[str, int]:
    """As /proc has them (proc_pid_stat(5)); of a process that is gone, that it has ended."""
    state, parent, *_ = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split() or ("X", "0")
    return state, int(parent)


def descendants(root: int, parents: Mapping[int, int]) -> list[int]:
    """All processes below one, itself not among them, the oldest generation first."""
    found: list[int] = []
    generation = [root]
    while generation:
        generation = [pid for pid, parent in parents.items() if parent in generation]
        found += generation
    return found


def describe(pid: int) -> str:
    """What a person needs to find where it was started."""
    test = next((each for each in environment(pid) if each.startswith("PYTEST_CURRENT_TEST=")), "")
    by = f", started in {test.partition('=')[2]}" if test else ""
    return f"process {pid}{by}: {command(pid)[:300]}"


def command(pid: int) -> str:
    """Its arguments, with spaces between; empty where it is gone."""
    return _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()


def environment(pid: int) -> list[str]:
    """`name=value` as the process was started with; empty where it is gone or hides it."""
    return _read(Path(f"/proc/{pid}/environ")).split("\0")


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""
