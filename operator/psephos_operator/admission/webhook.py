"""The validating webhook as a server: its own threads, and certificates that change while it runs.

Every replica of the operator serves it, leader or not. The certificate is in a Secret that all of them read. If it
is self-signed, the replica that finds it due writes a new one; the API server gets its authority *before* any
replica uses it, and keeps the previous one for as long as that is valid, so no apply in between fails.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import tempfile
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from psephos.platform.logs import get_logger
from psephos_operator.admission.certificates import Bundle, is_due, renewed
from psephos_operator.admission.review import NotAReview, answer
from psephos_operator.settings import OperatorSettings

PATH = "/validate"
CHECK_S = 30.0  # between two polls of the Secret
REQUEST_LIMIT = 8 * 1024 * 1024  # an AdmissionReview holds a session twice; etcd takes up to 1.5 MiB of each
CONNECTION_S = 60.0  # a silent connection is then given up
NOT_FOUND, CONFLICT = 404, 409

log = get_logger()


class CertificateStore:
    """The Secret of the certificate, and the caBundle in the ValidatingWebhookConfiguration."""

    def __init__(self, settings: OperatorSettings, api: client.ApiClient) -> None:
        self._namespace, self._secret = settings.namespace, settings.webhook_name
        self._configuration = settings.webhook_name
        self._timeout = settings.request_s
        self._core = client.CoreV1Api(api)
        self._admission = client.AdmissionregistrationV1Api(api)

    def read(self) -> tuple[Bundle | None, str]:
        """Returns the stored bundle or None, and the Secret's resource version, empty if there is no Secret."""
        try:
            secret = self._core.read_namespaced_secret(
                self._secret, self._namespace, _request_timeout=self._timeout
            )
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None, ""
            raise
        data = {name: base64.b64decode(value) for name, value in (secret.data or {}).items()}
        assert secret.metadata is not None  # every stored object has it
        version = str(secret.metadata.resource_version)
        if not data.get("tls.crt") or not data.get("tls.key"):
            return None, version
        return Bundle(data["tls.crt"], data["tls.key"], data.get("ca.crt", b"")), version

    def write(self, bundle: Bundle, version: str) -> bool:
        """Stores the bundle if the Secret is still as it was at `version`; returns whether it was."""
        parts = {"tls.crt": bundle.certificate, "tls.key": bundle.key, "ca.crt": bundle.authorities}
        secret = client.V1Secret(
            metadata=client.V1ObjectMeta(
                name=self._secret,
                labels={"app.kubernetes.io/part-of": "psephos"},
                resource_version=version or None,
            ),
            type="kubernetes.io/tls",
            data={name: base64.b64encode(value).decode() for name, value in parts.items()},
        )
        try:
            if version:
                self._core.replace_namespaced_secret(
                    self._secret, self._namespace, secret, _request_timeout=self._timeout
                )
            else:
                self._core.create_namespaced_secret(self._namespace, secret, _request_timeout=self._timeout)
        except ApiException as error:
            if error.status in (CONFLICT, NOT_FOUND):
                return False
            raise
        return True

    def trust(self, authorities: bytes) -> None:
        """Makes the API server trust these, and only these; does nothing if it already does, or if no webhook is
        registered."""
        wanted = base64.b64encode(authorities).decode()
        try:
            found = self._admission.read_validating_webhook_configuration(
                self._configuration, _request_timeout=self._timeout
            )
            registered = found.webhooks or []
            if all(hook.client_config.ca_bundle == wanted for hook in registered):
                return
            hooks = [{"name": hook.name, "clientConfig": {"caBundle": wanted}} for hook in registered]
            self._admission.patch_validating_webhook_configuration(
                self._configuration,
                {"webhooks": hooks},
                _content_type="application/strategic-merge-patch+json",  # merges the list by name
                _request_timeout=self._timeout,
            )
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise


