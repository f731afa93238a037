"""What integration tests share: names that no other test uses, and an object store."""

import re
import uuid
from collections.abc import Callable, Iterator

import pytest
from tests.s3 import S3


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """The shared object store, ready; a test makes a bucket of its own."""
    folder = tmp_path_factory.mktemp("s3")
    server = S3(folder / "buckets", folder)
    server.start()
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture
def bucket(s3: S3) -> str:
    """A new bucket."""
    return s3.bucket(f"test-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Makes names that no other test uses, fit for topics, tables and groups: ``unique("votes")``."""
    test = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40]

    def name(what: str) -> str:
        return f"{what}-{test}-{uuid.uuid4().hex[:8]}"

    return name
