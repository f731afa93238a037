"""A session is deleted, in every phase and with both policies: it goes soon, and its data as the policy says."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from tests.apiserver.cluster import Cluster
from tests.apiserver.kubelet import all_available
from tests.apiserver.operators import Operator, Vote, add_token_key
from tests.waiting import wait_until

from psephos.adapters.kafka import LogAdmin
from psephos.adapters.redis import frame_name
from psephos.control import set_phase
from psephos.formats.control import Phase
from psephos_lab.servers import Backends

#: Control records that bring a session into a phase, as the protocol would write them.
STEPS = {
    Phase.PENDING: (),
    Phase.OPEN: (),
    Phase.CLOSING: (Phase.CLOSING,),
    Phase.RECOUNTING: (Phase.CLOSING, Phase.RECOUNTING),
    Phase.FINAL: (Phase.CLOSING, Phase.RECOUNTING, Phase.FINAL),
    Phase.DISPUTED: (Phase.CLOSING, Phase.RECOUNTING, Phase.DISPUTED),
}


class Scene:
    """One namespace with its operator."""

    def __init__(self, cluster: Cluster, operator: Operator, namespace: str) -> None:
        self.cluster, self.operator, self.namespace = cluster, operator, namespace

    def vote(self, phase: Phase, policy: str) -> Vote:
        """A session in this phase."""
        name = f"{phase.value.lower()}-{policy.lower()}"
        soon = {"opensAt": _in(timedelta(minutes=5))} if phase is Phase.PENDING else {}
        vote = Vote(self.cluster, self.namespace, name, deletionPolicy=policy, **soon).create()
        vote.wait_phase("Pending" if soon else "Open")
        wait_until(lambda: "epoch" in vote.status, "it is prepared")
        if phase is Phase.PAUSED:
            vote.annotate(voting="paused")
        elif phase is Phase.VOID:
            vote.annotate(voting="void")
        else:
            for step in STEPS[phase]:
                set_phase(vote.settings(self.operator), step)
        vote.annotate(look="again")
        vote.wait_phase(phase.value)
        return vote

    def keeps(self, vote: Vote) -> set[str]:
        """What is left of a session outside its namespace, and of its keys."""
        settings = vote.settings(self.operator)
        left = set()
        if LogAdmin(settings).describe_votes() is not None:
            left.add("topics")
        if vote.ledger(self.operator).get("genesis") is not None:
            left.add("ledger")
        if redis.Redis.from_url(settings.redis_url).exists(frame_name(vote.uid)):
            left.add("redis")
        if any(key.startswith("Secret/") and "-key" in key for key in vote.children()):
            left.add("keys")
        return left


@pytest.fixture(scope="module")
def scene(cluster: Cluster, backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    namespace = cluster.create_namespace(f"deletion-{uuid.uuid4().hex[:6]}")
    add_token_key(cluster, namespace)
    folder = tmp_path_factory.mktemp("deletion")
    with (
        Operator(cluster, backends, namespace, folder, resync_s="2") as operator,
        all_available(cluster.admin, namespace),
    ):
        yield Scene(cluster, operator, namespace)


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
@pytest.mark.parametrize("phase", list(Phase), ids=lambda phase: phase.value)
def test_a_session_is_deleted_in_every_phase(scene: Scene, phase: Phase, policy: str) -> None:
    vote = scene.vote(phase, policy)
    settings = vote.settings(scene.operator)
    redis.Redis.from_url(settings.redis_url).hset(frame_name(vote.uid), "version", 1)
    everything = {"topics", "ledger", "redis", "keys"}
    assert scene.keeps(vote) == everything
    vote.delete()
    wait_until(lambda: vote.gone, "it is gone")
    expected = everything if policy == "Retain" else set()
    wait_until(lambda: scene.keeps(vote) == expected, f"left: {scene.keeps(vote)}")


def test_a_session_of_the_same_name_has_keys_of_its_own(scene: Scene) -> None:
    first = Vote(scene.cluster, scene.namespace, "again").create()
    first.wait_phase("Open")
    first.delete()
    wait_until(lambda: first.gone, "it is gone")
    second = Vote(scene.cluster, scene.namespace, "again").create()
    second.wait_phase("Open")
    keys = [key for key in second.children() if "session-key" in key]
    assert len(keys) == 2, "the retained one, and its own"
    assert second.status["epoch"] != first.uid


def test_rows_are_not_taken_from_under_pods_that_run_and_a_deletion_is_held_up_for_a_time_only(
    cluster: Cluster, backends: Backends, namespace: str, tmp_path: Path
) -> None:
    add_token_key(cluster, namespace)
    with (
        Operator(cluster, backends, namespace, tmp_path, cleanup_s="20", resync_s="2") as operator,
        all_available(cluster.admin, namespace),
    ):
        _hold_up(Scene(cluster, operator, namespace))


def _hold_up(scene: Scene) -> None:
    vote = scene.vote(Phase.OPEN, "Delete")
    labels = {"psephos.dev/session": vote.name, "psephos.dev/session-uid": vote.uid}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stubborn", "namespace": scene.namespace, "labels": labels},
        "spec": {"containers": [{"name": "psephos", "image": "x"}], "terminationGracePeriodSeconds": 0},
    }
    scene.cluster.admin.create(pod)
    vote.delete()
    wait_until(lambda: f"Deployment/{vote.name}-serve" not in vote.children(), "workloads are gone")
    assert not vote.gone
    assert "ledger" in scene.keeps(vote)
    wait_until(lambda: vote.gone, "it is let go")
    assert "CleanupGaveUp" in vote.events()
    assert scene.operator.metric('psephos_operator_cleanups_total{outcome="gave-up"}') >= 1


def test_who_has_no_operator_any_more_can_let_a_session_go_by_hand(
    cluster: Cluster, backends: Backends, namespace: str, tmp_path: Path
) -> None:
    """The command of docs/operator.md."""
    add_token_key(cluster, namespace)
    with Operator(cluster, backends, namespace, tmp_path):
        vote = Vote(cluster, namespace).create()
        vote.wait_phase("Open")
    vote.delete()
    assert not vote.gone
    cluster.admin.patch(vote.manifest, {"metadata": {"finalizers": None}})
    assert vote.gone


def _in(delta: timedelta) -> str:
    return (datetime.now(UTC) + delta).strftime("%Y-%m-%dT%H:%M:%SZ")
