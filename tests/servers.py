"""Kafka, Redis and DynamoDB Local for all processes of a parallel run: started once, ended with it."""

import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.waiting import READY_S

from psephos_lab.servers import Backends

INPUT = "psephos servers"


class Servers(NamedTuple):
    """Where they are; whoever kills or pauses one needs `Backends` of its own."""

    kafka_bootstrap: str
    redis_url: str
    dynamodb_endpoint: str


class ForAll:
    """A plugin of the process that hands out the tests: it tells the others where the servers are."""

    def __init__(self) -> None:
        self._running: Backends | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        if self._running is None:
            self._running = Backends(Path(tempfile.mkdtemp(prefix="psephos-tests-")), dynamodb_in_memory=True)
            self._running.start(READY_S)
        names = Servers._fields
        node.workerinput[INPUT] = {name: getattr(self._running, name) for name in names}

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self._running is None:
            return
        self._running.stop()
        if exitstatus == pytest.ExitCode.OK:  # else somebody may want to read their logs
            shutil.rmtree(self._running.folder, ignore_errors=True)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._running is not None and self._running.folder.exists():
            terminalreporter.write_line(f"logs of the shared servers: {self._running.folder}")


def told(config: pytest.Config) -> Servers | None:
    """The servers of a parallel run, in one of its processes."""
    servers = getattr(config, "workerinput", {}).get(INPUT)
    return Servers(**servers) if servers else None
