"""A frame as viewers get it, encoded once for all of them. Pure.

`stale` is the gateway's own mark, put after the members that the projector wrote; any members that a newer
projector adds are passed on.
"""

import hashlib
import re
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from psephos.formats.errors import Malformed
from psephos.formats.frames import Frame, decode_frame

_TEXT = 0x81  # first byte of an unfragmented text message, RFC 6455 section 5.2
PING = b"\x89\x00"
_POSITION = re.compile(r"([0-9a-f]{1,64}):(0|[1-9][0-9]{0,18})")


class Position(NamedTuple):
    """A viewer's position. Versions compare within one epoch only."""

    epoch: str
    version: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.version}"


def parse_position(text: str) -> Position:
    """Parses `epoch:version`, as in SSE ids. Raises Malformed."""
    match = _POSITION.fullmatch(text)
    if match is None:
        raise Malformed("a position is `epoch:version`, as a frame's epoch and version")
    return Position(match[1], int(match[2]))


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One frame with one stale mark. Two views are the same only if they are the same object."""

    position: Position
    final: bool
    stale: bool
    body: bytes
    etag: str
    message: bytes = field(repr=False)
    """The whole WebSocket message, as servers send it: unmasked, so it is the same for every viewer."""
    event: bytes = field(repr=False)
    """The SSE event."""
    chunk: bytes = field(repr=False)
    """The SSE event as a chunk of HTTP/1.1."""

    def concerns(self, seen: Position | None) -> bool:
        """Returns whether a viewer that has seen this much may get this view: a version never goes backwards."""
        return seen is None or seen.epoch != self.position.epoch or self.position.version >= seen.version


def view_of(frame: Frame, body: bytes, *, stale: bool) -> View:
    """Builds the view of a frame; `body`: its JSON object as the projector wrote it."""
    marked = body.rstrip()[:-1] + (b',"stale":true}' if stale else b',"stale":false}')
    position = Position(frame.epoch, frame.version)
    event = b"id: %b\ndata: %b\n\n" % (str(position).encode(), marked)
    return View(
        position=position,
        final=frame.final,
        stale=stale,
        body=marked,
        etag=hashlib.sha256(marked).hexdigest()[:32],
        message=text_message(marked),
        event=event,
        chunk=http_chunk(event),
    )


def readable(body: bytes) -> Frame:
    """Returns the frame in a body that is safe to pass on: one JSON object, one line, UTF-8. Raises Malformed.

    NB: unknown members are skipped unread, so they may hold anything; a browser closes a WebSocket on text that
    is not UTF-8.
    """
    frame = decode_frame(body)
    try:
        body.decode()
    except UnicodeDecodeError:
        raise Malformed("a frame is UTF-8") from None
    if b"\n" in body or b"\r" in body:
        raise Malformed("a frame is one line")
    return frame


def text_message(payload: bytes) -> bytes:
    """Returns an unmasked WebSocket text message, RFC 6455 section 5.2."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT, size)) + payload
    if size < 1 << 16:
        return struct.pack(">BBH", _TEXT, 126, size) + payload
    return struct.pack(">BBQ", _TEXT, 127, size) + payload


def http_chunk(data: bytes) -> bytes:
    """Returns a chunk of the chunked transfer coding, RFC 9112 section 7.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)
