"""From capacity to pods: the figures of docs/architecture.md, and what holds for any capacity."""

from hypothesis import given
from hypothesis import strategies as st

from psephos.domain.session import Capacity, partitions_for
from psephos.domain.sizing import figures
from psephos.domain.sizing.pods import (
    MAX_PODS,
    SERVE_MEMORY,
    SMALL_VOTES_PER_SECOND,
    VOTES_PER_INGEST,
    VOTES_PER_TALLY,
    Sizes,
    sizes,
)

MEMORY_LIMIT = 2  # of a pod, times what it asks for


def of(votes: int, viewers: int, parallelism: int = 4) -> Sizes:
    capacity = Capacity.model_validate({"votesPerSecond": votes, "viewers": viewers})
    return sizes(capacity, partitions_for(capacity), parallelism)


def test_a_television_final_has_the_size_of_the_architecture() -> None:
    found = of(250_000, 1_000_000)
    assert not found.small
    assert 25 <= found.ingest.replicas <= 40, "cores of ingest"
    assert 3 <= found.tally.replicas <= 4
    assert found.gateway.replicas * 20_000 >= 1_000_000
    assert 30 <= found.gateway.replicas * found.gateway.cpu / 1_000 <= 45, "cores of gateways"
    assert found.write_units == 8_000


def test_a_poll_in_a_team_is_one_small_pod() -> None:
    found = of(10, 20)
    assert found.small
    assert found.serve.cpu <= 300
    assert found.serve.memory <= 300


def test_the_largest_small_pod_may_rebuild_the_store_of_five_million_voters() -> None:
    found = of(SMALL_VOTES_PER_SECOND, 1)
    assert found.small
    assert MEMORY_LIMIT * found.serve.memory >= SERVE_MEMORY + 438, "what a rebuild takes: docs/benchmarks"


@given(votes=st.integers(1, 10**7), viewers=st.integers(1, 10**8), parallelism=st.integers(1, 64))
def test_whatever_the_capacity_numbers_stay_within_bounds(votes: int, viewers: int, parallelism: int) -> None:
    capacity = Capacity.model_validate({"votesPerSecond": votes, "viewers": viewers})
    partitions = partitions_for(capacity)
    found = sizes(capacity, partitions, parallelism)
    assert 1 <= found.tally.replicas <= found.tally.most <= partitions
    assert 1 <= found.recount.replicas <= partitions
    for pods in (found.ingest, found.gateway):
        assert 2 <= pods.replicas <= pods.most <= MAX_PODS


def test_a_pod_at_its_share_of_the_peak_is_half_busy_by_what_was_measured() -> None:
    for votes, micros in ((VOTES_PER_INGEST, figures.INGEST_MICROS), (VOTES_PER_TALLY, figures.TALLY_MICROS)):
        assert 0.2 < votes * micros.value / 1_000_000 <= figures.LOAD
