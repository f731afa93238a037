"""A Kubernetes client of a few verbs for tests: plain dictionaries in and out, unknown fields are errors.

NB: not the client that the operator uses: a test that looks with the same eyes sees the same mirage.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"

#: Plurals that are not the lower-cased kind with an s.
_PLURALS = {
    "Endpoints": "endpoints",
    "Ingress": "ingresses",
    "NetworkPolicy": "networkpolicies",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "GatewayClass": "gatewayclasses",
    "PriorityClass": "priorityclasses",
    "StorageClass": "storageclasses",
}

_CLUSTER_SCOPED = frozenset(
    {
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "GatewayClass",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    }
)


class Refused(Exception):
    """The API server's answer was an error: `code` (HTTP), `reason` and `message` of its Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message = code, reason, message


@dataclass(frozen=True)
class Api:
    """One user's way in. Objects are named by apiVersion, kind, namespace and name, as manifests do."""

    url: str
    token: str
    tls: ssl.SSLContext

    def request(
        self,
        verb: str,
        path: str,
        body: object = None,
        *,
        content: str = "application/json",
        timeout: float = 30.0,
    ) -> Any:
        """Any request; the answer's JSON (text where it is none).

        Raises:
            Refused: an HTTP error. OSError: nobody answers.
        """
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": content, "Accept": "application/json"},
            method=verb,
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=self.tls) as answer:
                return _content(answer)
        except urllib.error.HTTPError as error:
            raise _refusal(error) from None

    def get(self, version: str, kind: str, name: str, namespace: str = "") -> Manifest:
        return dict(self.request("GET", path_of(version, kind, namespace, name)))

    def find(self, version: str, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """`get`, None where there is no such object."""
        try:
            return self.get(version, kind, name, namespace)
        except Refused as refused:
            if refused.code == http.HTTPStatus.NOT_FOUND:
                return None
            raise

    def list(self, version: str, kind: str, namespace: str = "", selector: str = "") -> list[Manifest]:
        """Objects of a namespace (of all, without one) whose labels fit; each with its apiVersion and kind."""
        query = urllib.parse.urlencode({"labelSelector": selector}) if selector else ""
        answer = self.request("GET", f"{path_of(version, kind, namespace)}?{query}")
        return [{"apiVersion": version, "kind": kind, **item} for item in answer["items"]]

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        path = path_of_manifest(manifest, named=False)
        return dict(self.request("POST", path + _options(dry_run=dry_run), manifest))

    def apply(self, manifest: Manifest, *, manager: str = "tests", dry_run: bool = False) -> Manifest:
        """Server-side apply with force."""
        path = path_of_manifest(manifest) + _options(dry_run=dry_run, fieldManager=manager, force="true")
        return dict(self.request("PATCH", path, manifest, content=APPLY))

    def replace(self, manifest: Manifest) -> Manifest:
        return dict(self.request("PUT", path_of_manifest(manifest) + _options(), manifest))

    def patch(self, manifest: Manifest, change: Mapping[str, Any], *, subresource: str = "") -> Manifest:
        """Merge patch of the object that `manifest` names."""
        path = path_of_manifest(manifest) + (f"/{subresource}" if subresource else "")
        return dict(self.request("PATCH", path + _options(), change, content=MERGE))

    def delete(self, version: str, kind: str, name: str, namespace: str = "") -> None:
        self.request("DELETE", path_of(version, kind, namespace, name))


def path_of(version: str, kind: str, namespace: str = "", name: str = "") -> str:
    """`("apps/v1", "Deployment", "default", "web")` gives `/apis/apps/v1/namespaces/default/deployments/web`."""
    root = "/apis" if "/" in version else "/api"
    inside = f"/namespaces/{namespace}" if namespace and kind not in _CLUSTER_SCOPED else ""
    plural = _PLURALS.get(kind, f"{kind.lower()}s")
    return f"{root}/{version}{inside}/{plural}" + (f"/{name}" if name else "")


def path_of_manifest(manifest: Manifest, *, named: bool = True) -> str:
    metadata = manifest["metadata"]
    namespace = metadata.get("namespace", "default")
    return path_of(manifest["apiVersion"], manifest["kind"], namespace, metadata["name"] if named else "")


def _options(*, dry_run: bool = False, **options: str) -> str:
    chosen = {"fieldValidation": "Strict", **options, **({"dryRun": "All"} if dry_run else {})}
    return f"?{urllib.parse.urlencode(chosen)}"


def _content(answer: http.client.HTTPResponse) -> Any:
    text = answer.read().decode()
    return json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text


def _refusal(error: urllib.error.HTTPError) -> Refused:
    text = error.read().decode(errors="replace")
    try:
        status = json.loads(text)
        return Refused(error.code, str(status.get("reason", "")), str(status.get("message", "")))
    except ValueError:
        return Refused(error.code, error.reason, text)
