"""Result frames of a session: from its public address, or through the API server if it has none."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import urlsplit

from psephos.client.http import NoAnswer, request
from psephos.kubectl.access import Kubectl, KubectlError
from psephos.kubectl.orders import Refused

INSIDE = ".svc"  # the suffix of host names that only pods can resolve
PORT = 80
AGAIN_S = 2.0  # before a broken stream is reopened
SILENCE_S = 60.0  # a gateway sends something every 40 s at the latest

Frame = dict[str, Any]


def address_of(session: Mapping[str, Any]) -> str:
    """The address of the session's results, without a trailing slash. Raises Refused."""
    name = session["metadata"]["name"]
    status = session.get("status") or {}
    address = (status.get("endpoints") or {}).get("results")
    if not address:
        phase = status.get("phase", "not seen by the operator yet")
        raise Refused(f"{name} has no results yet: it is {phase}")
    return str(address).rstrip("/")


def proxied(address: str) -> str | None:
    """The path through the API server for an address that only pods can reach; None for a public one."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if not host.endswith(INSIDE):
        return None
    service, _, namespace = host.removesuffix(INSIDE).partition(".")
    return f"/api/v1/namespaces/{namespace}/services/http:{service}:{parts.port or PORT}/proxy{parts.path}"


def newest(kubectl: Kubectl, address: str) -> Frame:
    """The newest frame. Raises KubectlError, NoAnswer, Refused."""
    path = proxied(address)
    if path is not None:
        return _frame(kubectl.run("get", "--raw", f"{path}/results"))
    answer = request(f"{address}/results")
    if answer.status != 200 or not isinstance(answer.body, dict):
        detail = answer.body.get("detail") if isinstance(answer.body, dict) else None
        raise NoAnswer(f"{address}/results: status {answer.status}{f', {detail}' if detail else ''}")
    return dict(answer.body)


def follow(kubectl: Kubectl, address: str, *, pause: Callable[[float], None] = time.sleep) -> Iterator[Frame]:
    """Frame after frame until the final one; a broken stream is reopened where it ended.

    Raises:
        KubectlError, NoAnswer, Refused: if the first stream could not be opened.
    """
    since, began = "", False
    while True:
        try:
            with _events(kubectl, address, since) as lines:
                for frame in frames_of(lines):
                    began, since = True, f"{frame['epoch']}:{frame['version']}"
                    yield frame
                    if frame["final"]:
                        return
        except (KubectlError, NoAnswer):
            if not began:
                raise
        pause(AGAIN_S)


def frames_of(lines: Iterable[str]) -> Iterator[Frame]:
    """The frames in a stream of server-sent events: each is one line of data."""
    for line in lines:
        if line.startswith("data:"):
            yield _frame(line.removeprefix("data:"))


@contextmanager
def _events(kubectl: Kubectl, address: str, since: str) -> Iterator[IO[str]]:
    query = f"/events?since={since}" if since else "/events"
    path = proxied(address)
    if path is not None:
        with kubectl.stream(path + query) as lines:
            yield lines
        return
    try:
        with urllib.request.urlopen(address + query, timeout=SILENCE_S) as answer:  # noqa: S310 - http(s) only
            yield (line.decode() for line in answer)  # type: ignore[misc]
    except urllib.error.URLError as error:
        raise NoAnswer(f"{address}: {getattr(error, 'reason', error)}") from None
    except OSError as error:
        raise NoAnswer(f"{address}: {error}") from None


def _frame(text: str) -> Frame:
    try:
        frame = json.loads(text)
    except ValueError:
        frame = None
    if not isinstance(frame, dict) or "turnout" not in frame:
        raise Refused("what answered is no gateway of Psephos: check status.endpoints of the session")
    return frame
