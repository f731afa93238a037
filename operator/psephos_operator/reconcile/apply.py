"""Brings the cluster to what was built: applies what is missing or differs, prunes what is no longer wanted.

An object is left alone as long as it carries the hash of what was built and nothing else has touched it. So a
session at rest costs no request.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from psephos.platform.errors import PsephosError
from psephos.platform.logs import get_logger
from psephos_operator import metrics
from psephos_operator.builders.meta import DESIRED_ANNOTATION, MANAGER, UID_LABEL, Manifest, stamped
from psephos_operator.kube.client import ApiError, Kube
from psephos_operator.kube.informer import Cache, Key, key_of
from psephos_operator.kube.kinds import BY_NAME, Kind

HANDOVER = "psephos-handover"
"""The field manager that keeps the number of replicas as it is until the autoscaler sets another one.

NB: the server sorts managers by time, to the second, then by name, and takes another order for a change. So our
own manager has to come last: by its name, and by applying after this one.
"""

WORKLOADS = ("Deployment", "StatefulSet")
_MERGED = ("ConfigMap", "Secret")
CONFLICT = 409
log = get_logger()


class NotOurs(PsephosError):
    """An object that is not this session's has the name of a child. The message is one line."""


class Seen(NamedTuple):
    """An object as our last apply left it: any difference from it was made by others."""

    uid: str
    version: str


@dataclass
class Converged:
    """The outcome. `drifted`: objects that others had changed or deleted; `failed`: per object, the reason."""

    drifted: list[Key] = field(default_factory=list)
    failed: dict[Key, str] = field(default_factory=dict)
    applied: int = 0


def converge(
    kube: Kube,
    cache: Cache,
    seen: dict[Key, Seen],
    manifests: Iterable[Manifest],
    uid: str,
    *,
    let_jobs_end: bool = False,
) -> Converged:
    """Applies the manifests of one session, then prunes. `seen` is its memory from one call to the next.

    `let_jobs_end`: Jobs that are no longer wanted run on until they have ended.

    One object that can't be applied does not keep the others from being applied. Raises Unreachable.
    """
    done = Converged()
    wanted = [stamped(manifest) for manifest in manifests]
    keys = {key_of(manifest["kind"], manifest) for manifest in wanted}
    least = _least_replicas(wanted)
    for manifest in wanted:
        key = key_of(manifest["kind"], manifest)
        try:
            _apply(kube, cache, seen, key, manifest, least.get(key), done)
        except (ApiError, NotOurs) as error:
            done.failed[key] = f"{key[0]} {key[2]}: {error}"
            log.warning("not applied", kind=key[0], name=key[2], why=str(error))
    if not done.failed:
        _prune(kube, cache, seen, keys, uid, let_jobs_end)
    return done


def _apply(
    kube: Kube,
    cache: Cache,
    seen: dict[Key, Seen],
    key: Key,
    manifest: Manifest,
    least: int | None,
    done: Converged,
) -> None:
    kind, live = BY_NAME[key[0]], cache.get(*key)
    if live is not None and (kind.name == "Job" or _is_as_left(kind, live, manifest, seen.get(key))):
        return  # NB: a Job's template can't be changed; a running one continues as it began
    if least is not None and live is not None and _owns_replicas(live):
        _hand_over(kube, kind, key, live["spec"].get("replicas", least))
    applied = kube.apply(kind, manifest) if live is not None else _made(kube, kind, key, manifest)
    metrics.APPLIED.labels(kind.name).inc()
    if least is not None and live is None:
        _hand_over(kube, kind, key, least)
        applied = kube.apply(kind, manifest)
    done.applied += 1
    if _was_drift(kind, live, applied, manifest, seen.get(key)):
        done.drifted.append(key)
        metrics.DRIFT.labels(kind.name).inc()
        log.warning("drift corrected", kind=key[0], namespace=key[1], name=key[2])
    seen[key] = Seen(applied["metadata"]["uid"], _version(kind, applied))
    cache.put(kind, applied)


def _made(kube: Kube, kind: Kind, key: Key, manifest: Manifest) -> Manifest:
    """Creates a child that is not known, or corrects it if it is ours and has lost its labels. Raises NotOurs.

    NB: a forced apply would take over another owner's object of this name, and delete it with the session.
    Kinds of which two objects can be merged without a conflict are looked up first.
    """
    if kind.name in _MERGED:
        _require_ours(kube.find(kind, key[1], key[2]), manifest)
    try:
        return kube.apply(kind, manifest, force=False)
    except ApiError as error:
        if error.status != CONFLICT:
            raise
    _require_ours(kube.find(kind, key[1], key[2]), manifest)
    return kube.apply(kind, manifest)


def _require_ours(found: Manifest | None, manifest: Manifest) -> None:
    if found is None:
        return
    metadata, uid = found["metadata"], manifest["metadata"]["labels"][UID_LABEL]
    if (metadata.get("labels") or {}).get(UID_LABEL) != uid and not _is_ours(found, uid):
        raise NotOurs(
            "one of this name is there, and it is not this session's: take it away, or rename the session"
        )


