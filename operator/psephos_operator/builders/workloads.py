"""The workloads that run a session: one pod for a small one, one workload per role for a large one. Pure."""

from typing import Any

from psephos.domain.sizing import STORE_GIB
from psephos_operator.builders.meta import RESULTS_LABEL, VOTES_LABEL, Manifest, child, selector
from psephos_operator.builders.plan import Api, Plan
from psephos_operator.builders.pods import ADMIN_PORT, DATA, GATEWAY_PORT, INGEST_PORT, Role, template
from psephos_operator.builders.secrets import Access

_ADMIN = ("admin", ADMIN_PORT)


def roles(plan: Plan) -> tuple[Role, ...]:
    """Returns the roles that run in this phase. Ingest itself refuses votes, so it stays to do so."""
    sizes = plan.sizes
    if sizes.small:
        return (_serve(plan),)
    ingest = Role(
        "ingest",
        sizes.ingest,
        ("ingest",),
        (("votes", INGEST_PORT), _ADMIN),
        drain_s=55,
        published=(VOTES_LABEL,),
        takes_votes=True,
        stores=plan.session.roll_in_store,
    )
    tally = Role(
        "tally",
        sizes.tally,
        ("tally",),
        (_ADMIN,),
        drain_s=55,
        keeps=plan.settings.tally_volume == "persistent",
    )
    projector = Role("projector", sizes.projector, ("projector",), (_ADMIN,), drain_s=15, projects=True)
    gateway = Role(
        "gateway",
        sizes.gateway,
        ("gateway",),
        (("results", GATEWAY_PORT), _ADMIN),
        drain_s=25,
        published=(RESULTS_LABEL,),
        projects=True,
    )
    return (ingest, *((tally,) if plan.counts else ()), projector, gateway)


def _serve(plan: Plan) -> Role:
    """Returns the role that runs all in one pod. NB: its processes have consecutive admin ports; probes ask
    ingest, which takes the votes."""
    return Role(
        "serve",
        plan.sizes.serve,
        ("serve",),
        (
            ("votes", INGEST_PORT),
            ("results", GATEWAY_PORT),
            _ADMIN,
            ("admin-gateway", ADMIN_PORT + 1),
            ("admin-project", ADMIN_PORT + 2),
            ("admin-tally", ADMIN_PORT + 3),
        ),
        drain_s=85,
        published=(VOTES_LABEL, RESULTS_LABEL),
        takes_votes=True,
        projects=True,
        stores=plan.session.roll_in_store,
    )


def autoscaled(plan: Plan, role: str) -> bool:
    """Returns whether an autoscaler owns the number of this role's pods."""
    if not plan.settings.autoscaling or plan.sizes.small or plan.ended:
        return False
    if role == "tally":
        return Api.KEDA in plan.apis and plan.sizes.tally.most > plan.sizes.tally.replicas
    return role in ("ingest", "gateway")


def workloads(plan: Plan, access: Access) -> list[Manifest]:
    """Returns Deployments, and a StatefulSet for the tally: its workers have ordinals and may keep volumes."""
    return [
        _stateful_set(plan, access, role) if role.name == "tally" else _deployment(plan, access, role)
        for role in roles(plan)
    ]


def _replicas(plan: Plan, role: Role) -> dict[str, int]:
    """Returns the number of replicas, left out if an autoscaler owns it: the two would fight."""
    if autoscaled(plan, role.name):
        return {}
    least = plan.ended and role.name == "ingest"
    return {"replicas": 1 if least else role.size.replicas}


def _deployment(plan: Plan, access: Access, role: Role) -> Manifest:
    alone = role.name in ("serve", "projector")
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}}
    spec: dict[str, Any] = {
        **_replicas(plan, role),
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": 600,
        "selector": {"matchLabels": selector(plan, role.name)},
        # Two pods of `serve` would take the same worker's ordinal from each other.
        "strategy": {"type": "Recreate"} if alone else rolling,
        "template": template(plan, access, role),
    }
    return child(plan, "apps/v1", "Deployment", role.name, role.name, spec=spec)


def _stateful_set(plan: Plan, access: Access, role: Role) -> Manifest:
    spec: dict[str, Any] = {
        **_replicas(plan, role),
        "revisionHistoryLimit": 3,
        "serviceName": plan.child("tally"),
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": selector(plan, role.name)},
        "template": template(plan, access, role),
    }
    if role.keeps:
        spec["volumeClaimTemplates"] = [_claim(plan)]
        # Its content can be rebuilt from the ledger.
        spec["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    return child(plan, "apps/v1", "StatefulSet", role.name, role.name, spec=spec)


def _claim(plan: Plan) -> dict[str, Any]:
    name = plan.settings.storage_class
    return {
        "metadata": {"name": DATA, "labels": selector(plan, "tally")},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            **({} if name is None else {"storageClassName": name}),
            "resources": {"requests": {"storage": f"{STORE_GIB}Gi"}},
        },
    }
