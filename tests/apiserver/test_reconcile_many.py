"""Two hundred sessions at once: how long until all are Ready, what that takes, and that they rest afterwards."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.apiserver.api import Manifest
from tests.apiserver.cluster import Cluster
from tests.apiserver.kubelet import all_available
from tests.apiserver.operators import SESSION, Operator, Owners, Vote, add_token_key
from tests.waiting import wait_until

from psephos_lab.servers import Backends

SESSIONS = 200
REST_S = 120
PATIENCE_S = 1200


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_two_hundred_sessions_become_ready_and_then_rest(
    cluster: Cluster, backends: Backends, namespace: str, tmp_path: Path
) -> None:
    add_token_key(cluster, namespace)

    def resources() -> list[Manifest]:
        return cluster.admin.list(*SESSION, namespace)

    def with_(condition: str) -> int:
        return sum(
            any(each["type"] == condition and each["status"] == "True" for each in found["status"]["conditions"])
            for found in resources()
            if found.get("status")
        )

    with ExitStack() as running:
        running.enter_context(all_available(cluster.admin, namespace, interval=2))
        operator = running.enter_context(Operator(cluster, backends, namespace, tmp_path, resync_s="60"))
        wait_until(lambda: operator.leads, "it leads", 60)
        begun = time.monotonic()
        votes = [
            Vote(cluster, namespace, f"vote-{n}", capacity={"partitions": 1}).create() for n in range(SESSIONS)
        ]
        created_s = time.monotonic() - begun
        wait_until(
            lambda: sum((found.get("status") or {}).get("phase") == "Open" for found in resources()) == SESSIONS,
            "all are open",
            PATIENCE_S,
        )
        open_s = time.monotonic() - begun
        running.enter_context(Owners(operator, *votes))
        wait_until(lambda: with_("Ready") == SESSIONS, "all are Ready", PATIENCE_S)
        ready_s = time.monotonic() - begun
        asked, memory = operator.requests(), operator.memory_mb
        print(
            f"\n{SESSIONS} sessions: applied in {created_s:.0f} s, all Open after {open_s:.0f} s, all Ready after"
            f" {ready_s:.0f} s; operator {memory:.0f} MB; requests {asked}"
        )
        assert with_("Degraded") == 0
        before = _versions(votes)
        after: dict[str, str] = {}

        def settled() -> bool:
            nonlocal before, after
            time.sleep(5)
            before, after = after, _versions(votes)
            return before == after

        wait_until(settled, "it comes to rest", 120)
        asked = operator.requests()
        time.sleep(REST_S)  # what is to be shown is that nothing happens
        assert _versions(votes) == after
        idle = {verb: number - asked[verb] for verb, number in operator.requests().items()}
        print(
            f"at rest for {REST_S} s: no resource version changed; operator {operator.memory_mb:.0f} MB; requests"
            f" {idle}"
        )
        assert idle["PATCH"] == idle["POST"] == idle["DELETE"] == 0, "only watches, and the lease"


def _versions(votes: list[Vote]) -> dict[str, str]:
    """Of everything in the namespace that the operator made, and of the sessions."""
    api, namespace = votes[0].api, votes[0].namespace
    kinds = {
        "v1": ("ConfigMap", "Secret", "Service"),
        "apps/v1": ("Deployment",),
        "batch/v1": ("CronJob",),
        "policy/v1": ("PodDisruptionBudget",),
        "networking.k8s.io/v1": ("NetworkPolicy",),
        "monitoring.coreos.com/v1": ("PodMonitor",),
        SESSION[0]: (SESSION[1],),
    }
    return {
        f"{kind}/{found['metadata']['name']}": found["metadata"]["resourceVersion"]
        for version, names in kinds.items()
        for kind in names
        for found in api.list(version, kind, namespace)
    }
