"""Sessions as `kubectl apply` makes them, and what the cluster says of them."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.waiting import wait_until

from e2e.certificates import Authority
from e2e.deploy import DOMAIN, HTTP_PORT, HTTPS_PORT, TLS_SECRET, restricted
from e2e.kube import apply, get, items, kubectl
from psephos.client.tokens import Signer, TokenTemplate, signer

TOKEN_KEY = b"a key that only this suite's voters know"
ISSUER = "https://id.example"
LARGE = {"votesPerSecond": 3_000, "viewers": 1_000, "partitions": 4}  # a workload a role
SMALL = {"votesPerSecond": 500, "viewers": 100, "partitions": 2}  # one pod with all of them
NOTICE_S = 20.0
"""How far ahead a test sets the end: the product needs 3 s, and a kubectl on a busy machine takes seconds."""
TWO = [{"id": "tea"}, {"id": "coffee"}]


@dataclass(frozen=True)
class Session:
    """One session in a namespace."""

    name: str
    namespace: str
    tls: bool = True

    @property
    def host(self) -> str:
        return f"{self.name}.{DOMAIN}"

    @property
    def url(self) -> str:
        """Where voters and viewers reach it, from outside."""
        return f"{self.origin}/v1/sessions/{self.name}"

    @property
    def page(self) -> str:
        """Of results; the voting page is below it."""
        return f"{self.origin}/sessions/{self.name}"

    @property
    def origin(self) -> str:
        scheme, port = ("https", HTTPS_PORT) if self.tls else ("http", HTTP_PORT)
        return f"{scheme}://{self.host}:{port}"

    def token(self, subject: str) -> str:
        """What an identity provider would hand to a voter."""
        return self._sign(TokenTemplate(ISSUER, self.name).claims(subject, int(time.time())))

    @property
    def _sign(self) -> Signer:
        return signer("HS256", TOKEN_KEY)

    def object(self) -> dict[str, Any]:
        found = get("vs", self.name, self.namespace)
        assert found is not None, f"there is no session {self.name}"
        return found

    def status(self) -> dict[str, Any]:
        return dict(self.object().get("status") or {})

    @property
    def uid(self) -> str:
        return str(self.object()["metadata"]["uid"])

    def phase(self) -> str:
        return str(self.status().get("phase", ""))

    def condition(self, kind: str) -> bool:
        return any(
            condition["type"] == kind and condition["status"] == "True"
            for condition in self.status().get("conditions", ())
        )

    def wait(self, phase: str, timeout: float = 180.0) -> None:
        """Until it is in this phase; Open means ready to take votes as well."""

        def there() -> bool:
            return self.phase() == phase and (phase != "Open" or self.condition("Ready"))

        patiently(there, f"session {self.name} is {phase}", timeout)

    def pods(self, role: str = "") -> list[dict[str, Any]]:
        return items("pods", self.namespace, self.selector(role))

    def selector(self, role: str = "") -> str:
        one = f",app.kubernetes.io/component={role}" if role else ""
        return f"psephos.dev/session={self.name}{one}"

    def annotate(self, *pairs: str) -> None:
        kubectl("annotate", "vs", self.name, "-n", self.namespace, "--overwrite", *pairs)

    def extend(self, closes_at: str) -> None:
        patch = f'{{"spec":{{"closesAt":"{closes_at}"}}}}'
        kubectl("patch", "vs", self.name, "-n", self.namespace, "--type=merge", "-p", patch)


def patiently(happened: Any, what: str, timeout: float) -> Any:
    """Like `wait_until`, for questions that cost a process each."""

    def after_a_moment() -> Any:
        time.sleep(0.3)
        return happened()

    return happened() or wait_until(after_a_moment, what, timeout)


def place(name: str, authority: Authority | None) -> None:
    """A namespace for sessions: restricted pods only, the voters' key, and a certificate by this authority."""
    apply(restricted(name), _secret("voters", name, {"hs256": TOKEN_KEY}))
    if authority is not None:
        pair = authority.pair(f"*.{DOMAIN}")
        apply({**_secret(TLS_SECRET, name, pair), "type": "kubernetes.io/tls"})


def _secret(name: str, namespace: str, data: dict[str, bytes]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def session(name: str, namespace: str, **spec: Any) -> Session:
    """Applies a session; `spec` replaces members of its spec."""
    whole = {
        "closeGrace": "5s",
        "ballot": {"type": "single", "options": TWO},
        "voters": voters(name),
        "capacity": SMALL,
        **spec,
    }
    metadata = {"name": name, "namespace": namespace}
    apply({"apiVersion": "psephos.dev/v1alpha1", "kind": "VotingSession", "metadata": metadata, "spec": whole})
    return Session(name, namespace)


def voters(name: str) -> dict[str, Any]:
    """Voters with a token of the suite's issuer."""
    key = {"secretRef": {"name": "voters", "key": "hs256"}}
    return {"eligibility": "token", "tokens": {"algorithms": ["HS256"], "issuer": ISSUER, "audience": name, **key}}


def in_seconds(seconds: float) -> str:
    """A time as sessions have it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
