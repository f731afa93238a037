"""What kubelets and controllers would say of workloads: there are none, so tests set the status themselves."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.apiserver.api import Api, Manifest, Refused


def set_available(api: Api, workload: Manifest, *, ready: int | None = None) -> None:
    """Status of a Deployment or StatefulSet with `ready` pods at its generation; all of them by default."""
    wanted = workload["spec"].get("replicas", 1)
    ready = wanted if ready is None else ready
    status: Manifest = {
        "observedGeneration": workload["metadata"]["generation"],
        "replicas": wanted,
        "updatedReplicas": wanted,
        "readyReplicas": ready,
        "availableReplicas": ready,
    }
    if workload["kind"] == "Deployment":
        status["conditions"] = [_condition("Available", ready >= wanted)]
    else:
        status |= {"currentReplicas": wanted, "currentRevision": "one", "updateRevision": "one"}
    api.patch(workload, {"status": status}, subresource="status")


def set_complete(api: Api, job: Manifest) -> None:
    """Status of a Job whose pods have all succeeded."""
    now = _now()
    completions = job["spec"].get("completions", 1)
    indexes = {"completedIndexes": f"0-{completions - 1}" if completions > 1 else "0"}
    status = {
        "startTime": job.get("status", {}).get("startTime", now),
        "completionTime": now,
        "succeeded": completions,
        "active": 0,
        "ready": 0,
        "terminating": 0,
        "uncountedTerminatedPods": {},
        **(indexes if job["spec"].get("completionMode") == "Indexed" else {}),
        "conditions": [_condition("SuccessCriteriaMet", True), _condition("Complete", True)],
    }
    api.patch(job, {"status": status}, subresource="status")


def set_failed(api: Api, job: Manifest, message: str = "a pod failed") -> None:
    """Status of a Job that has given up."""
    conditions = [
        {**_condition(kind, True), "reason": "BackoffLimitExceeded", "message": message}
        for kind in ("FailureTarget", "Failed")
    ]
    status = {
        "startTime": job.get("status", {}).get("startTime", _now()),
        "failed": 1,
        "uncountedTerminatedPods": {},
        "conditions": conditions,
    }
    api.patch(job, {"status": status}, subresource="status")


@contextmanager
def all_available(api: Api, namespace: str = "", *, interval: float = 0.2) -> Iterator[None]:
    """For the time of the block, every Deployment and StatefulSet (of a namespace) becomes available at once."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(interval):
            for kind in ("Deployment", "StatefulSet"):
                for workload in api.list("apps/v1", kind, namespace):
                    if not is_available(workload):
                        _unless_it_moved(api, workload)

    thread = threading.Thread(target=work, name="kubelet", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def is_available(workload: Manifest) -> bool:
    """Whether the status says so, at the present generation."""
    status = workload.get("status", {})
    wanted = workload["spec"].get("replicas", 1)
    return bool(
        status.get("observedGeneration") == workload["metadata"]["generation"]
        and status.get("availableReplicas", 0) >= wanted
    )


def _unless_it_moved(api: Api, workload: Manifest) -> None:
    try:
        set_available(api, workload)
    except Refused as refused:
        if refused.code not in (404, 409):  # deleted or changed since it was listed: the next round sees that
            raise


def _condition(kind: str, true: bool) -> dict[str, str]:
    return {
        "type": kind,
        "status": "True" if true else "False",
        "reason": "Tests",
        "message": "",
        "lastTransitionTime": _now(),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
