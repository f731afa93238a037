"""The API server under the other tests is a real one: it validates, authorizes, records, and ends with us."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.apiserver.api import Manifest, Refused
from tests.apiserver.cluster import Cluster, foreign_crds
from tests.apiserver.kubelet import all_available, is_available, set_complete, set_failed
from tests.guards.leftovers import BOUND, runs
from tests.waiting import wait_until

POD = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}


def deployment(namespace: str, replicas: int = 2) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": POD},
    }


def job(namespace: str, name: str) -> Manifest:
    template = {"spec": {"containers": [{"name": "web", "image": "web:1"}], "restartPolicy": "Never"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"completions": 4, "parallelism": 2, "completionMode": "Indexed", "template": template},
    }


def test_it_is_the_pinned_version_and_starts_in_seconds(cluster: Cluster) -> None:
    assert cluster.admin.request("GET", "/version")["gitVersion"] == "v1.34.4"
    print(f"etcd and kube-apiserver ready with all definitions in {cluster.started_in:.1f} s")


def test_the_definitions_of_other_projects_are_installed(cluster: Cluster) -> None:
    installed = {
        definition["metadata"]["name"]
        for definition in cluster.admin.list("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    }
    assert installed >= {definition["metadata"]["name"] for definition in foreign_crds()}
    assert installed >= {
        "votingsessions.psephos.dev", "kafkatopics.kafka.strimzi.io", "scaledobjects.keda.sh",
        "podmonitors.monitoring.coreos.com", "servicemonitors.monitoring.coreos.com",
        "prometheusrules.monitoring.coreos.com", "httproutes.gateway.networking.k8s.io",
        "certificates.cert-manager.io",
    }  # fmt: skip


def test_an_unknown_field_is_refused(cluster: Cluster, namespace: str) -> None:
    wrong = deployment(namespace)
    wrong["spec"]["replcas"] = 3
    with pytest.raises(Refused, match="replcas"):
        cluster.admin.create(wrong)


def test_an_unknown_field_of_another_projects_resource_is_refused(cluster: Cluster, namespace: str) -> None:
    topic = {
        "apiVersion": "kafka.strimzi.io/v1beta2",
        "kind": "KafkaTopic",
        "metadata": {"name": "votes", "namespace": namespace},
        "spec": {"partitions": 4, "replicas": 3, "retention": -1},
    }
    with pytest.raises(Refused, match="retention"):
        cluster.admin.create(topic)
    del topic["spec"]["retention"]  # type: ignore[attr-defined]
    cluster.admin.create(topic)


def test_a_service_account_may_do_only_what_a_role_grants_and_both_are_recorded(
    cluster: Cluster, namespace: str
) -> None:
    someone = cluster.service_account(namespace, "default")
    with pytest.raises(Refused, match="cannot list resource"):
        someone.list("v1", "ConfigMap", namespace)
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    rbac = "rbac.authorization.k8s.io"
    named = {"name": "reader", "namespace": namespace}
    cluster.admin.create({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": named, "rules": rules})
    cluster.admin.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": named,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        }
    )
    wait_until(lambda: _allowed(cluster, namespace), "the role is in force")
    events = [event for event in cluster.audit(f"{namespace}:default") if event["verb"] == "list"]
    assert {event["responseStatus"]["code"] for event in events} == {403, 200}
    assert {event["objectRef"]["resource"] for event in events} == {"configmaps"}


def _allowed(cluster: Cluster, namespace: str) -> bool:
    try:
        return cluster.service_account(namespace, "default").list("v1", "ConfigMap", namespace) is not None
    except Refused:
        return False


def test_no_workload_becomes_available_unless_a_test_says_so(cluster: Cluster, namespace: str) -> None:
    web = cluster.admin.create(deployment(namespace))
    assert not is_available(web)
    with all_available(cluster.admin, namespace):
        wait_until(
            lambda: is_available(cluster.admin.get("apps/v1", "Deployment", "web", namespace)), "it is available"
        )


def test_jobs_complete_and_fail_when_a_test_says_so(cluster: Cluster, namespace: str) -> None:
    for name, happens, condition in (("good", set_complete, "Complete"), ("bad", set_failed, "Failed")):
        happens(cluster.admin, cluster.admin.create(job(namespace, name)))
        conditions = cluster.admin.get("batch/v1", "Job", name, namespace)["status"]["conditions"]
        assert {"type": condition, "status": "True"}.items() <= conditions[-1].items()


KILLED_PARENT = """
import sys, time
from pathlib import Path
from tests.apiserver.cluster import Cluster
with Cluster(Path(sys.argv[1])) as running:
    print(running.etcd.pid, running.server.pid, flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_when_the_tests_are_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [*BOUND, sys.executable, "-c", KILLED_PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    assert all(runs(pid) for pid in children)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not any(runs(pid) for pid in children), "etcd and the API server are gone")
