"""Beside Prometheus: writes down which pods there are to scrape, every few seconds, as `file_sd_configs` reads it.

Debian builds Prometheus without the discovery of Kubernetes' pods. Standard library only.
"""

import json
import os
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGETS = Path("/targets/pods.json")
EVERY_S = 5
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PODS = "https://kubernetes.default.svc/api/v1/pods?labelSelector=app.kubernetes.io%2Fname%3Dpsephos"


def pods() -> list[dict[str, Any]]:
    """Those of the operator and of all sessions."""
    trust = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    request = urllib.request.Request(
        _PODS, headers={"Authorization": f"Bearer {(_ACCOUNT / 'token').read_text()}"}
    )
    with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
        return list(json.load(answer)["items"])


def targets(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An address for each admin port of a pod that runs."""
    metadata, labels = pod["metadata"], pod["metadata"]["labels"]
    if pod["status"]["phase"] != "Running" or "podIP" not in pod["status"]:
        return
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", ()):
            if port.get("name", "").startswith("admin"):
                yield {
                    "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
                    "labels": {
                        "namespace": metadata["namespace"],
                        "pod": metadata["name"],
                        "role": labels.get("app.kubernetes.io/component", ""),
                        "psephos_dev_session": labels.get("psephos.dev/session", ""),
                    },
                }


def main() -> None:
    while True:
        try:
            found = [target for pod in pods() for target in targets(pod)]
        except OSError as error:
            print(f"the API server did not answer: {error}", flush=True)
        else:
            new = TARGETS.with_suffix(".new")
            new.write_text(json.dumps(found))
            os.replace(new, TARGETS)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
