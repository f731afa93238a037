"""The conftest of an inner run: the guards and the scheduler of the tests around it, and a process that dies."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from tests import guards, scheduling
from tests.guards import worker

worker.MARGIN_S = 1.0
WHEN, NUMBER = os.environ.get("WHEN"), os.environ.get("NUMBER", "")


def die(when: str) -> None:
    """Only a process of a parallel run, and only at the time that the outer test chose."""
    if when == WHEN and "PYTEST_XDIST_WORKER" in os.environ:
        Path("died").touch()
        os.kill(os.getpid(), signal.Signals[NUMBER])


def pytest_configure(config: pytest.Config) -> None:
    guards.install(config)
    config.pluginmanager.register(scheduling)
    config.pluginmanager.register(Between())


def pytest_collection() -> None:
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
        die("collecting")


def pytest_unconfigure() -> None:
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
        die("after its end")


class Between:
    """Outside of all that the guards do."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        done = yield
        if item.name == "test_that_starts_processes":
            die("between tests")
        return done
