"""The histogram that is fed in bulk tells what prometheus-client's own tells."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from psephos.platform.histogram import BulkHistogram

BOUNDS = (0.002, 0.5, 1.0, 10.0)
VALUES = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 100))


@given(st.lists(st.lists(VALUES, max_size=20), max_size=5))
def test_it_tells_what_the_library_s_own_tells(observed: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    bulk = BulkHistogram("acks", "How long.", BOUNDS, ours)
    single = Histogram("acks", "How long.", buckets=BOUNDS, registry=theirs)
    for values in observed:
        bulk.observe(values)
        for value in values:
            single.observe(value)
    assert samples(ours) == samples(theirs)


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """Without the moment of its making, and sums as far as their order of adding leaves them alone."""
    lines = [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
    return {line.rpartition(" ")[0]: round(float(line.rpartition(" ")[2]), 6) for line in lines if line[:1] != "#"}
