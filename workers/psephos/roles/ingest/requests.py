"""Reads what both endpoints need of a request: credential, declarations, body. Bounded in size and time."""

import asyncio
from collections.abc import Mapping
from typing import Final

from aiohttp import StreamReader, web

from psephos.roles.ingest.problems import Problem

BODY_LIMIT: Final = 64 * 1024  # a ranking of a thousand options with the longest ids, rounded up to a whole page
BODY_TIMEOUT_S: Final = 10.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def bearer(headers: Mapping[str, str]) -> str | None:
    """Returns the bearer token of the Authorization header, None if there is none."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def require_media(headers: Mapping[str, str], *allowed: str) -> None:
    """Raises Problem unless the body is declared as one of these media types, and not compressed."""
    media = headers.get("Content-Type", "")
    if media not in allowed and media.partition(";")[0].strip().lower() not in allowed:
        raise Problem("unsupported-media-type", f"send it as Content-Type: {allowed[0]}")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise Problem("unsupported-media-type", "send it without Content-Encoding")


def require_size(size: int) -> None:
    """Raises Problem if `size`, the actual or declared number of bytes of a body, is too large."""
    if size > BODY_LIMIT:
        raise _too_large()


async def read_body(request: web.BaseRequest) -> bytes:
    """Reads the body. Raises Problem if it is too large, too slow, or broken."""
    content = request.content
    try:
        if content.is_eof():  # nearly always: a small body arrives with its headers
            return _bounded(content.read_nowait())
        continue_if_expected(request)
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read_slowly(content)
    except TimeoutError:
        raise Problem("request-timeout", f"the body took longer than {BODY_TIMEOUT_S:.0f} s") from None
    except web.RequestPayloadError as error:
        raise Problem("malformed-request", f"the body is broken: {error}") from None


async def _read_slowly(content: StreamReader) -> bytes:
    body = b""
    while chunk := await content.readany():
        body = _bounded(body + chunk)
    return body


def _bounded(body: bytes) -> bytes:
    if len(body) > BODY_LIMIT:
        raise _too_large()
    return body


def continue_if_expected(request: web.BaseRequest) -> None:
    """Lets a client send its body now, if it has asked whether to (RFC 9110, 10.1.1)."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(_CONTINUE)


def _too_large() -> Problem:
    return Problem("body-too-large", f"one vote has at most {BODY_LIMIT} bytes", limit=BODY_LIMIT)
