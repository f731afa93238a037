"""A cache of our objects in the cluster. Kopf delivers sessions (`handlers.py`), `Watcher` their children.

The server filters by label and sends only the metadata of most kinds, so the cache stays small in a cluster of any
size and holds no keys. A watch that ends, freezes or is too old is started again; the next list shows what was
missed meanwhile, deletions included.
"""

import threading
import time
from collections.abc import Callable, Iterable

from psephos.platform.backoff import Backoff, spread
from psephos.platform.logs import get_logger
from psephos_operator import metrics
from psephos_operator.builders.meta import Manifest
from psephos_operator.kube.client import ApiError, Gone, Kube, Unreachable
from psephos_operator.kube.kinds import Kind

_PAUSE_S = (0.2, 10.0)  # first and longest between two attempts
log = get_logger()

Key = tuple[str, str, str]
"""Kind, namespace, name."""


class Cache:
    """Objects by key. Threads may share it."""

    def __init__(self) -> None:
        self._objects: dict[Key, Manifest] = {}
        self._lock = threading.Lock()

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        return self._objects.get((kind, namespace, name))

    def all(self, kind: str) -> list[Manifest]:
        """Returns all objects of a kind."""
        with self._lock:
            return [found for (of, _, _), found in self._objects.items() if of == kind]

    def labelled(self, label: str, value: str) -> dict[Key, Manifest]:
        """Returns all objects that have this label."""
        with self._lock:
            return {
                key: found
                for key, found in self._objects.items()
                if (found["metadata"].get("labels") or {}).get(label) == value
            }

    def put(self, kind: Kind, found: Manifest) -> bool:
        """Stores an object unless the cached one is as new or newer; returns whether it was stored."""
        key, found = key_of(kind.name, found), _slim(kind, found)
        with self._lock:
            known = self._objects.get(key)
            if known is not None and not _newer(found, known):
                return False
            self._objects[key] = found
            return True

    def remove(self, kind: str, gone: Manifest) -> bool:
        """Evicts an object unless another of its name has replaced it meanwhile."""
        key = key_of(kind, gone)
        with self._lock:
            known = self._objects.get(key)
            if known is None or known["metadata"]["uid"] != gone["metadata"]["uid"]:
                return False
            del self._objects[key]
            return True

    def keep_only(self, kind: str, namespace: str | None, present: Iterable[Manifest]) -> list[Manifest]:
        """Evicts and returns the objects that a complete list no longer has."""
        keys = {key_of(kind, each) for each in present}
        with self._lock:
            gone = [
                key for key in self._objects if key[0] == kind and namespace in (None, key[1]) and key not in keys
            ]
            return [self._objects.pop(key) for key in gone]


def key_of(kind: str, found: Manifest) -> Key:
    metadata = found["metadata"]
    return kind, metadata["namespace"], metadata["name"]


def _slim(kind: Kind, found: Manifest) -> Manifest:
    """Returns the part of an object that is cached."""
    if kind.whole:
        return found
    return {"metadata": {name: value for name, value in found["metadata"].items() if name != "managedFields"}}


def _newer(found: Manifest, known: Manifest) -> bool:
    """NB: versions are opaque to clients; only since 1.35 do API servers state that they grow."""
    one, other = found["metadata"], known["metadata"]
    return one["uid"] != other["uid"] or int(one["resourceVersion"]) > int(other["resourceVersion"])


def forget_gone(kube: Kube, cache: Cache, kind: Kind, namespace: str | None) -> list[Manifest]:
    """Evicts objects that no longer exist and returns them. Raises ApiError, Unreachable.

    For what Kopf watches: after a broken watch it lists again, but does not report what was deleted meanwhile.
    """
    known = [each for each in cache.all(kind.name) if namespace in (None, each["metadata"]["namespace"])]
    listed, _ = kube.list(kind, namespace, whole=False)  # NB: newer than `known`: what it lacks is gone
    there = {each["metadata"]["uid"] for each in listed}
    return [each for each in known if each["metadata"]["uid"] not in there and cache.remove(kind.name, each)]


class Watcher:
    """Keeps one kind of one namespace (None: all) current, and calls `changed` for each difference."""

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        kind: Kind,
        namespace: str | None,
        selector: str,
        changed: Callable[[Kind, Manifest], None],
    ) -> None:
        self._kube, self._cache, self._kind = kube, cache, kind
        self._namespace, self._selector, self._changed = namespace, selector, changed
        self._stop = threading.Event()
        self._synced = threading.Event()
        name = f"watch-{kind.plural}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end; it may hang in its last watch for a while, but reports no further change."""
        self._stop.set()

    def wait_synced(self, timeout_s: float) -> bool:
        """Waits for the first list; returns whether it is complete."""
        return self._synced.wait(timeout_s)

    def _run(self) -> None:
        backoff, version = Backoff(*_PAUSE_S), ""
        while not self._stop.is_set():
            try:
                version = version or self._list()
                for reached in self._follow(version):
                    version = reached
                    backoff.reset()
            except Gone:
                version = ""
            except (ApiError, Unreachable) as error:
                version = ""
                pause_s = backoff.next_s()
                metrics.WATCH_ERRORS.labels(self._kind.name).inc()
                log.warning("watch broke off", kind=self._kind.name, why=str(error), again_s=round(pause_s, 1))
                self._stop.wait(spread(pause_s))
            except Exception as error:  # if this thread died, nothing would watch its kind
                version = ""
                log.error("watch failed", kind=self._kind.name, exc_info=error)
                self._stop.wait(backoff.next_s())

    def _list(self) -> str:
        found, version = self._kube.list(self._kind, self._namespace, self._selector)
        for each in found:
            if self._cache.put(self._kind, each):
                self._tell(each)
        for each in self._cache.keep_only(self._kind.name, self._namespace, found):
            self._tell(each)
        self._synced.set()
        return version

    def _follow(self, version: str) -> Iterable[str]:
        """Yields the version up to which all changes have been processed."""
        begun = time.monotonic()
        for what, found in self._kube.watch(self._kind, self._namespace, self._selector, version):
            if self._stop.is_set():
                return
            if what == "DELETED":
                if self._cache.remove(self._kind.name, found):
                    self._tell(found)
            elif what != "BOOKMARK" and self._cache.put(self._kind, found):
                self._tell(found)
            yield found["metadata"]["resourceVersion"]
        if time.monotonic() - begun < 1:  # do not ask without pause a server that ends watches at once
            self._stop.wait(1)

    def _tell(self, found: Manifest) -> None:
        if not self._stop.is_set():
            self._changed(self._kind, found)