def _version(kind: Kind, found: Manifest) -> str:
    """Returns a version that changes with every change of what was asked for, and not with the status alone if the
    two can be distinguished."""
    metadata = found["metadata"]
    return str(metadata["generation"] if kind.generations else metadata["resourceVersion"])


def _is_as_left(kind: Kind, live: Manifest, wanted: Manifest, seen: Seen | None) -> bool:
    if not _has_metadata(live, wanted):
        return False
    return seen == Seen(live["metadata"]["uid"], _version(kind, live))


def _has_metadata(live: Manifest, wanted: Manifest) -> bool:
    """Returns whether all wanted labels and annotations are there: a change of them makes no new generation."""
    return all(
        (live["metadata"].get(what) or {}).get(name) == value
        for what in ("labels", "annotations")
        for name, value in wanted["metadata"].get(what, {}).items()
    )


def _was_drift(kind: Kind, live: Manifest | None, applied: Manifest, wanted: Manifest, seen: Seen | None) -> bool:
    """Returns whether this apply undid what others did, instead of just applying a new desired state."""
    if live is None:
        return seen is not None
    stamp = wanted["metadata"]["annotations"][DESIRED_ANNOTATION]
    if (live["metadata"].get("annotations") or {}).get(DESIRED_ANNOTATION) != stamp:
        return False
    return not _has_metadata(live, wanted) or _version(kind, applied) != _version(kind, live)


# --- Replicas that an autoscaler owns


def _least_replicas(wanted: Iterable[Manifest]) -> Mapping[Key, int]:
    """Returns the number of replicas at which the autoscaler begins, by workload."""
    found: dict[Key, int] = {}
    for manifest in wanted:
        spec = manifest.get("spec", {})
        if manifest["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = spec["scaleTargetRef"]
            key = (target["kind"], manifest["metadata"]["namespace"], target["name"])
            found[key] = spec.get("minReplicas", spec.get("minReplicaCount"))
    return found


def _owns_replicas(live: Manifest) -> bool:
    """Returns whether we have set the number of replicas, so that giving up the field would reset it to one."""
    return any(
        "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in live["metadata"].get("managedFields", ())
        if entry["manager"] == MANAGER and not entry.get("subresource")
    )


def _hand_over(kube: Kube, kind: Kind, key: Key, replicas: int) -> None:
    partial: dict[str, Any] = {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {"name": key[2], "namespace": key[1]},
        "spec": {"replicas": replicas},
    }
    kube.apply(kind, partial, manager=HANDOVER)


# --- Pruning


def _prune(kube: Kube, cache: Cache, seen: dict[Key, Seen], keys: set[Key], uid: str, let_jobs_end: bool) -> None:
    """Deletes what was made for the session and is no longer wanted.

    Workloads stay until all that replace them are available: no vote may be left without a pod to take it. Jobs
    that have ended stay for inspection.
    """
    ready = all(available(found) for key in keys if key[0] in WORKLOADS for found in [cache.get(*key)])
    for key, found in cache.labelled(UID_LABEL, uid).items():
        if key in keys or not _is_ours(found, uid) or found["metadata"].get("deletionTimestamp"):
            continue
        if key[0] in WORKLOADS and not ready:
            continue
        if key[0] == "Job" and (let_jobs_end or finished(found)):
            continue
        log.info("pruned", kind=key[0], namespace=key[1], name=key[2])
        kube.delete(BY_NAME[key[0]], key[1], key[2], found["metadata"]["uid"])
        cache.remove(key[0], found)
        seen.pop(key, None)


def _is_ours(found: Manifest, uid: str) -> bool:
    """Returns whether it was made for the session itself, not by its CronJob. Keys and topics have no owner:
    deletionPolicy decides about them."""
    return any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences", ()))


def available(workload: Manifest | None) -> bool:
    """Returns whether all of a Deployment or StatefulSet runs as last applied."""
    if workload is None:
        return False
    status, wanted = workload.get("status", {}), workload["spec"].get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= workload["metadata"]["generation"]
    return bool(
        seen and all(status.get(f"{what}Replicas", 0) >= wanted for what in ("updated", "ready", "available"))
    )


def finished(job: Manifest) -> bool:
    """Returns whether a Job has ended, successfully or not."""
    return any(_is_true(condition, "Complete", "Failed") for condition in _conditions(job))


def failed(job: Manifest) -> str | None:
    """Returns why a Job has given up, None if it has not."""
    return next(
        (
            condition.get("message") or condition.get("reason", "it failed")
            for condition in _conditions(job)
            if _is_true(condition, "Failed")
        ),
        None,
    )


def _conditions(found: Manifest) -> list[Any]:
    return list(found.get("status", {}).get("conditions") or ())


def _is_true(condition: Mapping[str, Any], *types: str) -> bool:
    return condition["type"] in types and condition["status"] == "True"
