"""A test process that dies ends the run, which failed: none takes its place, none gets its tests.

NB: with a replacement, `LoadScopeScheduling` of xdist hands out all files that the dead process ever had, also the
finished ones. A process that is given one of those has nothing to run and never reports back: the run hangs.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.guards import leftovers
from tests.guards.worker import FOLDER, LEADER, OUTPUTS, read_state
from xdist.workermanage import NodeManager

LAST_LINES = 80  # of each output
LOOK_S = 0.5
STACKS_S = 5.0  # for a hung process to write where its threads stand
EXIT_S = 45.0  # for a process that has finished its tests; xdist kills it after that
GRACE_S = 15.0  # for the other processes to end their servers in order


class Watch:
    """A plugin of the process that leads a parallel run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._folder = Path(tempfile.mkdtemp(prefix="psephos-test-processes-"))
        self._nodes: list[Any] = []
        self._why = ""  # the run is ended
        self._hung: dict[str, float] = {}
        self._kill_at = float("inf")
        self._late: list[str] = []
        self._over = threading.Event()
        config.option.maxworkerrestart = "0"
        NodeManager.EXIT_TIMEOUT = EXIT_S
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[FOLDER] = str(self._folder / node.gateway.id)
        node.workerinput[LEADER] = os.getpid()
        self._nodes.append(node)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        if error and error != "keyboard-interrupt" and not self._why:
            self._why = f"test process {self._how(node)}"
            self._report(node)
            self._end_others(node)
        if self._why:
            self._config.pluginmanager.getplugin("dsession").shouldstop = self._why

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        """xdist guesses which tests a process ran: they are not failed, but were not run to their end."""
        report.outcome = "interrupted"  # type: ignore[assignment]

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        return ("interrupted", "i", "INTERRUPTED") if str(report.outcome) == "interrupted" else None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._over.set()
        if session.exitstatus != pytest.ExitCode.INTERRUPTED and not self._why:
            self._late = [self._full(node) for node in self._nodes if _ended(node) != 0]
        if self._late and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if session.exitstatus == pytest.ExitCode.OK:
            shutil.rmtree(self._folder, ignore_errors=True)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._late:
            terminalreporter.section("test processes that died at their end: the run failed", red=True)
            terminalreporter.write_line("\n".join(self._late))
        if self._folder.exists():
            terminalreporter.write_line(f"last output of each test process: {self._folder}")
            terminalreporter.write_line(f"logs of roles, by test: {self._config._tmp_path_factory.getbasetemp()}")  # type: ignore[attr-defined]

    # --- Of one process

    def _how(self, node: Any) -> str:
        """Which one, how it ended, and what it did."""
        state = read_state(self._folder / node.gateway.id)
        hung = ", which took too long: it was killed" if node.gateway.id in self._hung else ""
        number, code = _process(node).pid, ending(_ended(node))
        return f"{node.gateway.id} (process {number}) {code} {state.doing}{hung}"

    def _full(self, node: Any) -> str:
        return f"test process {self._how(node)}\n{last_output(self._folder / node.gateway.id)}"

    def _report(self, node: Any) -> None:
        name = read_state(self._folder / node.gateway.id).test or node.gateway.id
        place = (name.partition("::")[0], None, name)
        report = pytest.TestReport(name, place, {}, "failed", self._full(node), "call")
        report.node = node  # type: ignore[attr-defined]
        self._config.hook.pytest_runtest_logreport(report=report)

    def _end_others(self, dead: Any) -> None:
        self._kill_at = time.monotonic() + GRACE_S
        for node in self._nodes:
            if node is not dead and _process(node).poll() is None:
                _process(node).send_signal(signal.SIGINT)

    # --- Beside the run

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            for node in list(self._nodes):
                self._look_at(node)

    def _look_at(self, node: Any) -> None:
        name, process = node.gateway.id, _process(node)
        until = read_state(self._folder / name).until
        now = time.monotonic()
        if (code := process.poll()) is not None:
            if code != 0:  # NB: a child that holds the other end of its pipe would hide that it is dead
                run = node.workerinput["testrunuid"]
                leftovers.end_orphans_of({"PYTEST_XDIST_WORKER": name, "PYTEST_XDIST_TESTRUNUID": run})
        elif now > self._kill_at or now > self._hung.get(name, now) + STACKS_S:
            process.kill()
        elif until is not None and now > until and name not in self._hung:
            self._hung[name] = now
            process.send_signal(signal.SIGABRT)  # `faulthandler` writes the stacks
            process.send_signal(signal.SIGCONT)  # a paused one too


def last_output(folder: Path) -> str:
    """The ends of all that a test process wrote, each with its name."""
    parts = []
    for name in OUTPUTS:
        text = (folder / name).read_text(errors="replace") if (folder / name).exists() else ""
        if text.strip():
            parts += [f"--- {name}: {folder / name}", *text.splitlines()[-LAST_LINES:]]
    return "\n".join(parts) or "It wrote nothing."


def ending(code: int) -> str:
    """An exit code in words: `died by SIGABRT`."""
    return f"died by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _process(node: Any) -> subprocess.Popen[bytes]:
    process: subprocess.Popen[bytes] = node.gateway._io.popen
    return process


def _ended(node: Any) -> int:
    """The exit code; a process that said its last word and does not end is killed."""
    with suppress(subprocess.TimeoutExpired):
        return _process(node).wait(STACKS_S)
    _process(node).kill()
    return _process(node).wait()