class Webhook:
    """The server, from construction to `close`; a context manager.

    It listens at once but refuses handshakes until there is a certificate, see `ready`.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        store: CertificateStore,
        *,
        check_s: float = CHECK_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Raises OSError if the port is in use. Port 0 picks a free one, see `port`."""
        self._settings, self._store, self._check_s, self._now = settings, store, check_s, now
        self._shown: Bundle | None = None
        self._found: Bundle | None = None
        self._over = threading.Event()
        self._server = _Server((settings.listen, settings.webhook_port), now)
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True),
            threading.Thread(target=self._keep_certificates, name="certificates", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def ready(self) -> bool:
        """Whether it can answer, that is, has a certificate."""
        return self._shown is not None

    def close(self) -> None:
        """Stops listening, and closes connections that clients keep for later."""
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()
        for thread in self._threads:
            thread.join()

    def refresh(self) -> None:
        """Checks the certificate once: renews it if it is due and ours, makes it trusted, uses it.

        Raises ApiException or urllib3's errors if the API server refuses or is unavailable; OSError or ValueError
        if what is stored is not a certificate with its key.
        """
        stored, version = self._store.read()
        if self._settings.webhook == "self-signed":
            hosts = self._settings.webhook_hosts
            if is_due(stored, hosts, self._now()):
                stored = renewed(stored or self._shown, hosts, self._now())
                if not self._store.write(stored, version):
                    return  # another replica was faster: the next poll finds its certificate
                log.info("certificate-renewed", expires=stored.expires.isoformat())
            assert stored is not None  # a missing one is always due
            self._store.trust(stored.authorities)
        if stored is None or stored == self._shown:
            return
        if self._shown is not None and stored != self._found:
            self._found = (
                stored  # API servers take their time to learn its authority: it is used from the next poll
            )
            return
        self._server.context = _showing(stored)
        self._shown = stored

    def _keep_certificates(self) -> None:
        while not self._over.is_set():
            try:
                self.refresh()
            except Exception as error:  # whatever it is, the next poll may succeed, and this thread must live
                log.warning("certificate-not-refreshed", error=" ".join(str(error).split())[:300])
            self._over.wait(self._check_s if self.ready else min(self._check_s, 1.0))


def _context() -> ssl.SSLContext:
    """Returns a context without a certificate: it refuses every handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _showing(bundle: Bundle) -> ssl.SSLContext:
    """Returns a new context with this certificate, which OpenSSL reads from a file that is deleted at once.

    NB: never changes a context in use: a handshake in another thread would then fail, or crash the process.
    """
    context = _context()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chain.pem"
        file.touch(mode=0o600)
        file.write_bytes(bundle.certificate + bundle.key)
        context.load_cert_chain(file)
    return context


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], now: Callable[[], datetime]) -> None:
        self.context, self.now = _context(), now
        self._open: weakref.WeakSet[ssl.SSLSocket] = weakref.WeakSet()
        super().__init__(address, _Handler)

    def hang_up(self) -> None:
        """Shuts down open connections: the API server keeps its own for a minute and more."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Runs in the connection's own thread, so that a client that never shakes hands delays no other."""
        request.settimeout(CONNECTION_S)
        with suppress(OSError), self.context.wrap_socket(request, server_side=True) as secured:
            self._open.add(secured)
            super().finish_request(secured, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self._reply(404, {"message": f"nothing is judged here; reviews go to {PATH}"})
            return
        size = self.headers.get("Content-Length", "")
        if not size.isdigit() or int(size) > REQUEST_LIMIT:
            self.close_connection = True
            self._reply(413, {"message": f"a review needs a length of up to {REQUEST_LIMIT} bytes"})
            return
        try:
            reply = answer(json.loads(self.rfile.read(int(size))), self.server.now())
        except NotAReview as error:
            self._reply(400, {"message": str(error)})
        except (ValueError, RecursionError):
            self._reply(400, {"message": "this is no JSON"})
        else:
            response = reply["response"]
            if not response["allowed"]:
                log.info("session-refused", message=response["status"]["message"])
            self._reply(200, reply)

    def _reply(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Refusals are logged where they are decided."""
