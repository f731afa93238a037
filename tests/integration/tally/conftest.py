"""A session on the shared servers, with genesis and topics, and tally workers as real processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.harness import Running

from psephos_lab.servers import Backends


@pytest.fixture
def running(
    backends: Backends, unique: Callable[[str], str], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Running]:
    """A session where the first ballot counts; parametrize with voters' settings for another."""
    session = Running(backends, unique("s")[-40:], tmp_path, **getattr(request, "param", {}))
    yield session
    session.stop_workers()
