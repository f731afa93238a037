"""How many histories are explored, from which seed, and a table of what came of it."""

from collections.abc import Callable, Mapping

import pytest


@pytest.fixture
def histories(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--histories"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--seed"))


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to the table at the end. It goes with the test's report, also from another process."""
    return lambda line: request.node.user_properties.append(("model", line))


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[Mapping[str, int]], None]:
    """Adds figures by name to the table's own, which are the sums over all tests."""
    return lambda seen: request.node.user_properties.append(("model figures", dict(seen)))
