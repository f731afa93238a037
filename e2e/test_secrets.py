"""No value of a Secret is told to anybody: not in logs, events, status or metrics, of all that ran before."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.certificates import Authority
from e2e.kube import items, kubectl
from e2e.outside import Traffic, tea_and_coffee
from e2e.reader import Reader
from e2e.sessions import Session, session

SHORTEST = 12  # DynamoDB Local's credentials are the word `local`
PUBLIC = ("tls.crt", "ca.crt")
_HELM = "helm.sh/release.v1"


@pytest.fixture(scope="module")
def watched(namespace: str, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A session with votes, still open, so that its pods are there to be read."""
    watched = session("watched", namespace)
    watched.wait("Open")
    journal = tmp_path_factory.mktemp("secrets") / "journal"
    with Traffic(authority, watched, tea_and_coffee(0, 200), journal) as traffic:
        traffic.finish()
    return watched


def test_no_secret_is_in_logs_events_status_or_metrics(watched: Session, reader: Reader) -> None:
    found: list[str] = []
    secrets = dict(secret_values())
    assert len(secrets) >= 4
    for place, text in places(reader):
        found += [f"{name} in {place}" for name, forms in secrets.items() if any(form in text for form in forms)]
    assert found == []


def test_the_search_would_find_them(watched: Session, reader: Reader) -> None:
    """What is public is found in each kind of place."""
    uid, kinds = watched.uid, {"log": 0, "events": 0, "status": 0, "metrics": 0}
    for place, text in places(reader):
        kinds[place.split()[0]] += uid in text or watched.name in text or "psephos_" in text
    assert min(kinds.values()) > 0, kinds


def secret_values() -> Iterator[tuple[str, list[str]]]:
    """Every value that is worth keeping, as it may be written: plain, in base64, in hexadecimal digits."""
    for secret in items("secrets"):
        name, namespace = secret["metadata"]["name"], secret["metadata"]["namespace"]
        if secret["type"] == _HELM or namespace in ("kube-system", "ingress"):
            continue
        for key, encoded in (secret.get("data") or {}).items():
            value = base64.b64decode(encoded)
            without_password = value.startswith(b"redis://") and b"@" not in value
            if len(value) >= SHORTEST and key not in PUBLIC and not without_password:
                yield f"{namespace}/{name}/{key}", list(forms(value, encoded))


def forms(value: bytes, encoded: str) -> Iterator[str]:
    yield encoded
    yield base64.urlsafe_b64encode(value).decode().rstrip("=")
    yield value.hex()
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    yield text
    yield json.dumps(text)[1:-1]


def places(reader: Reader) -> Iterator[tuple[str, str]]:
    for pod in items("pods"):
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        if namespace == "kube-system":
            continue
        yield f"log {namespace}/{name}", kubectl("logs", "-n", namespace, name, "--all-containers", check=False)
        if pod["status"]["phase"] == "Running":
            yield from metrics(reader, pod)
    yield "events", kubectl("get", "events", "-A", "-o", "json")
    yield "status of sessions", kubectl("get", "vs", "-A", "-o", "json")
    yield "status of pods", json.dumps([pod["status"] for pod in items("pods")])


def metrics(reader: Reader, pod: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Asked for by a pod: policies keep everybody else from the admin ports, the API server's proxy too."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", ()):
            if namespace != "ingress" and port.get("name", "").startswith("admin"):
                address = f"{pod['status']['podIP']}:{port['containerPort']}"
                yield f"metrics {namespace}/{name}:{port['containerPort']}", reader.run(_GET, address=address)


_GET = """
import json, sys, urllib.request
address = json.load(sys.stdin)["address"]
print(urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode())
"""
