"""A test process of a parallel run: it says what it does, and keeps what it writes where its end does not take it.

Output that pytest captures is kept in a file that has no name and is gone with the process; so is what a C library
says before it aborts. Here both have names, in a folder of this process.
"""

import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest
from _pytest.capture import FDCapture
from tests.guards import leftovers

FOLDER = "psephos folder"
LEADER = "psephos leader"
STATE = "state"
OUTPUTS = ("stdout", "stderr", "log")
"""What the test under way wrote so far; what the process wrote beside its tests, stacks of a crash among it."""
START_S = 600.0  # to load and collect all tests, on a machine that is busy
END_S = 300.0  # to end the servers that the process started
MARGIN_S = 120.0  # over a test's own time limit, which ends it in most cases, and then its fixtures are torn down


class State(NamedTuple):
    """What a test process does."""

    doing: str
    until: float | None = None
    """`time.monotonic()` by which it should do something else; None: it may be waiting for work."""
    test: str = ""
    """The one under way."""


class Worker:
    """A plugin of a test process."""

    def __init__(self, config: pytest.Config, folder: str) -> None:
        self._config = config
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        leftovers.end_with_parent(config.workerinput[LEADER])  # type: ignore[attr-defined]
        _keep_output(config, self._folder)
        self._say("while starting", START_S)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        self._say("before its first test")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        limit = time_limit(item)
        self._say(f"while running {item.nodeid}", limit + MARGIN_S if limit else None, item.nodeid)
        try:
            return (yield)
        finally:
            self._say(f"between tests, after {item.nodeid}")

    @pytest.hookimpl(tryfirst=True, specname="pytest_sessionfinish")
    def pytest_begin_to_end(self) -> None:
        self._say("while ending", END_S)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        self._config.workeroutput["leftovers"] = leftovers.end_all()  # type: ignore[attr-defined]

    def _say(self, doing: str, limit_s: float | None = None, test: str = "") -> None:
        until = None if limit_s is None else time.monotonic() + limit_s
        new = self._folder / f"{STATE}.new"
        new.write_text(json.dumps(State(doing, until, test)))
        new.replace(self._folder / STATE)


def read_state(folder: Path) -> State:
    """What the process of this folder does."""
    try:
        return State(*json.loads((folder / STATE).read_text()))
    except FileNotFoundError:
        return State("while starting")


def time_limit(item: pytest.Item) -> float:
    """Seconds that a test may take by its own mark or by the settings; 0: any."""
    mark = item.get_closest_marker("timeout")
    if mark is not None:
        return float(mark.args[0] if mark.args else mark.kwargs.get("timeout", 0))
    return float(item.config.getini("timeout") or 0)


def _keep_output(config: pytest.Config, folder: Path) -> None:
    """NB: pytest captures nothing at this time; when it does, it puts these files in place of descriptors 1, 2."""
    out, err, log = (os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for name in OUTPUTS)
    os.dup2(log, 2)
    capture = config.pluginmanager.getplugin("capturemanager")._global_capturing
    if isinstance(capture.err, FDCapture):  # not with `-s`
        os.dup2(out, capture.out.tmpfile.fileno())
        os.dup2(err, capture.err.tmpfile.fileno())
        os.dup2(log, capture.err.targetfd_save)
