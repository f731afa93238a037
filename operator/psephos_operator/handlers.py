"""Kopf's part: lists and watches sessions, keeps their cache current, and wakes the loop that reconciles them.

There is one handler, of bare events, and it returns at once: reconcile passes take long and block, so workers make
them (see `controller.py`). NB: with a daemon, a timer or a handler of any other kind, Kopf would put its own
finalizer and annotations on every session.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import kopf

from psephos.platform.backoff import Backoff, spread
from psephos.platform.logs import get_logger
from psephos_operator import metrics
from psephos_operator.builders.meta import Manifest
from psephos_operator.kube.client import CONNECT_S, PAGE, WATCH_S, WATCH_SLACK_S, Kube
from psephos_operator.kube.informer import Cache
from psephos_operator.kube.kinds import SESSION
from psephos_operator.settings import OperatorSettings

BEAT_S = 0.5
SILENT_S = 60.0  # an event loop that has not run for this long hangs
BACKOFFS_S = (0.5, 1, 2, 5)  # of a request that failed; then Kopf ends, and is started again
_MEANT = "OS signals are ignored"  # the main thread handles them
_PAUSE_S = (0.5, 10.0)  # first and longest between two starts
log = get_logger()

Changed = Callable[[Manifest], None]


class Sessions:
    """A Kopf operator in its own thread and event loop, from `start` to `stop`."""

    def __init__(self, settings: OperatorSettings, kube: Kube, cache: Cache, changed: Changed) -> None:
        """`changed` is called for each difference, in the event loop: it must not block."""
        self._settings, self._kube, self._cache, self._changed = settings, kube, cache, changed
        self._stop = threading.Event()
        self._beat_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        """Returns at once."""
        _route_logs()
        self._beat_at = time.monotonic()
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stops processing events. Waits at most `timeout_s` for the thread to end."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def troubles(self) -> Iterator[str]:
        """Yields reasons why no events come in; nothing before the start."""
        if self._thread.ident is None:
            return
        if not self._thread.is_alive():
            yield "kopf has ended"
        elif time.monotonic() - self._beat_at > SILENT_S:
            yield "kopf's event loop hangs"

    def _run(self) -> None:
        """Runs Kopf. NB: a bad response (a 404 or a 500 to a watch) ends it. It is started again, with a list."""
        backoff = Backoff(*_PAUSE_S, steady_s=SILENT_S)
        while not self._stop.is_set():
            begun, why = time.monotonic(), "no reason given"
            try:
                self._require_kind()
                asyncio.run(self._operate())
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
            if self._stop.is_set():
                return
            metrics.WATCH_ERRORS.labels(SESSION.name).inc()
            pause_s = backoff.after(time.monotonic() - begun)
            log.warning("watch broke off", kind=SESSION.name, why=why, again_s=pause_s)
            self._beat_at = time.monotonic()
            self._stop.wait(spread(pause_s))

    def _require_kind(self) -> None:
        """Lists sessions, since Kopf would wait forever for a kind that is missing when it starts. Raises
        ApiError, Unreachable."""
        for namespace in self._settings.namespaces or (None,):
            self._kube.list(SESSION, namespace, whole=False)

    async def _operate(self) -> None:
        ending = asyncio.Event()  # NB: one per run; a thread that waits for a shared one would outlive the run
        beating = asyncio.create_task(self._beat(ending))
        try:
            await kopf.operator(
                registry=self._registry(),
                settings=kopf_settings(self._settings),
                clusterwide=not self._settings.namespaces,
                namespaces=self._settings.namespaces,
                standalone=True,  # the Lease elects
                # Otherwise Kopf asks for the user's name, and a pod's user has none.
                identity=self._settings.identity,  # type: ignore[arg-type]  # a NewType of Kopf's own
                stop_flag=ending,
            )
        finally:
            beating.cancel()

    async def _beat(self, ending: asyncio.Event) -> None:
        while not self._stop.is_set():
            self._beat_at = time.monotonic()
            await asyncio.sleep(BEAT_S)
        ending.set()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**_: Any) -> kopf.ConnectionInfo:
            return connection(self._kube)

        group, version = SESSION.api_version.split("/")

        @kopf.on.event(group, version, SESSION.plural, registry=registry)
        async def take_in(event: Any, **_: Any) -> None:
            self._take_in(event["type"], event["object"])

        return registry

    def _take_in(self, what: str | None, found: Manifest) -> None:
        """Takes one event. `what`: its type, None for a listed object."""
        if self._stop.is_set():
            return
        gone = what == "DELETED"
        # What we wrote ourselves is not new to the cache.
        if self._cache.remove(SESSION.name, found) if gone else self._cache.put(SESSION, found):
            self._changed(found)


def kopf_settings(settings: OperatorSettings) -> kopf.OperatorSettings:
    """Returns settings with watches that can't freeze, and nothing that needs additional rights. Pure."""
    found = kopf.OperatorSettings()
    found.watching.server_timeout = WATCH_S
    found.watching.client_timeout = WATCH_S + WATCH_SLACK_S
    found.watching.connect_timeout = CONNECT_S
    found.watching.chunk_size = PAGE
    found.networking.request_timeout = settings.request_s
    found.networking.connect_timeout = CONNECT_S
    found.networking.error_backoffs = BACKOFFS_S
    found.scanning.disabled = True  # otherwise it watches definitions and namespaces of the whole cluster
    found.posting.enabled = False  # the reconciler writes events
    return found


def connection(kube: Kube) -> kopf.ConnectionInfo:
    """Returns how `kube` connects to the API server. Kopf asks again when it is refused: tokens are renewed."""
    configuration = kube.configuration
    scheme, _, token = kube.authorization().get("authorization", "").partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
    )


class _Log(logging.Handler):
    """A handler that logs Kopf's warnings and errors like all others."""

    def emit(self, record: logging.LogRecord) -> None:
        if not (says := record.getMessage()).startswith(_MEANT):
            log.log(record.levelno, "kopf", says=says)


def _route_logs() -> None:
    logger = logging.getLogger("kopf")
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    if not logger.handlers:
        logger.addHandler(_Log())
