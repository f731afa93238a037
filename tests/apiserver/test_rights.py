"""The chart's roles grant what the operator uses and nothing more, by the API server's own audit log.

One operator after the other, each by the chart's ServiceAccount and variables, takes a session through all that
can be made, changed and taken away.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from tests.apiserver.api import Manifest, Refused
from tests.apiserver.charts import environment, install, one, render
from tests.apiserver.cluster import Cluster
from tests.apiserver.kubelet import all_available, set_failed
from tests.apiserver.operators import Operator, Vote, add_token_key, tally
from tests.apiserver.rbac import forbidden, granted, used
from tests.waiting import wait_until

from psephos.adapters.kafka import LogAdmin
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

#: Credentials that KEDA is told of, and that a broker without SASL never asks for.
KAFKA_PROPERTIES = "sasl.mechanisms=PLAIN\nsasl.username=psephos\nsasl.password=secret\n"
LARGE, SMALL = {"votesPerSecond": 20_000, "viewers": 20_000}, {"votesPerSecond": 100, "viewers": 100}
PEOPLE = "-view", "-edit", "-admin"


class Installed:
    """The chart in a namespace, with the webhook's registration, and operators that run by it."""

    def __init__(self, cluster: Cluster, backends: Backends, namespace: str, folder: Path) -> None:
        self.cluster, self.backends, self.namespace, self.folder = cluster, backends, namespace, folder
        self.port = free_port()
        self.values: dict[str, Any] = {
            "kafka": {
                "bootstrapServers": backends.kafka_bootstrap,
                "replicationFactor": 1,
                "strimzi": {"cluster": "votes", "namespace": namespace},
            },
            "dynamodb": {"endpoint": backends.dynamodb_endpoint},
            "redis": {"url": backends.redis_url},
            "watch": {"namespaces": [namespace]},
            "webhook": {"url": f"https://127.0.0.1:{self.port}"},
        }
        self.manifests = render(self.values, namespace)
        self.kubeconfig = install(cluster, self.values, namespace)
        self.account = one(self.manifests, "ServiceAccount")["metadata"]["name"]
        cluster.admin.apply(one(self.manifests, "ValidatingWebhookConfiguration"), manager="helm")
        (folder / "kafka.properties").write_text(KAFKA_PROPERTIES)

    @contextmanager
    def operator(self, name: str, **values: Any) -> Iterator[Operator]:
        """An operator by the chart's variables, with `values` changed."""
        variables = environment(render({**self.values, **values}, self.namespace))
        given = {
            variable.removeprefix("PSEPHOS_OPERATOR_").lower(): value
            for variable, value in variables.items()
            if value and variable.startswith("PSEPHOS_OPERATOR_")
        }
        secured = {"kafka_properties_file": str(self.folder / "kafka.properties")} if name == "first" else {}
        here = {
            "kubeconfig": str(self.kubeconfig),
            "webhook_port": str(self.port),
            "lease_s": "3",
            "resync_s": "5",
        }
        with Operator(
            self.cluster, self.backends, self.namespace, self.folder, name, **{**given, **here, **secured}
        ) as running:
            yield running

    def spoil_certificate(self) -> None:
        """A certificate that can't be read is made anew."""
        name = one(self.manifests, "ValidatingWebhookConfiguration")["metadata"]["name"]
        secret = self.cluster.admin.get("v1", "Secret", name, self.namespace)
        secret["metadata"].pop("managedFields")
        self.cluster.admin.replace(
            {**secret, "apiVersion": "v1", "kind": "Secret", "data": {**secret["data"], "tls.crt": "bm8="}}
        )

    def end(self) -> None:
        kind = ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration")
        self.cluster.admin.delete(*kind, one(self.manifests, kind[1])["metadata"]["name"])


