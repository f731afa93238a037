"""Settings for every test, and the options of the suites that prove more the longer they run."""

import os
import re
import secrets
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from tests import guards, roles, scheduling, servers
from tests.faults import report

from psephos.adapters.kafka import admin_process
from psephos_lab.servers import Backends

LAST_LINES = 80  # of the log of a role

# Shared machines have slow moments: a property is judged by its answer, not by the clock.
settings.register_profile("psephos", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=20)  # `make test-fast`
settings.load_profile("psephos")


def pytest_addoption(parser: pytest.Parser) -> None:
    suites = parser.getgroup("psephos")
    suites.addoption("--all-faults", action="store_true", help="the whole fault suite, not only the selection")
    suites.addoption(
        "--all-elections", action="store_true", help="all five real elections, and faults in the largest"
    )
    suites.addoption("--histories", default=1_000, type=int, help="how many histories the model check explores")
    suites.addoption("--write-golden", action="store_true", help="write the operator's golden files anew")
    suites.addoption("--seed", default=secrets.token_hex(4), help="of everything that the fault suite draws")


def pytest_configure(config: pytest.Config) -> None:
    keep_bytecode()
    config.addinivalue_line("markers", "long: a shorter test proves the same: only with --all-faults")
    guards.install(config)
    config.pluginmanager.register(scheduling)
    if config.getoption("dist", "no") == "loadfile":
        config.pluginmanager.register(servers.ForAll())


def keep_bytecode() -> None:
    """For this process and all that it starts, also where the environment forbids it, as images of containers do.

    Hundreds of processes start from the same files here, and each of them would compile these again.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes minutes is run by `make faults`, `make elections` and `make long` only."""
    items.sort(key=lambda item: scheduling.rank(item.nodeid))
    if not (config.getoption("--all-faults") or config.getoption("--all-elections")):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_sessionfinish() -> None:
    """Before the guards look for what is left: what serves all tests of this process ends with them."""
    roles.end_fork_servers()
    admin_process.shared.end()


@pytest.fixture(scope="session")
def backends(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backends | servers.Servers]:
    """One Kafka, Redis and DynamoDB Local for the whole run: ``.kafka_bootstrap``, ``.redis_url`` and so on.

    Every test names its topics, tables, keys and groups with ``unique``, or after a session's uid. A test that
    kills or pauses a server starts a stack of its own instead.
    """
    if (running := servers.told(request.config)) is not None:
        yield running
        return
    with Backends(tmp_path_factory.mktemp("backends"), dynamodb_in_memory=True) as own:
        yield own


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a role said last that did not start, beside the line that names its log."""
    told = yield
    for path in re.findall(r"\(log: (\S+\.log)\)", told.longreprtext if told.failed else ""):
        if Path(path).is_file():
            lines = Path(path).read_text(errors="replace").splitlines()
            told.sections.append((f"the end of {path}", "\n".join(lines[-LAST_LINES:])))
    return told


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What the suites of faults and of the model found.

    NB: here, because with two processes at a time the one that reports may have loaded no other conftest.
    """
    seed = config.getoption("--seed")
    outcomes = [report.Outcome(**found) for found in _told(terminalreporter, report.PROPERTY)]
    if outcomes:
        report.write(outcomes, seed, config.rootpath / "build" / "faults")
        terminalreporter.section(f"faults (seed {seed}; run again with --seed {seed})")
        terminalreporter.write_line(report.table(outcomes))
    figures: Counter[str] = sum((Counter(each) for each in _told(terminalreporter, "model figures")), Counter())
    lines = [f"{number:>9} {name}" for name, number in figures.items()]
    lines += _told(terminalreporter, "model")
    if lines:
        terminalreporter.section(f"model check (seed {seed}; run again with --seed {seed})")
        terminalreporter.write_line("\n".join(lines))


def _told(terminalreporter: pytest.TerminalReporter, name: str) -> Iterator[Any]:
    """The properties of this name that tests left in their reports."""
    for each in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        if getattr(each, "when", None) == "call":
            yield from (value for found, value in each.user_properties if found == name)
