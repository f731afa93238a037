"""Definitions come and go while the operator runs: those of others, and its own."""

import time
from pathlib import Path

import pytest
from tests.apiserver.api import Manifest, Refused
from tests.apiserver.cluster import Cluster, foreign_crds, psephos_crd
from tests.apiserver.kubelet import all_available
from tests.apiserver.operators import Operator, Vote, add_token_key
from tests.waiting import wait_until

from psephos_lab.servers import Backends
from psephos_operator.builders.plan import Api
from psephos_operator.kube import client as operator_cluster
from psephos_operator.kube.client import Kube
from psephos_operator.kube.kinds import CHILDREN, Kind

DEFINITION = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
LARGE = {"votesPerSecond": 20_000, "viewers": 50_000}


def remove(cluster: Cluster, definition: Manifest) -> None:
    name = definition["metadata"]["name"]
    cluster.admin.delete(*DEFINITION, name)
    wait_until(lambda: cluster.admin.find(*DEFINITION, name) is None, f"{name} is gone")


def restore(cluster: Cluster, *definitions: Manifest) -> None:
    for definition in definitions:
        cluster.install(definition)
    cluster.wait_established()


OPTIONAL = ("ScaledObject", "TriggerAuthentication", "PodMonitor")
"""Of Prometheus' group other kinds are there all the time: a group alone says little."""


def test_an_api_counts_only_with_every_kind_and_version_that_is_used_of_it(
    cluster: Cluster, backends: Backends, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube = Kube(Operator(cluster, backends, namespace, tmp_path).settings)
    assert kube.apis() == {Api.STRIMZI, Api.KEDA, Api.PROMETHEUS, Api.GATEWAY}
    more = (
        Kind("Probe", "monitoring.coreos.com/v1", "probes", needs=Api.PROMETHEUS),
        Kind("HTTPRoute", "gateway.networking.k8s.io/v9", "httproutes", needs=Api.GATEWAY),
    )
    monkeypatch.setattr(operator_cluster, "CHILDREN", (*CHILDREN, *more))
    assert kube.apis() == {Api.STRIMZI, Api.KEDA}


@pytest.mark.long
def test_definitions_are_used_from_when_they_come_and_missed_by_nobody_when_they_go(
    backends: Backends, tmp_path: Path
) -> None:
    optional = [each for each in foreign_crds() if each["spec"]["names"]["kind"] in OPTIONAL]
    with Cluster(tmp_path / "cluster", OPTIONAL) as own:  # a shared one would lose the sessions of other tests
        namespace = own.create_namespace("votes")
        add_token_key(own, namespace)
        with (
            Operator(own, backends, namespace, tmp_path, resync_s="1") as operator,
            all_available(own.admin, namespace),
        ):
            vote = Vote(own, namespace, capacity=LARGE, deletionPolicy="Delete").create()
            vote.wait_phase("Open")
            wait_until(lambda: "StatefulSet/lunch-tally" in vote.children_of("apps/v1", "StatefulSet"), "it runs")

            restore(own, *optional)
            wait_until(lambda: _has(vote, "keda.sh/v1alpha1", "ScaledObject"), "KEDA is used")
            wait_until(lambda: vote.children_of("monitoring.coreos.com/v1", "PodMonitor"), "Prometheus is used")

            for definition in optional:
                remove(own, definition)
            vote.change(title="Without them again")
            wait_until(lambda: _current(vote), "it is looked after")
            vote.wait_("Degraded", "False")

            remove(own, psephos_crd())
            before = operator.metric("psephos_operator_heartbeat_age_seconds")
            time.sleep(3)  # NB: it is away for a while, as an upgrade by hand may have it
            restore(own, psephos_crd())
            again = Vote(own, namespace, "supper")
            wait_until(lambda: _created(again), "sessions are taken again")
            again.wait_phase("Open")
            again.change(title="Changed")
            wait_until(lambda: _current(again), "its changes are seen")
            assert operator.process.running
            assert before < 30


def _has(vote: Vote, version: str, kind: str) -> bool:
    try:
        return bool(vote.children_of(version, kind))
    except Refused:  # a kind that is new is served a moment later
        return False


def _created(vote: Vote) -> bool:
    try:
        return bool(vote.create())
    except Refused as refused:
        if refused.code in (404, 429):  # not served yet
            return False
        raise


def _current(vote: Vote) -> bool:
    return bool(vote.status.get("observedGeneration") == vote.now["metadata"]["generation"])
