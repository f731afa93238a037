"""A real etcd and kube-apiserver on loopback, without nodes: what the operator and the chart are tested against.

Nothing runs pods, so nobody sets the status of workloads unless a test does: see `kubelet.py`. Nothing collects
garbage either: children of a deleted owner stay, and a deleted namespace stays Terminating.
"""

from __future__ import annotations

import json
import secrets
import shutil
import ssl
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from tests.apiserver.api import Api, Manifest, Refused
from tests.apiserver.binaries import ROOT, binary
from tests.apiserver.certificates import write_certificates
from tests.waiting import wait_until

from psephos.platform.child_process import ChildProcess
from psephos_lab.ports import LOOPBACK, free_port

#: Seconds that etcd and the API server may take on a slow, busy machine; here it is a few.
START_TIMEOUT = 120.0

#: Every request of a service account, with what it touched but without bodies.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


class Cluster:
    """One API server with a store of its own; a context manager."""

    def __init__(self, folder: Path, without: Collection[str] = ()) -> None:
        """`without`: kinds of others that are not defined from the beginning."""
        self.folder = folder
        self._without = without
        self.port = free_port()
        self.url = f"https://{LOOPBACK}:{self.port}"
        self.audit_log = folder / "audit.log"
        self.started_in = 0.0
        """Seconds from the start to ready, with all definitions installed."""
        self._token = secrets.token_hex(16)
        self._etcd_port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        write_certificates(folder)
        (folder / "tokens.csv").write_text(f"{self._token},tests,tests,system:masters\n")
        (folder / "audit.json").write_text(json.dumps(AUDIT_POLICY))
        self.etcd = ChildProcess("etcd", self._etcd_command(), folder / "etcd.log")
        self.server = ChildProcess("kube-apiserver", self._server_command(), folder / "kube-apiserver.log")
        self.admin = self.api(self._token)

    def __enter__(self) -> Self:
        began = time.monotonic()
        try:
            self.etcd.start()
            self.start_server()
            self.create_namespace("default")
            self.install(psephos_crd())
            for manifest in foreign_crds():
                if manifest["spec"]["names"]["kind"] not in self._without:
                    self.install(manifest)
            self.wait_established()
        except BaseException:
            self.stop()
            raise
        self.started_in = time.monotonic() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start_server(self) -> None:
        """Start the API server and wait until it is ready; also after a test killed it."""
        self.server.start()
        wait_until(self._ready, f"the API server is ready ({self.server.log})", START_TIMEOUT)

    def stop(self) -> None:
        """Ends both and removes their data; the logs stay."""
        self.server.kill()  # all that it knows is in etcd
        self.etcd.kill()
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)

    def api(self, token: str) -> Api:
        return Api(self.url, token, ssl.create_default_context(cafile=str(self.folder / "ca.crt")))

    def create_namespace(self, name: str, **labels: str) -> str:
        """A namespace with the service account `default`, which no controller makes here; its name."""
        with suppress(Refused):  # the API server makes `default` and `kube-system` by itself, some time
            self.admin.create(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            )
        self.admin.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
        )
        return name

    def service_account(self, namespace: str, name: str) -> Api:
        """The way in of a service account that is there already."""
        return self.api(self._account_token(namespace, name))

    def kubeconfig(self, namespace: str = "default", account: str = "") -> Path:
        """A kubeconfig file of a service account of that namespace; without one, of an administrator."""
        token = self._account_token(namespace, account) if account else self._token
        path = self.folder / f"kubeconfig-{namespace}-{account or 'admin'}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "tests",
                    "cluster": {"server": self.url, "certificate-authority": str(self.folder / "ca.crt")},
                }
            ],
            "users": [{"name": "tests", "user": {"token": token}}],
            "contexts": [
                {"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": namespace}}
            ],
            "current-context": "tests",
        }
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    def audit(self, user: str = "") -> Iterator[dict[str, Any]]:
        """The audit log's events of service accounts so far; `user`: only of `system:serviceaccount:<user>`."""
        with self.audit_log.open("rb") as log:
            for line in log:
                if not line.endswith(b"}\n"):
                    return  # being written
                event = json.loads(line)
                if not user or event["user"]["username"] == f"system:serviceaccount:{user}":
                    yield event

    def install(self, definition: Manifest) -> None:
        """Applies a CustomResourceDefinition, and remembers to wait for it."""
        self.admin.apply(definition)

    def wait_established(self) -> None:
        """Every definition is served, so that the next request finds it."""
        wait_until(self._all_established, "definitions are established", START_TIMEOUT)

    def _all_established(self) -> bool:
        definitions = self.admin.list("apiextensions.k8s.io/v1", "CustomResourceDefinition")
        return all(_condition(definition, "Established") for definition in definitions)

    def _ready(self) -> bool:
        for child in (self.etcd, self.server):
            assert child.running, f"{child.name} ended: {child.last_words()} (log: {child.log})"
        try:
            return bool(self.admin.request("GET", "/readyz", timeout=5) == "ok")
        except (OSError, Refused):
            return False

    def _account_token(self, namespace: str, name: str) -> str:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        answer = self.admin.request(
            "POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        )
        return str(answer["status"]["token"])

    def _etcd_command(self) -> list[str]:
        client, peer = f"http://{LOOPBACK}:{self._etcd_port}", f"http://{LOOPBACK}:{free_port()}"
        return [
            str(binary("etcd")),
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _server_command(self) -> list[str]:
        folder = self.folder
        return [
            str(binary("kube-apiserver")),
            f"--etcd-servers=http://{LOOPBACK}:{self._etcd_port}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self.port}",
            f"--tls-cert-file={folder / 'tls.crt'}",
            f"--tls-private-key-file={folder / 'tls.key'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'accounts.key'}",
            f"--service-account-signing-key-file={folder / 'accounts.key'}",
            "--authorization-mode=RBAC",
            "--anonymous-auth=false",
            "--service-cluster-ip-range=10.0.0.0/16",
            "--endpoint-reconciler-type=none",  # it refuses to announce a loopback address
            f"--audit-policy-file={folder / 'audit.json'}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-mode=blocking",
            "--profiling=false",
        ]


def psephos_crd() -> Manifest:
    """The project's own definition as it is committed."""
    return dict(yaml.safe_load((ROOT / "crds" / "votingsessions.psephos.dev.yaml").read_text()))


def foreign_crds() -> list[Manifest]:
    """The genuine definitions of Gateway API, KEDA, Prometheus, cert-manager and Strimzi."""
    folder = binary("crds")
    documents = [yaml.load(path.read_text(), _Loader) for path in sorted(folder.glob("*.yaml"))]
    assert documents, f"no definitions in {folder}: remove it and run `make setup`"
    for document in documents:
        document.pop("status", None)
    return documents


#: The C loader: these files have ten thousands of lines.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _condition(manifest: Manifest, kind: str) -> bool:
    conditions = manifest.get("status", {}).get("conditions") or ()
    return any(condition["type"] == kind and condition["status"] == "True" for condition in conditions)
