"""Builders: a plan goes in, manifests come out. Pure; one module per kind of thing, names are deterministic.

`build` puts together all that a session has in its present phase; what is no longer in it is pruned. It does not
include the Secrets of `builders.secrets` that are made once and never again.
"""

from psephos_operator.builders import config, jobs, monitoring, network, scaling, secrets, storage, workloads
from psephos_operator.builders.meta import Manifest
from psephos_operator.builders.plan import Plan
from psephos_operator.builders.secrets import Access

__all__ = ["Access", "Manifest", "build"]


def build(plan: Plan, access: Access) -> list[Manifest]:
    """Returns all manifests of a prepared session, in the order in which they are applied."""
    return [
        *storage.topics(plan),
        secrets.backends(plan, access),
        *scaling.authentication_secret(plan, access),
        config.session_file(plan),
        *network.services(plan),
        *network.policies(plan),
        *workloads.workloads(plan, access),
        *scaling.autoscalers(plan, access),
        *network.disruption_budgets(plan),
        *network.routes(plan),
        *jobs.jobs(plan, access),
        *monitoring.monitors(plan),
    ]
