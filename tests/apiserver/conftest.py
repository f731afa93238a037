"""One real API server, and a namespace of its own for each test. Kafka, Redis and DynamoDB Local are the run's."""

import re
import uuid
from collections.abc import Iterator

import pytest
from tests.apiserver.cluster import Cluster


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The shared API server, ready, with every definition installed."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> str:
    """A new namespace."""
    test = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40]
    return cluster.create_namespace(f"{test}-{uuid.uuid4().hex[:6]}")
