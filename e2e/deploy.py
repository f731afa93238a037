"""Brings the product into the cluster: images, ingress, Prometheus, the chart. `python -m e2e.deploy` does it all.

Every step looks first at what is there, so that a second run takes seconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from e2e.kube import ROOT, Watch, apply, helm, kubectl, node_exec, rolled_out, script, told

NAMESPACE = "psephos"
RELEASE = "psephos"
CLUSTER = os.environ.get("PSEPHOS_CLUSTER", "psephos")  # it and its ports as in cluster/common.sh
NODE_ONE, NODE_TWO = f"{CLUSTER}-control-plane", f"{CLUSTER}-worker"
HTTP_PORT = int(os.environ.get("PSEPHOS_CLUSTER_HTTP_PORT", "18080"))
HTTPS_PORT = int(os.environ.get("PSEPHOS_CLUSTER_HTTPS_PORT", "18443"))
PROMETHEUS_PORT = int(os.environ.get("PSEPHOS_CLUSTER_PROMETHEUS_PORT", "19090"))
DOMAIN = "vote.localhost"  # browsers take every name below `localhost` for this machine
TLS_SECRET = "vote-tls"
PRODUCT = ("psephos",)
BACKENDS = ("kafka", "dynamodb", "redis")
AROUND = ("traefik", "prometheus")
MANIFESTS = ROOT / "e2e" / "manifests"
LIST_IMAGES = ("ctr", "-n", "k8s.io", "images", "list", "-q")
CPU_PERCENT = 5  # a workload a role asks for five cores; the nodes share those of one machine

Images = Mapping[str, str]
"""What is made here: the name of the image by ours."""


def say(words: str) -> None:
    print(f"deploy: {words}", file=sys.stderr, flush=True)


def restricted(name: str) -> dict[str, Any]:
    """A namespace whose pods must meet the restricted standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def build(*names: str) -> tuple[Images, list[Path]]:
    """The images, and their archives."""
    rows = [line.split(" ", 2) for line in script("images/build", *names, timeout=3_000).splitlines()]
    return {name: image for name, image, _ in rows}, [Path(archive) for _, _, archive in rows]


def load(images: Images, archives: list[Path]) -> None:
    """Puts onto the nodes what one of them does not have."""
    there = [set(node_exec(node, LIST_IMAGES).split()) for node in (NODE_ONE, NODE_TWO)]
    pairs = zip(images.values(), archives, strict=True)
    missing = [str(archive) for image, archive in pairs if not all(image in held for held in there)]
    if missing:
        script("cluster/load", *missing)


def ingress(images: Images) -> None:
    """Traefik, in a namespace of its own."""
    text = Template((MANIFESTS / "ingress.yaml").read_text()).substitute(images)
    kubectl("apply", "-f", "-", stdin=text)
    rolled_out("deployment/traefik", "ingress")


def prometheus(images: Images) -> None:
    """Prometheus, with the chart's alert rules."""
    rules = (ROOT / "charts" / "psephos" / "files" / "alerts.yaml").read_text()
    read = {"alerts.yaml": rules, "targets.py": (MANIFESTS / "targets.py").read_text()}
    text = Template((MANIFESTS / "prometheus.yaml").read_text()).substitute(images)
    kubectl("apply", "-f", "-", stdin=text)
    name = {"name": "read", "namespace": "monitoring"}
    apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": read})
    rolled_out("deployment/prometheus", "monitoring")


def values(images: Images, *, tls: bool = True) -> dict[str, Any]:
    """Of the chart: its own backends, on volumes of node one; sessions published through the ingress."""
    repository, _, tag = images["psephos"].rpartition(":")
    return {
        "image": {"repository": repository, "tag": tag},
        "devBackends": {
            "enabled": True,
            "persistence": {"enabled": True},
            "nodeSelector": {"psephos.dev/node": "one"},
            **{name: {"image": images[name]} for name in ("kafka", "dynamodb", "redis")},
        },
        "publish": {
            "routing": "ingress",
            "host": f"{{name}}.{DOMAIN}",
            "port": HTTPS_PORT if tls else HTTP_PORT,
            "ingressClass": "traefik",
            "tlsSecret": TLS_SECRET if tls else "",
        },
        "sessions": {"cpuPercent": CPU_PERCENT},
    }


def chart(images: Images, *, tls: bool = True) -> None:
    """Installs or upgrades the chart, and waits until all of it is ready."""
    apply(restricted(NAMESPACE))
    helm(
        *("upgrade", "--install", RELEASE, str(ROOT / "charts" / "psephos"), "--namespace", NAMESPACE),
        *("--wait", "--timeout", "5m"),
        values=values(images, tls=tls),
        timeout=330,
    )


def deploy(*, tls: bool = True) -> Images:
    """Everything, from nothing or from what is there."""
    watch = Watch()
    images, archives = build(*PRODUCT, *BACKENDS, *AROUND)
    say(f"images are there ({watch.seconds:.0f} s)")
    script("cluster/up", timeout=3_000)
    say(f"cluster is up ({watch.seconds:.0f} s)")
    load(images, archives)
    say(f"images are on the nodes ({watch.seconds:.0f} s)")
    ingress(images)
    prometheus(images)
    chart(images, tls=tls)
    say(f"the chart is installed and ready ({watch.seconds:.0f} s)")
    return images


if __name__ == "__main__":
    with told():
        deploy()
