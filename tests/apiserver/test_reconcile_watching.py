"""How the operator hears of sessions: leaves no marks, comes back after an outage, forgets what has gone."""

import copy
from pathlib import Path

from tests.apiserver.charts import LEAST, RELEASE, install, render
from tests.apiserver.cluster import Cluster
from tests.apiserver.operators import Operator, Vote, add_token_key
from tests.apiserver.rbac import forbidden, granted, used
from tests.waiting import wait_until

from psephos_lab.servers import Backends
from psephos_operator.kube.client import Kube
from psephos_operator.kube.informer import Cache, forget_gone
from psephos_operator.kube.kinds import SESSION
from psephos_operator.reconcile.cleanup import FINALIZER


def test_a_session_bears_no_marks_but_ours(
    cluster: Cluster, backends: Backends, namespace: str, tmp_path: Path
) -> None:
    add_token_key(cluster, namespace)
    with Operator(cluster, backends, namespace, tmp_path) as operator:
        vote = Vote(cluster, namespace).create()
        vote.wait_phase("Open")
        vote.annotate(voting="paused")
        vote.wait_phase("Paused")
        vote.annotate(voting=None)
        vote.wait_phase("Open")
        now = vote.now
        assert now["metadata"]["finalizers"] == [FINALIZER]
        assert not now["metadata"].get("annotations")
        assert "kopf" not in str(now)
        assert operator.metric('psephos_operator_watch_errors_total{kind="VotingSession"}') == 0


def test_an_operator_of_all_namespaces_needs_no_more_rights_than_the_chart_gives(
    backends: Backends, tmp_path: Path
) -> None:
    values = {**LEAST, "crds": {"install": False}, "webhook": {"enabled": False}}
    with Cluster(tmp_path / "cluster") as own:  # in a shared one it would look after the sessions of other tests
        own.create_namespace("psephos")
        own.create_namespace("votes")
        add_token_key(own, "votes")
        kubeconfig = str(install(own, values, "psephos"))
        with Operator(
            own, backends, "psephos", tmp_path, namespaces="", kubeconfig=kubeconfig, lease_s="15"
        ) as operator:
            Vote(own, "votes").create().wait_phase("Open")
            assert operator.metric('psephos_operator_watch_errors_total{kind="VotingSession"}') == 0
        events = list(own.audit(f"psephos:{RELEASE}-psephos-operator"))
    assert {event["objectRef"].get("namespace") for event in events if "objectRef" in event} >= {None, "votes"}
    assert forbidden(events) == []
    assert used(events) <= granted(render(values))


def test_an_api_server_that_was_away_is_followed_again(
    cluster: Cluster, backends: Backends, namespace: str, tmp_path: Path
) -> None:
    add_token_key(cluster, namespace)
    with Operator(cluster, backends, namespace, tmp_path) as operator:
        vote = Vote(cluster, namespace).create()
        vote.wait_phase("Open")
        cluster.server.kill()
        wait_until(lambda: not operator.leads, "it can't renew its lease")
        cluster.start_server()
        vote.annotate(voting="paused")
        vote.wait_phase("Paused")
        other = Vote(cluster, namespace, "supper").create()
        other.wait_phase("Open")
        cluster.admin.delete("v1", "Service", "lunch-votes", namespace)
        wait_until(lambda: "Service/lunch-votes" in vote.children(), "children are watched again")


def test_a_session_that_went_while_nobody_watched_is_forgotten(
    cluster: Cluster, backends: Backends, namespace: str, tmp_path: Path
) -> None:
    vote = Vote(cluster, namespace).create()
    cache, kube = Cache(), Kube(Operator(cluster, backends, namespace, tmp_path).settings)
    gone = copy.deepcopy(vote.now)
    gone["metadata"] |= {"name": "gone", "uid": "0"}
    elsewhere = copy.deepcopy(gone)
    elsewhere["metadata"] |= {"namespace": "elsewhere"}
    for each in (vote.now, gone, elsewhere):
        cache.put(SESSION, each)
    assert forget_gone(kube, cache, SESSION, namespace) == [gone]
    assert [each["metadata"]["name"] for each in cache.all(SESSION.name)] == ["lunch", "gone"]
    assert forget_gone(kube, cache, SESSION, None) == [elsewhere]
