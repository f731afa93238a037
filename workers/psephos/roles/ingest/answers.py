"""Answers as bytes, for those that are written to a connection without an aiohttp response object.

The fields are those that aiohttp itself writes for such an answer.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_SERVER: Final = f"\r\nServer: {SERVER_SOFTWARE}\r\n\r\n"


def fields(headers: Mapping[str, str]) -> str:
    """Returns header fields, one per line."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def written(status: int, head: str, body: bytes, media_type: str) -> bytes:
    """Returns a whole answer; `head`: its own fields."""
    text = (
        f"{_STATUS_LINES[status]}{head}Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
        f"Date: {rfc822_formatted_time()}{_SERVER}"
    )
    return text.encode() + body
