"""The admin port of a role: /livez, /readyz and /metrics, served by a thread of its own.

The thread makes a hanging loop visible: liveness is the age of the loop's last heartbeat.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from psephos.platform.settings import Settings, SettingsError

HEARTBEAT_LIMIT_S = 30.0  # a loop that beats every second and is silent for this long hangs


class Health:
    """The state that the probes report. Any thread may set it; the admin thread reads it."""

    def __init__(self, *, heartbeat_limit_s: float = HEARTBEAT_LIMIT_S) -> None:
        self._limit = heartbeat_limit_s
        self._beat = time.monotonic()
        self._reasons: dict[str, str] = {"start": "starting"}

    def beat(self) -> None:
        """Records that the role's loop has gone round."""
        self._beat = time.monotonic()

    def ready(self, cause: str = "start") -> None:
        """Records that `cause` no longer keeps this role from being ready."""
        self._reasons.pop(cause, None)

    def not_ready(self, cause: str, why: str) -> None:
        """Records that `cause` keeps this role from being ready, until `ready(cause)`."""
        self._reasons[cause] = why

    @property
    def age_s(self) -> float:
        """Seconds since the loop last went round."""
        return time.monotonic() - self._beat

    @property
    def alive(self) -> bool:
        return self.age_s < self._limit

    @property
    def reasons(self) -> dict[str, str]:
        """The reasons why this role is not ready; empty if it is."""
        return dict(self._reasons)


class AdminServer:
    """Serves a role's probes and metrics until `close`."""

    def __init__(self, host: str, port: int, health: Health, registry: CollectorRegistry) -> None:
        """Starts serving. Raises OSError if the port is taken. Port 0 picks a free one, see `port`."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _answer(self, health, registry)

            def log_message(self, *_: object) -> None:
                """Probes are not worth a log line."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="admin", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def open_admin(settings: Settings, port: int, health: Health, registry: CollectorRegistry) -> AdminServer:
    """The admin server of this process, with its role's metrics. Raises SettingsError if the port is taken."""
    try:
        return AdminServer(settings.host, port, health, registry)
    except OSError as error:
        raise SettingsError(f"PSEPHOS_ADMIN_PORT={settings.admin_port}: port {port}: {error.strerror}") from None


def _answer(request: BaseHTTPRequestHandler, health: Health, registry: CollectorRegistry) -> None:
    match request.path.partition("?")[0]:
        case "/livez":
            state = {"alive": health.alive, "heartbeatAgeSeconds": round(health.age_s, 1)}
            _send(request, 200 if health.alive else 503, state)
        case "/readyz":
            reasons = health.reasons
            _send(request, 503 if reasons else 200, {"ready": not reasons, "reasons": reasons})
        case "/metrics":
            _send_bytes(request, 200, CONTENT_TYPE_LATEST, generate_latest(registry))
        case _:
            _send(request, 404, {"paths": ["/livez", "/readyz", "/metrics"]})


def _send(request: BaseHTTPRequestHandler, status: int, body: object) -> None:
    _send_bytes(request, status, "application/json", json.dumps(body).encode() + b"\n")


def _send_bytes(request: BaseHTTPRequestHandler, status: int, kind: str, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
