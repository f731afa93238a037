"""The chart: what it renders is what a real API server takes, and what it is told wrongly it refuses."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.apiserver.api import Api, Manifest, Refused
from tests.apiserver.binaries import ROOT
from tests.apiserver.charts import CHART, LEAST, RELEASE, HelmFailed, environment, helm, one, render
from tests.apiserver.cluster import Cluster, psephos_crd
from tests.apiserver.rbac import Right, forbidden, granted, used
from tests.waiting import wait_until

from psephos_operator.settings import OperatorSettings, load_operator_settings

VARIANTS: dict[str, dict[str, Any]] = {
    "least": LEAST,
    "dev": {"devBackends": {"enabled": True}},
    "two namespaces": {**LEAST, "watch": {"namespaces": ["red", "blue"]}},
    "every backend by reference": {
        "kafka": {
            "bootstrapServers": "b1.example:9093,b2.example:9093",
            "propertiesSecret": {"name": "kafka-client", "key": "client.properties"},
            "strimzi": {"cluster": "votes", "namespace": "kafka"},
        },
        "dynamodb": {"credentialsSecret": "aws", "billing": "provisioned", "table": "votes"},
        "redis": {
            "urlSecret": {"name": "redis", "key": "url"},
            "acl": True,
            "cluster": True,
            "caSecret": {"name": "redis-ca", "key": "authority.pem"},
        },
        "s3": {"endpoint": "https://s3.example", "region": "eu-west-1", "credentialsSecret": "s3"},
    },
    "an IAM role": {
        **LEAST,
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/psephos"}},
        "sessions": {
            "imagePullSecrets": ["pull"],
            "serviceAccount": "votes",
            "tally": {"volume": "persistent", "storageClass": "fast"},
        },
    },
    "published by Ingress": {
        **LEAST,
        "publish": {"routing": "ingress", "host": "{name}.example", "ingressClass": "nginx", "tlsSecret": "tls"},
    },
    "published at another port": {
        **LEAST,
        "publish": {"routing": "ingress", "host": "{name}.example", "port": 8443, "tlsSecret": "tls"},
    },
    "on a small cluster": {
        "sessions": {"cpuPercent": 10},
        "devBackends": {
            "enabled": True,
            "persistence": {"enabled": True, "storageClass": "fast", "size": "2Gi"},
            "nodeSelector": {"disk": "ssd"},
        },
    },
    "published by a Gateway": {
        **LEAST,
        "publish": {"routing": "gateway", "host": "vote.example", "gateway": "edge/public"},
    },
    "cert-manager": {
        **LEAST,
        "webhook": {"certificates": "cert-manager", "issuerRef": {"name": "ca", "kind": "ClusterIssuer"}},
    },
    "cert-manager with its own issuer": {**LEAST, "webhook": {"certificates": "cert-manager"}},
    "a webhook by address": {**LEAST, "webhook": {"url": "https://10.1.2.3:9443/", "failurePolicy": "Fail"}},
    "without webhook": {**LEAST, "webhook": {"enabled": False}, "networkPolicy": {"enabled": False}},
    "monitored": {
        **LEAST,
        "monitoring": {
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "rules": {"enabled": True},
            "dashboard": {"enabled": True},
        },
    },
    "placed": {
        **LEAST,
        "replicaCount": 3,
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "votes", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "votes"},
        "image": {"digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "pull"}],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Manifest]]:
    """Every variant, rendered into the namespace `psephos`."""
    return {name: render(values) for name, values in VARIANTS.items()}


@pytest.fixture(scope="module")
def places(cluster: Cluster) -> None:
    """The namespaces that variants are rendered into; psephos takes restricted pods only."""
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.create_namespace("psephos", **enforce)
    for name in ("red", "blue", "kafka"):
        cluster.create_namespace(name)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_api_server_takes_all_that_is_rendered(
    name: str, cluster: Cluster, rendered: dict[str, list[Manifest]], places: None
) -> None:
    accounts = [manifest for manifest in rendered[name] if manifest["kind"] == "ServiceAccount"]
    for account in accounts:
        cluster.admin.apply(account)
    for manifest in rendered[name]:
        cluster.admin.apply(manifest, dry_run=True)
        if manifest["kind"] == "Deployment":
            template = manifest["spec"]["template"]
            pod = {"metadata": {"name": "pod", "namespace": "psephos", **template["metadata"]}}
            cluster.admin.create(
                {"apiVersion": "v1", "kind": "Pod", **pod, "spec": template["spec"]}, dry_run=True
            )


@pytest.mark.parametrize("name", VARIANTS)
def test_helm_finds_nothing_to_complain_about(name: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), values=VARIANTS[name])


@pytest.mark.parametrize("name", VARIANTS)
def test_the_operator_understands_its_variables(name: str, rendered: dict[str, list[Manifest]]) -> None:
    variables = environment(rendered[name])
    settings = load_operator_settings({**variables, "PSEPHOS_OPERATOR_NAMESPACE": "psephos"})
    values = VARIANTS[name]
    assert settings.namespaces == tuple(values.get("watch", {}).get("namespaces", ()))
    assert settings.routing == values.get("publish", {}).get("routing", "none")
    assert settings.strimzi_cluster == values.get("kafka", {}).get("strimzi", {}).get("cluster")
    assert settings.redis_acl is values.get("redis", {}).get("acl", False)
    assert settings.redis_cluster is values.get("redis", {}).get("cluster", False)
    assert settings.s3_endpoint == values.get("s3", {}).get("endpoint")
    assert ("PSEPHOS_OPERATOR_S3_ACCESS_KEY_ID" in variables) is ("s3" in values)
    expected = {"enabled": True, "certificates": "self-signed", **values.get("webhook", {})}
    on = "self-signed" if expected["certificates"] == "self-signed" else "provided"
    assert settings.webhook == (on if expected["enabled"] else "off")


def test_every_setting_of_the_operator_can_be_set_by_a_value(rendered: dict[str, list[Manifest]]) -> None:
    """But for those that only make sense outside a cluster, or are the same in every one."""
    fixed = {"kubeconfig", "request_s", "listen", "admin_port", "webhook_port", "log_format"}
    given = {
        name.removeprefix("PSEPHOS_OPERATOR_").lower()
        for manifests in rendered.values()
        for name in environment(manifests)
        if name.startswith("PSEPHOS_OPERATOR_")
    }
    assert given | fixed >= set(OperatorSettings.model_fields)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"replicas": 2}, "replicas"),
    ({"kafka": {"bootstrapServers": "kafka.example"}}, "/kafka/bootstrapServers"),
    ({"kafka": {"replicationFactor": 0}}, "/kafka/replicationFactor"),
    ({"redis": {"url": "redis://user:password@redis.example"}}, "/redis/url"),
    ({"redis": {"url": "http://redis.example"}}, "/redis/url"),
    ({"dynamodb": {"billing": "cheap"}}, "/dynamodb/billing"),
    ({"publish": {"routing": "ingress"}}, "/publish/host"),
    ({"publish": {"routing": "gateway", "host": "vote.example"}}, "/publish/gateway"),
    ({"publish": {"host": "{session}.example"}}, "/publish/host"),
    ({"webhook": {"failurePolicy": "Maybe"}}, "/webhook/failurePolicy"),
    ({"webhook": {"url": "http://10.1.2.3"}}, "/webhook/url"),
    ({"watch": {"namespaces": "red"}}, "/watch/namespaces"),
    ({"watch": {"namespaces": ["Red"]}}, "/watch/namespaces/0"),
    ({"image": {"digest": "sha256:1"}}, "/image/digest"),
    ({"operator": {"workers": 0}}, "/operator/workers"),
    ({"replicaCount": "two"}, "/replicaCount"),
]


@pytest.mark.parametrize(("values", "where"), WRONG, ids=[str(values) for values, _ in WRONG])
def test_wrong_values_are_refused_with_their_place(values: dict[str, Any], where: str) -> None:
    with pytest.raises(HelmFailed, match=where):
        render({**LEAST, **values})


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"redis": LEAST["redis"]}, "kafka.bootstrapServers is empty: name the brokers"),
        ({"kafka": LEAST["kafka"]}, "redis.urlSecret.name and redis.url are empty"),
    ],
)
def test_a_backend_that_nobody_named_is_asked_for(values: dict[str, Any], missing: str) -> None:
    with pytest.raises(HelmFailed, match=missing):
        render(values)


# --- Rights


def test_a_list_of_namespaces_grants_nothing_elsewhere(rendered: dict[str, list[Manifest]]) -> None:
    manifests = rendered["two namespaces"]
    bound = {manifest["roleRef"]["name"] for manifest in manifests if manifest["kind"] == "ClusterRoleBinding"}
    assert bound == {"psephos-vote-psephos-webhook"}
    places = {
        manifest["metadata"]["namespace"]
        for manifest in manifests
        if manifest["kind"] == "Role" and manifest["metadata"]["name"].endswith("-sessions")
    }
    assert places == {"red", "blue"}


def test_no_role_has_a_wildcard_or_grants_rights(rendered: dict[str, list[Manifest]]) -> None:
    for manifests in rendered.values():
        for right in granted(manifests):
            assert "*" not in "".join(right)
            assert right.group != "rbac.authorization.k8s.io"
            assert right.verb not in ("impersonate", "escalate", "bind")


def test_view_reads_edit_changes_and_only_admin_deletes(cluster: Cluster, namespace: str) -> None:
    roles = [manifest for manifest in render(LEAST, namespace) if manifest["kind"] == "ClusterRole"]
    people = {}
    for person, names in {"view": ["view"], "edit": ["view", "edit"], "admin": ["view", "edit", "admin"]}.items():
        account = {"metadata": {"name": person, "namespace": namespace}}
        cluster.admin.create({"apiVersion": "v1", "kind": "ServiceAccount", **account})
        for name in names:
            (role,) = [each for each in roles if each["metadata"]["name"].endswith(f"-{name}")]
            assert role["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{person}"] == "true"
            cluster.admin.apply(role)
            cluster.admin.create(binding(namespace, person, role["metadata"]["name"]))
        people[person] = cluster.service_account(namespace, person)
    session = example_session(namespace)
    wait_until(lambda: cluster.service_account(namespace, "admin") and _may(people["admin"], namespace), "roles")
    with pytest.raises(Refused, match="forbidden"):
        people["view"].create(session)
    people["edit"].create(session)
    assert people["view"].get("psephos.dev/v1alpha1", "VotingSession", "lunch", namespace)
    with pytest.raises(Refused, match="forbidden"):
        people["edit"].delete("psephos.dev/v1alpha1", "VotingSession", "lunch", namespace)
    people["admin"].delete("psephos.dev/v1alpha1", "VotingSession", "lunch", namespace)


def _may(api: Api, namespace: str) -> bool:
    try:
        return api.list("psephos.dev/v1alpha1", "VotingSession", namespace) == []
    except Refused:
        return False


def binding(namespace: str, account: str, role: str) -> Manifest:
    rbac = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{account}-{role}"[-60:].strip("-"), "namespace": namespace},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }


def example_session(namespace: str) -> Manifest:
    text = (ROOT / "manifests" / "examples" / "sessions" / "single-choice.yaml").read_text()
    session: Manifest = yaml.safe_load(text)
    session["metadata"]["namespace"] = namespace
    return session


def test_rights_in_use_are_read_from_the_audit_log(cluster: Cluster, namespace: str) -> None:
    roles = [manifest for manifest in render(LEAST, namespace) if manifest["kind"] == "ClusterRole"]
    cluster.admin.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "o", "namespace": namespace}}
    )
    (role,) = [each for each in roles if each["metadata"]["name"].endswith("-sessions")]
    cluster.admin.apply(role)
    cluster.admin.create(binding(namespace, "o", role["metadata"]["name"]))
    someone = cluster.service_account(namespace, "o")
    wait_until(lambda: _may(someone, namespace), "the role is in force")
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": namespace}}
    someone.apply(config)
    with pytest.raises(Refused):
        someone.list("v1", "Endpoints", namespace)
    events = list(cluster.audit(f"{namespace}:o"))
    assert used(events) == {
        Right("psephos.dev", "votingsessions", "list"),
        Right("", "configmaps", "patch"),
        Right("", "configmaps", "create"),
    }
    assert used(events) < granted(roles)
    assert forbidden(events)[-1] == f"list /api/v1/namespaces/{namespace}/endpoints"


# --- Installing, upgrading, uninstalling


def test_an_upgrade_upgrades_the_definition_and_an_uninstall_keeps_it(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    before = shutil.copytree(CHART, tmp_path / "psephos")
    definition = before / "files" / "votingsessions.psephos.dev.yaml"
    crd = yaml.safe_load(definition.read_text())
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["title"]
    definition.write_text(yaml.safe_dump(crd))
    at = ("--namespace", namespace)
    admin = cluster.kubeconfig()
    helm("install", RELEASE, str(before), *at, "--take-ownership", values=LEAST, kubeconfig=admin)
    assert "title" not in served_fields(cluster)
    with pytest.raises(Refused, match=r"spec\.title"):
        cluster.admin.create(example_session(namespace))

    helm("upgrade", RELEASE, str(CHART), *at, values=LEAST, kubeconfig=admin)
    assert "title" in served_fields(cluster)
    wait_until(lambda: _created(cluster, namespace), "the new field is served")

    helm("uninstall", RELEASE, *at, kubeconfig=admin)
    assert cluster.admin.find("apps/v1", "Deployment", f"{RELEASE}-psephos-operator", namespace) is None
    assert cluster.admin.get("psephos.dev/v1alpha1", "VotingSession", "lunch", namespace)
    cluster.admin.apply(psephos_crd())


def served_fields(cluster: Cluster) -> set[str]:
    crd = cluster.admin.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "votingsessions.psephos.dev")
    return set(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])


def _created(cluster: Cluster, namespace: str) -> bool:
    try:
        return bool(cluster.admin.create(example_session(namespace)))
    except Refused:
        return False


def test_an_upgrade_leaves_the_webhooks_authority_where_it_is(cluster: Cluster, namespace: str) -> None:
    at = ("--namespace", namespace)
    admin = cluster.kubeconfig()
    values = {**LEAST, "crds": {"install": False}, "watch": {"namespaces": [namespace]}}
    helm("install", RELEASE, str(CHART), *at, values=values, kubeconfig=admin)
    name = one(render(values, namespace), "ValidatingWebhookConfiguration")["metadata"]["name"]
    kind = ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", name)
    hook = cluster.admin.get(*kind)
    hook["webhooks"][0]["clientConfig"]["caBundle"] = AUTHORITY
    cluster.admin.replace(hook)
    helm("upgrade", RELEASE, str(CHART), *at, values={**values, "replicaCount": 3}, kubeconfig=admin)
    assert cluster.admin.get(*kind)["webhooks"][0]["clientConfig"]["caBundle"] == AUTHORITY
    helm("uninstall", RELEASE, *at, kubeconfig=admin)


AUTHORITY = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCi0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K"


# --- What is derived


def test_the_committed_manifests_are_those_that_the_chart_and_the_model_give(tmp_path: Path) -> None:
    python = os.environ.get("PYTHON", str(ROOT / ".venv" / "bin" / "python"))
    subprocess.run(
        [ROOT / "scripts" / "manifests.sh", str(tmp_path)],
        check=True,
        env={**os.environ, "PYTHON": python, "PYTHONPATH": f"{ROOT}/workers:{ROOT}/operator"},
    )
    written = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 6
    for path in written:
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), f"{path} is stale: run `make manifests`"


@pytest.mark.parametrize("file", ["psephos.yaml", "try-it-out.yaml"])
def test_the_api_server_takes_the_plain_manifests(file: str, cluster: Cluster, places: None) -> None:
    for manifest in yaml.safe_load_all((ROOT / "manifests" / file).read_text()):
        cluster.admin.apply(manifest, dry_run=True)
