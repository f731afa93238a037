"""The leader's loop: events wake sessions, each worker reconciles one session at a time.

No error ends this loop: what fails is logged, counted, and retried with increasing delay.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator

from psephos.platform.backoff import Backoff, spread
from psephos.platform.logs import get_logger
from psephos_operator import metrics
from psephos_operator.builders.meta import MANAGER, UID_LABEL, Manifest
from psephos_operator.builders.plan import Api
from psephos_operator.handlers import Sessions
from psephos_operator.kube.client import ApiError, Kube, Unreachable
from psephos_operator.kube.informer import Cache, Watcher, forget_gone
from psephos_operator.kube.kinds import CHILDREN, SESSION, Kind
from psephos_operator.kube.leader import NotLeading
from psephos_operator.kube.workqueue import WorkQueue
from psephos_operator.reconcile.backends import Backends
from psephos_operator.reconcile.reconciler import Reconciler
from psephos_operator.settings import OperatorSettings

SELECTOR = f"app.kubernetes.io/managed-by={MANAGER}"
SYNC_S = 2.0
BACKOFF_S = (1.0, 60.0)
HANGING_S = 900.0  # no pass takes this long: sealing waits a minute for brokers, and each request has a timeout
log = get_logger()

Key = tuple[str, str]
"""Namespace and name of a session."""


class Loop:
    """Runs from `start` to `stop`."""

    def __init__(
        self, settings: OperatorSettings, kube: Kube, backends: Backends, leading: Callable[[], None]
    ) -> None:
        """`leading` raises NotLeading if another replica may be leading by now."""
        self._settings, self._kube = settings, kube
        self._cache = Cache()
        self._queue: WorkQueue[Key] = WorkQueue()
        self._apis: frozenset[Api] = frozenset()
        self._reconciler = Reconciler(settings, kube, self._cache, backends, lambda: self._apis, leading)
        self._sessions = Sessions(settings, kube, self._cache, lambda found: self._wake(SESSION, found))
        self._watchers: dict[tuple[str, str | None], Watcher] = {}
        self._stop = threading.Event()
        self._backoffs: dict[Key, Backoff] = {}
        self._busy_since: dict[str, float] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
            for number in range(settings.workers)
        ]
        self._starter = threading.Thread(target=self._discover, name="discovery", daemon=True)

    def start(self) -> None:
        """Returns at once; workers start once everything that exists has been listed."""
        self._starter.start()

    def stop(self, timeout_s: float = 15.0) -> None:
        """Stops work in progress, as far as that is possible within the timeout."""
        self._stop.set()
        for watcher in self._watchers.values():
            watcher.stop()
        self._queue.close()
        deadline = time.monotonic() + timeout_s
        self._sessions.stop(timeout_s / 3)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def troubles(self) -> list[str]:
        """Reasons why this loop does not run; empty if it does."""
        return list(self._find_troubles())

    def show(self) -> None:
        """Sets the gauges."""
        for phase, count in self._reconciler.phases().items():
            metrics.SESSIONS.labels(phase).set(count)
        metrics.QUEUE.set(self._queue.waiting)
        due = self._reconciler.next_transition_s()
        metrics.NEXT_TRANSITION.set(float("nan") if due is None else due)

    def forget_gauges(self) -> None:
        """Clears the gauges: a standby reports no sessions."""
        metrics.SESSIONS.clear()
        metrics.QUEUE.set(0)
        metrics.NEXT_TRANSITION.set(float("nan"))

    def _find_troubles(self) -> Iterator[str]:
        if not self._starter.is_alive():
            yield "discovery has ended"
        yield from self._sessions.troubles
        for thread in self._threads:
            if thread.ident is not None and not thread.is_alive():
                yield f"{thread.name} has ended"
        for name, since in list(self._busy_since.items()):
            if time.monotonic() - since > HANGING_S:
                yield f"{name} hangs"

    # --- Discovery

    def _discover(self) -> None:
        """Finds out from time to time which optional APIs there are: one installed later is used from then on."""
        begun = False
        while not self._stop.is_set():
            try:
                self._look_around()
                if not begun:
                    self._await_sync()
                    begun = True
                    for thread in self._threads:
                        thread.start()
                    self._sessions.start()
                for namespace in self._settings.namespaces or (None,):
                    for gone in forget_gone(self._kube, self._cache, SESSION, namespace):
                        self._wake(SESSION, gone)
            except (ApiError, Unreachable) as error:
                log.warning("the API server does not answer", why=str(error))
                self._stop.wait(SYNC_S)
                continue
            except Exception as error:
                log.error("discovery failed", exc_info=error)
            self._stop.wait(self._settings.resync_s)

    def _look_around(self) -> None:
        apis = self._kube.apis()
        if apis != self._apis:
            log.info("apis", found=sorted(api.value for api in apis))
            self._apis = apis
            for resource in self._cache.all(SESSION.name):
                self._wake(SESSION, resource)
        wanted = watched(self._settings, apis)
        for gone in set(self._watchers) - {(kind.name, namespace) for kind, namespace in wanted}:
            self._watchers.pop(gone).stop()
            self._cache.keep_only(*gone, ())
        for kind, namespace in wanted:
            if (kind.name, namespace) not in self._watchers:
                watcher = Watcher(self._kube, self._cache, kind, namespace, SELECTOR, self._wake)
                self._watchers[kind.name, namespace] = watcher
                watcher.start()

    def _await_sync(self) -> None:
        """Waits for all first lists. NB: working before that would apply everything again, and prune nothing."""
        for (kind, _), watcher in self._watchers.items():
            while not watcher.wait_synced(SYNC_S):
                if self._stop.is_set():
                    return
                log.info("waiting for the first list", kind=kind)

    def _wake(self, kind: Kind, found: Manifest) -> None:
        metadata = found["metadata"]
        if kind is SESSION:
            self._queue.add((metadata["namespace"], metadata["name"]))
            return
        uid = (metadata.get("labels") or {}).get(UID_LABEL)
        for resource in self._cache.all(SESSION.name):
            if resource["metadata"]["uid"] == uid:
                self._queue.add((resource["metadata"]["namespace"], resource["metadata"]["name"]))

    # --- Work

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            name = threading.current_thread().name
            self._busy_since[name] = time.monotonic()
            try:
                after_s = self._look(key)
            finally:
                self._busy_since.pop(name, None)
                self._queue.done(key)
            if after_s is not None:
                self._queue.add(key, after_s)

    def _look(self, key: Key) -> float | None:
        """Makes one reconcile pass; returns in how many seconds the next one is due."""
        begun, outcome = time.monotonic(), "error"
        try:
            after_s = self._reconciler.reconcile(*key)
            outcome = "done"
            self._backoffs.pop(key, None)
        except (ApiError, Unreachable) as error:
            conflict = isinstance(error, ApiError) and error.status == 409
            outcome = "conflict" if conflict else "unavailable"
            log.info("look again", namespace=key[0], name=key[1], why=str(error))
            return self._back_off(key)
        except NotLeading as error:  # the loop is about to be stopped, or the lease is renewed after all
            outcome = "not-leading"
            log.info("look again", namespace=key[0], name=key[1], why=str(error))
            return self._back_off(key)
        except Exception as error:
            log.error("look failed", namespace=key[0], name=key[1], exc_info=error)
            return self._back_off(key)
        finally:
            metrics.RECONCILES.labels(outcome).inc()
            metrics.SECONDS.observe(time.monotonic() - begun)
        if after_s is not None and after_s >= self._settings.resync_s:
            after_s *= random.uniform(0.8, 1.0)  # noqa: S311 - spreads load
        return after_s

    def _back_off(self, key: Key) -> float:
        return spread(self._backoffs.setdefault(key, Backoff(*BACKOFF_S)).next_s())


def watched(settings: OperatorSettings, apis: frozenset[Api]) -> list[tuple[Kind, str | None]]:
    """Returns which kinds of children to watch in which namespaces (None: all of them). Pure."""
    namespaces: tuple[str | None, ...] = settings.namespaces or (None,)
    found: list[tuple[Kind, str | None]] = []
    for kind in CHILDREN:
        if kind.needs is not None and kind.needs not in apis:
            continue
        if kind.needs is Api.STRIMZI:
            found += [(kind, settings.strimzi_namespace)] if settings.strimzi_namespace else []
            continue
        found += [(kind, namespace) for namespace in namespaces]
    return found