def test_the_rights_granted_are_those_that_the_operator_uses(
    cluster: Cluster, backends: Backends, namespace: str, tmp_path: Path
) -> None:
    add_token_key(cluster, namespace)
    chart = Installed(cluster, backends, namespace, tmp_path)
    vote = Vote(cluster, namespace, deletionPolicy="Delete", capacity={**LARGE, "partitions": 2})
    ingress = {"routing": "ingress", "host": "{name}.example"}
    with chart.operator("first", publish=ingress) as first:
        wait_until(lambda: is_refused(vote), "the webhook refuses a bad session")
        assert "/readyz 200" in helm_test(chart.manifests, first)
        vote.create()
        topics = kinds_of(vote, "kafka.strimzi.io/v1beta2", "KafkaTopic")
        wait_until(lambda: len(topics()) == 3, "topics are asked for")
        LogAdmin(vote.settings(first)).create_topics(2)
        vote.wait_phase("Open")
        wait_until(lambda: made(vote) >= EVERYTHING | {"Ingress"}, "everything is made")
    chart.spoil_certificate()
    plain = {"routing": "gateway", "host": "{name}.example", "gateway": "edge/public"}
    bare = {"autoscaling": False, "networkPolicies": False, "podMonitors": False}
    with chart.operator("second", publish=plain, sessions=bare):
        wait_until(lambda: "HTTPRoute" in made(vote), "a route")
        wait_until(lambda: not made(vote) & {"Ingress", *OPTIONAL}, "what is not wanted is gone")
    with chart.operator("third", sessions=bare):
        wait_until(lambda: "HTTPRoute" not in made(vote), "the route is gone")
        with all_available(cluster.admin, namespace):  # what serves is not taken away before the other is there
            vote.change(capacity=SMALL)
            wait_until(lambda: "StatefulSet" not in made(vote), "one pod for all")
        with tally(cluster.admin, vote, tmp_path):
            vote.annotate(voting="closed")
            vote.wait_phase("Recounting")
            jobs = kinds_of(vote, "batch/v1", "Job")
            wait_until(lambda: len(jobs()) == 1, "the recount")
            (job,) = jobs()
            set_failed(cluster.admin, job)
            uid = job["metadata"]["uid"]
            wait_until(lambda: all(each["metadata"]["uid"] != uid for each in jobs()), "it begins again")
        vote.delete()
        wait_until(lambda: vote.gone, "the session is gone")
    chart.end()
    events = list(cluster.audit(f"{namespace}:{chart.account}"))
    roles = [each for each in chart.manifests if not each["metadata"]["name"].endswith(PEOPLE)]
    assert forbidden(events) == []
    assert sorted(granted(roles) - used(events)) == [], "granted and never used"
    assert sorted(used(events) - granted(roles)) == [], "allowed by another role than the chart's"


def helm_test(manifests: list[Manifest], operator: Operator) -> str:
    """What the pod of `helm test` says, run here."""
    (script,) = one(manifests, "Pod")["spec"]["containers"][0]["args"]
    address = re.search(r"http://[a-z0-9.-]+:9090", script)
    assert address is not None
    here = script.replace(address[0], f"http://127.0.0.1:{operator.admin_port}")
    return subprocess.run([sys.executable, "-c", here], capture_output=True, text=True, check=True).stdout


OPTIONAL = {"HorizontalPodAutoscaler", "ScaledObject", "TriggerAuthentication", "NetworkPolicy", "PodMonitor"}
EVERYTHING = {"Deployment", "StatefulSet", "Service", "CronJob", "PodDisruptionBudget", *OPTIONAL}


def made(vote: Vote) -> set[str]:
    """Kinds of which the session has at least one object."""
    more = (
        kinds_of(vote, "keda.sh/v1alpha1", "TriggerAuthentication")()
        + kinds_of(vote, "gateway.networking.k8s.io/v1", "HTTPRoute")()
    )
    return {key.partition("/")[0] for key in vote.children()} | {each["kind"] for each in more}


def kinds_of(vote: Vote, version: str, kind: str) -> Callable[[], list[dict[str, Any]]]:
    """Lists the session's objects of a kind."""
    return lambda: vote.api.list(version, kind, vote.namespace, f"psephos.dev/session={vote.name}")


def is_refused(vote: Vote) -> bool:
    """Whether the webhook of the chart says no to a session that the schema takes."""
    bad = yaml.safe_load(yaml.safe_dump(vote.manifest))
    bad["spec"]["recount"] = {"schedule": "often"}
    try:
        vote.api.create(bad, dry_run=True)
    except Refused as refused:
        return "votingsessions.psephos.dev" in refused.message
    return False
