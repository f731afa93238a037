"""The metrics of one role. Processes that are forked from one another have all roles' modules, and show one's."""

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector


def role_registry() -> CollectorRegistry:
    """A registry that has what Prometheus's own client shows of every process: CPU, memory, Python's version.

    These figures are read at each scrape: in a forked process they are its own.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
