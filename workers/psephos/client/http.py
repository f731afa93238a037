"""Reads the gateway's responses over HTTP, with the standard library only."""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any, NamedTuple

from psephos.platform.errors import FAILED, PsephosError

TIMEOUT_S = 10.0


class NoAnswer(PsephosError):
    """There was no response, or not one of a gateway. The message is one line."""

    exit_code = FAILED


class Answer(NamedTuple):
    """A response: status, decoded JSON (None if there is none), ETag."""

    status: int
    body: Any
    etag: str | None


def request(
    url: str, *, body: bytes | None = None, headers: dict[str, str] | None = None, timeout_s: float = TIMEOUT_S
) -> Answer:
    """Sends a GET, or a POST if there is a body. Raises NoAnswer."""
    if not url.startswith(("http://", "https://")):
        raise NoAnswer(f"{url!r} is not a http:// or https:// address")
    asked = urllib.request.Request(url, data=body, headers=headers or {})  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(asked, timeout=timeout_s) as answer:  # noqa: S310
            return Answer(answer.status, _json(answer.read()), answer.headers.get("ETag"))
    except urllib.error.HTTPError as error:
        return Answer(error.code, _json(error.read()), error.headers.get("ETag"))
    except urllib.error.URLError as error:
        raise NoAnswer(f"{url}: {getattr(error.reason, 'strerror', None) or error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"{url}: {error}") from None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None
