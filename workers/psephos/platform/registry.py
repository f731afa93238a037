"""The metrics of one role. Forked processes contain all roles' modules, but expose the metrics of one."""

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector


def role_registry() -> CollectorRegistry:
    """A registry with what Prometheus's own client exposes for every process: CPU, memory, Python's version.

    These figures are read at each scrape: in a forked process they are its own.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
