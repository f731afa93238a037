"""Which process of a parallel run gets which tests: those that share servers go to one, and long ones go first."""

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/apiserver/", "tests/faults/")
"""Folders with servers of their own (an API server, three brokers): one process runs each, so they start once."""
FIRST = (*TOGETHER, "tests/integration/elections/", "tests/integration/", "tests/model/")
"""What takes longest is not begun last."""


def rank(path: str) -> int:
    """When the tests of a file are handed out, lowest first."""
    return next((number for number, folder in enumerate(FIRST) if path.startswith(folder)), len(FIRST))


class ByServers(LoadScopeScheduling):  # type: ignore[misc]
    """By file, but for folders whose tests stay together."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if path.startswith(folder)), path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByServers | None:
    """Only where tests are handed out by file: `make faults` spreads its own differently."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return ByServers(config, log)
