"""Deletion of a session: does what its deletionPolicy asks for, within a time limit, then removes the finalizer.

Children in the namespace are deleted with the session by their owner references. What has no owner (keys, topics,
ledger rows, Redis keys) is deleted here, or stays.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from psephos.platform.errors import PsephosError
from psephos.platform.logs import get_logger
from psephos_operator import metrics
from psephos_operator.builders.meta import UID_LABEL, Manifest
from psephos_operator.kube.client import ApiError, Kube, Unreachable
from psephos_operator.kube.events import WARNING, tell
from psephos_operator.kube.informer import Cache
from psephos_operator.kube.kinds import BY_NAME, PODS, SESSION
from psephos_operator.reconcile.apply import WORKLOADS
from psephos_operator.reconcile.backends import Backends
from psephos_operator.settings import OperatorSettings

FINALIZER = "psephos.dev/cleanup"
DELETE = "Delete"
RETRY_S = 2.0
_RUNNING = (*WORKLOADS, "Job", "CronJob", "HorizontalPodAutoscaler", "ScaledObject")
log = get_logger()


class Unfinished(PsephosError):
    """Cleanup has to wait. The message says for what, in one line."""


def hold(kube: Kube, cache: Cache, resource: Manifest) -> Manifest:
    """Adds our finalizer to the session and returns it. Raises ApiError Conflict if it has changed meanwhile."""
    metadata = resource["metadata"]
    finalizers = metadata.get("finalizers", [])
    if FINALIZER in finalizers:
        return resource
    held = _finalizers(kube, resource, [*finalizers, FINALIZER])
    if held is None:
        return resource
    cache.put(SESSION, held)
    return held


def release(kube: Kube, resource: Manifest) -> None:
    """Removes our finalizer."""
    finalizers = resource["metadata"].get("finalizers", [])
    _finalizers(kube, resource, [each for each in finalizers if each != FINALIZER])


def _finalizers(kube: Kube, resource: Manifest, finalizers: list[str]) -> Manifest | None:
    metadata = resource["metadata"]
    known = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
    patch = {"metadata": {**known, "finalizers": finalizers}}
    return kube.merge(SESSION, metadata["namespace"], metadata["name"], patch)


def clean_up(
    settings: OperatorSettings, kube: Kube, cache: Cache, backends: Backends, resource: Manifest, done: set[str]
) -> float | None:
    """Makes one pass over a session that is being deleted. Returns the seconds until the next pass, None once the
    finalizer is removed.

    After `cleanup_s` it is removed in any case, with an event that names what was left behind. `done`: what
    earlier passes have deleted; this one adds to it.
    """
    if FINALIZER not in resource["metadata"].get("finalizers", []):
        return None
    outcome = "retained"
    if resource.get("spec", {}).get("deletionPolicy") == DELETE:
        outcome = "deleted"
        left = list(_delete(kube, cache, backends, resource, done))
        if left:
            if _age_s(resource) < settings.cleanup_s:
                return RETRY_S
            outcome = "gave-up"
            tell(kube, resource, "CleanupGaveUp", f"left behind: {'; '.join(left)}", WARNING)
    release(kube, resource)
    metrics.CLEANUPS.labels(outcome).inc()
    log.info("session let go", name=resource["metadata"]["name"], outcome=outcome)
    return None


def _delete(kube: Kube, cache: Cache, backends: Backends, resource: Manifest, done: set[str]) -> Iterator[str]:
    """Deletes all there is; yields what could not be deleted, or is not gone yet. Nothing is deleted while pods
    still run: they would write it again."""
    metadata = resource["metadata"]
    uid: str = metadata["uid"]
    try:
        _stop(kube, cache, metadata)
    except (Unfinished, ApiError, Unreachable) as error:
        yield str(error)
        return
    url = str((resource.get("spec", {}).get("exports") or {}).get("url", ""))
    steps: dict[str, Callable[[], None]] = {
        "exports": lambda: backends.delete_exports(uid, metadata["name"], url),
        "topics": lambda: _delete_topics(kube, cache, backends, uid),
        "ledger rows": lambda: backends.delete_rows(uid),
        "Redis keys": lambda: backends.delete_keys(uid),
        "keys": lambda: _delete_children(kube, cache, uid, ("Secret",)),
    }
    for what, step in steps.items():
        if what in done:  # looking for ledger rows again would read the whole table
            continue
        try:
            step()
            done.add(what)
        except Exception as error:  # whatever it is, the finalizer is removed in the end
            log.warning("cleanup", what=what, why=str(error))
            yield f"{what}: {error}"


def _stop(kube: Kube, cache: Cache, metadata: dict[str, Any]) -> None:
    _delete_children(kube, cache, metadata["uid"], _RUNNING)
    pods, _ = kube.list(PODS, metadata["namespace"], f"{UID_LABEL}={metadata['uid']}", whole=False)
    if pods:
        raise Unfinished(f"{len(pods)} pods have not ended yet")


def _delete_topics(kube: Kube, cache: Cache, backends: Backends, uid: str) -> None:
    _delete_children(kube, cache, uid, ("KafkaTopic",))
    backends.delete_topics(uid)


def _delete_children(kube: Kube, cache: Cache, uid: str, kinds: tuple[str, ...]) -> None:
    for key, found in cache.labelled(UID_LABEL, uid).items():
        if key[0] in kinds and not found["metadata"].get("deletionTimestamp"):
            kube.delete(BY_NAME[key[0]], key[1], key[2], found["metadata"]["uid"])


def _age_s(resource: Manifest) -> float:
    begun = datetime.fromisoformat(resource["metadata"]["deletionTimestamp"].replace("Z", "+00:00"))
    return (datetime.now(UTC) - begun).total_seconds()
