"""The chart as Helm renders it, and as a test installs it: ServiceAccount, roles, the operator's variables."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from tests.apiserver.api import Manifest
from tests.apiserver.binaries import ROOT, binary
from tests.apiserver.cluster import Cluster

CHART = ROOT / "charts" / "psephos"
RELEASE = "vote"

#: The least that the chart wants to be told.
LEAST: dict[str, Any] = {
    "kafka": {"bootstrapServers": "kafka.example:9092"},
    "redis": {"url": "redis://redis.example:6379/0"},
}


class HelmFailed(AssertionError):
    """Helm said no; the message is what it said."""


def helm(*arguments: str, values: Mapping[str, Any] | None = None, kubeconfig: Path | None = None) -> str:
    """Helm's output; `values` are read from its standard input.

    Raises:
        HelmFailed: it failed.
    """
    command = [str(binary("helm")), *arguments]
    if kubeconfig is not None:
        command += ["--kubeconfig", str(kubeconfig)]
    if values is not None:
        command += ["--values", "-"]
    done = subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HelmFailed(done.stderr.strip())
    return done.stdout


def render(values: Mapping[str, Any], namespace: str = "psephos", release: str = RELEASE) -> list[Manifest]:
    """All manifests of a release, tests included."""
    text = helm("template", release, str(CHART), "--namespace", namespace, values=values)
    return [document for document in yaml.safe_load_all(text) if document]


def install(cluster: Cluster, values: Mapping[str, Any], namespace: str) -> Path:
    """Applies the chart without its workloads, and without the webhook's registration: no pod runs here that could
    answer. The kubeconfig of the operator's ServiceAccount."""
    manifests = render(values, namespace)
    for manifest in manifests:
        if manifest["kind"] not in ("Deployment", "Pod", "ValidatingWebhookConfiguration"):
            cluster.admin.apply(manifest, manager="helm")
    return cluster.kubeconfig(namespace, one(manifests, "ServiceAccount")["metadata"]["name"])


def environment(manifests: Iterable[Manifest]) -> dict[str, str]:
    """The operator's variables as its Deployment gives them; of those from Secrets and fields only the names."""
    variables = operator_container(manifests)["env"]
    return {variable["name"]: variable.get("value", "") for variable in variables}


def operator_container(manifests: Iterable[Manifest]) -> dict[str, Any]:
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                if container["name"] == "operator":
                    return dict(container)
    raise AssertionError("there is no operator")


def one(manifests: Iterable[Manifest], kind: str) -> Manifest:
    """The only manifest of its kind."""
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found
