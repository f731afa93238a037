"""One cluster with the product in it for all tests of this folder; tables of times at the end."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser
from tests import guards
from tests.integration.browsing import chromium

from e2e import sessions
from e2e.certificates import Authority
from e2e.deploy import Images, deploy
from e2e.kube import ROOT, Watch, items, kubectl
from e2e.reader import Reader
from e2e.report import Report

_OURS = "psephos.dev/e2e"
_report = Report(ROOT / "build" / "e2e" / "report.md")


def pytest_configure(config: pytest.Config) -> None:
    guards.forbid_skips(config)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _report.lines():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def report() -> Report:
    return _report


@pytest.fixture(scope="session")
def images(report: Report) -> Images:
    """The product in the cluster, as `make demo-cluster` has it, but with TLS. What runs before left is to go."""
    watch = Watch()
    images = deploy()
    report.note("cluster, images, chart", watch.seconds)
    _forget_runs_before()
    return images


def _forget_runs_before() -> None:
    for namespace in items("namespaces", selector=_OURS):
        kubectl("delete", "namespace", namespace["metadata"]["name"], "--wait=false")


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def reader(images: Images) -> Reader:
    reader = Reader(images["psephos"])
    reader.start()
    return reader


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def place(images: Images, authority: Authority) -> Iterator[Callable[[str], str]]:
    """Makes namespaces for sessions, of this run alone; takes them away at its end."""
    made: list[str] = []
    run = secrets.token_hex(2)

    def make(purpose: str) -> str:
        name = f"{purpose}-{run}"
        made.append(name)
        sessions.place(name, authority)
        kubectl("label", "namespace", name, f"{_OURS}=run")
        return name

    yield make
    if not os.environ.get("KEEP"):
        for name in made:
            kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def namespace(place: Callable[[str], str], request: pytest.FixtureRequest) -> str:
    """One for the sessions of a file."""
    return place(request.module.__name__.rpartition(".")[2].removeprefix("test_").replace("_", "-"))


@pytest.fixture(scope="module", autouse=True)
def timed(request: pytest.FixtureRequest, images: Images, report: Report) -> Iterator[None]:
    watch = Watch()
    yield
    report.note(request.module.__name__.rpartition(".")[2], watch.seconds)
