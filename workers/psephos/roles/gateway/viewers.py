"""The two kinds of live connection: WebSocket and server-sent events.

NB: frames are written directly to the transport, because their bytes are the same for every viewer; aiohttp frames
each message again for each connection, at about ten times the cost. Only whole messages or whole chunks are
written there, so what aiohttp writes between them (pongs, the close) stays in order.
"""

import asyncio
import random
import socket
from contextlib import suppress

from aiohttp import HttpVersion11, WSMsgType, web

from psephos.formats.errors import Malformed
from psephos.roles.gateway import metrics
from psephos.roles.gateway.fanout import Hub, Viewer
from psephos.roles.gateway.problems import Problem
from psephos.roles.gateway.view import PING, Position, View, http_chunk, parse_position

PING_S, PONG_S = 25.0, 8.0
HEARTBEAT_S = (20.0, 40.0)  # proxies close connections that are silent for a minute
CLOSE_S = 2.0  # how long a viewer may take to answer a close
SEND_BUFFER = 16 * 1024  # the kernel's, in bytes: a viewer that does not read must not keep a hundred old frames
_MOST_INPUT = 1024  # bytes per message; viewers have nothing to send
_COMMENT = b": beat\n\n"


class WebSocketViewer(Viewer):
    """A WebSocket. It is pinged, and aborted if it does not answer."""

    kind = "websocket"

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport, seen: Position | None) -> None:
        super().__init__(transport, seen, PING_S)
        self._socket = socket
        self._pong_due: float | None = None

    def encoded(self, view: View) -> bytes:
        return view.message

    def beat(self, now: float) -> bytes:
        self._pong_due = now + PONG_S
        return PING

    def ponged(self) -> None:
        self._pong_due = None

    def broken(self, now: float) -> bool:
        return self._pong_due is not None and now > self._pong_due

    async def close(self, code: int, retry_ms: int) -> None:
        self.closing = True
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close(code=code, message=b"retry=%d" % retry_ms)
        self.abort()


class EventsViewer(Viewer):
    """A stream of server-sent events; chunked over HTTP/1.1, plain over 1.0 (older proxies)."""

    kind = "sse"

    def __init__(self, transport: asyncio.Transport, seen: Position | None, *, chunked: bool) -> None:
        super().__init__(transport, seen, random.uniform(*HEARTBEAT_S))  # noqa: S311 - jitter
        self._chunked = chunked
        self.closed = asyncio.Event()

    def encoded(self, view: View) -> bytes:
        return view.chunk if self._chunked else view.event

    def beat(self, now: float) -> bytes:
        return self._framed(_COMMENT)

    async def close(self, code: int, retry_ms: int) -> None:
        self.closing = True
        if self._transport.get_write_buffer_size() > 0:
            self.abort()
        else:
            self._transport.write(self._framed(b"retry: %d\n\n" % retry_ms))
        self.closed.set()

    def _framed(self, data: bytes) -> bytes:
        return http_chunk(data) if self._chunked else data


async def serve_live(request: web.Request, hub: Hub) -> web.StreamResponse:
    """Serves `/live`: each message is a frame. `?since=epoch:version` keeps versions from going backwards."""
    seen = _position(request)
    _require_room(hub)
    connection = web.WebSocketResponse(compress=False, autoping=False, timeout=CLOSE_S, max_msg_size=_MOST_INPUT)
    await connection.prepare(request)
    viewer = WebSocketViewer(connection, _transport(request), seen)
    with hub.watching(viewer):
        async for message in connection:
            if message.type is WSMsgType.PING:
                await connection.pong(message.data)
            elif message.type is WSMsgType.PONG:
                viewer.ponged()
    return connection


async def serve_events(request: web.Request, hub: Hub) -> web.StreamResponse:
    """Serves `/events` (`id: epoch:version`); 204, which ends an EventSource, if the final frame has been seen."""
    seen = _position(request)
    newest = hub.newest
    if newest is not None and newest.final and newest.position == seen:
        return web.Response(status=204)
    _require_room(hub)
    stream = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
    stream.force_close()
    if request.version >= HttpVersion11:
        stream.enable_chunked_encoding()
    await stream.prepare(request)
    await stream.write(b"retry: %d\n\n" % round(1000 + 1000 * hub.retry_s()))
    viewer = EventsViewer(_transport(request), seen, chunked=bool(stream.chunked))
    with hub.watching(viewer):
        await viewer.closed.wait()  # or cancelled, if the viewer is gone
    return stream


def _require_room(hub: Hub) -> None:
    if hub.full:
        metrics.REFUSED.inc()
        raise Problem(
            "overloaded", "this gateway has as many viewers as it may have", retry_after_s=1 + round(hub.retry_s())
        )


def _position(request: web.Request) -> Position | None:
    text = request.headers.get("Last-Event-ID") or request.query.get("since")
    if not text:
        return None
    try:
        return parse_position(text)
    except Malformed as error:
        raise Problem("malformed-request", str(error)) from None


def _transport(request: web.Request) -> asyncio.Transport:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the viewer is gone")
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return transport
