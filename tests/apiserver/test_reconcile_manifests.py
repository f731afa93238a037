"""Everything that is ever built is taken by a real API server: strictly validated, and its pods restricted."""

from typing import Any

import pytest
from tests.apiserver.api import Manifest, Refused
from tests.apiserver.cluster import Cluster
from tests.unit.operator.sessions import ACCESS, plan, session, settings
from tests.unit.operator.test_builders import EVERYTHING, LARGE, SASL

from psephos.formats.control import Phase
from psephos_operator.builders import Access, build
from psephos_operator.builders.meta import stamped

CUSTOM: dict[str, dict[str, str]] = {
    "plain": {},
    "ingress": {"routing": "ingress", "host": "{name}.example", "ingress_class": "nginx", "tls_secret": "tls"},
    "gateway": {"routing": "gateway", "host": "votes.example", "gateway": "infra/public"},
    "strimzi": {"strimzi_cluster": "main", "strimzi_namespace": "kafka"},
    "volumes": {"tally_volume": "persistent", "storage_class": "fast", "autoscaling": "false"},
    "narrow": {
        "network_policies": "false",
        "monitors": "false",
        "image_pull_secrets": "pull",
        "service_account": "iam",
    },
}


@pytest.fixture(scope="module")
def restricted(cluster: Cluster) -> str:
    """A namespace that takes restricted pods only; `kafka` is for topics."""
    cluster.create_namespace("kafka")
    name = cluster.create_namespace("votes", **{"pod-security.kubernetes.io/enforce": "restricted"})
    metadata = {"name": "iam", "namespace": name}
    cluster.admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    return name


@pytest.mark.parametrize("given", CUSTOM)
@pytest.mark.parametrize("phase", [Phase.OPEN, Phase.RECOUNTING, Phase.FINAL], ids=lambda phase: phase.value)
def test_every_manifest_is_valid_to_the_letter(
    cluster: Cluster, restricted: str, phase: Phase, given: str
) -> None:
    voters = {
        "eligibility": "roll",
        "roll": {"configMapRef": {"name": "people"}},
        "tokens": {"secretRef": {"name": "keys", "key": "k"}, "issuer": "i", "audience": "a"},
    }
    kinds = set()
    for capacity, access in (({}, ACCESS), (LARGE, Access(SASL, "redis://r", {"AWS_ACCESS_KEY_ID": "k"}))):
        wanted = plan(
            session("x" * 50, capacity=capacity, voters=voters),
            given=settings(**CUSTOM[given]),
            phase=phase,
            apis=EVERYTHING,
            recounting=phase is Phase.RECOUNTING,
            sealing=True,
        )
        for manifest in build(wanted, access):
            cluster.admin.apply(stamped(manifest), manager="psephos-operator", dry_run=True)
            kinds.add(manifest["kind"])
            for template in _templates(manifest):
                _check_pod(cluster, restricted, template)
    assert {"Deployment", "Service", "ConfigMap", "Secret", "PodDisruptionBudget"} <= kinds


def test_a_pod_that_is_not_restricted_is_refused_there(cluster: Cluster, restricted: str) -> None:
    """Else the test above would show nothing."""
    with pytest.raises(Refused, match="violates PodSecurity"):
        _check_pod(cluster, restricted, {"spec": {"containers": [{"name": "x", "image": "x"}]}})


def _templates(found: Any) -> list[Manifest]:
    if isinstance(found, list):
        return [template for each in found for template in _templates(each)]
    if not isinstance(found, dict):
        return []
    own = [found["template"]] if "containers" in found.get("template", {}).get("spec", {}) else []
    return [*own, *(template for each in found.values() for template in _templates(each))]


def _check_pod(cluster: Cluster, namespace: str, template: Manifest) -> None:
    volumes = template["spec"].get("volumes", [])
    claimed = [] if any(volume["name"] == "data" for volume in volumes) else [{"name": "data", "emptyDir": {}}]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template.get("metadata", {}), "name": "checked", "namespace": namespace},
        "spec": {**template["spec"], "volumes": [*volumes, *claimed]},
    }
    cluster.admin.create(pod, dry_run=True)
