"""The port: bound before all else, since a taken one is an error at startup; drained without losing an answer."""

import asyncio
import resource
import socket
from contextlib import suppress
from logging import NullHandler, getLogger
from typing import Any, cast

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.http_parser import RawRequestMessage

from psephos.http.problems import MEDIA_TYPE
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings, SettingsError
from psephos.roles.ingest import metrics
from psephos.roles.ingest.answers import fields, written
from psephos.roles.ingest.doors import Doors
from psephos.roles.ingest.problems import busy
from psephos.roles.ingest.requests import BODY_LIMIT

BACKLOG = 4096
HEADERS_TIMEOUT_S = 10.0  # from the first byte of a request to the end of its headers
REFUSAL_S = 0.5  # for a client that is turned away to read why
OTHER_FILES = 256  # descriptors of a process that are not client connections
LINGER_S = 2.0  # for a client to see the answer before the rest of its body is cut off
FAREWELL_S = 1.0  # for clients of open connections to receive `Connection: close`
_LOOK_S = 0.02

_quiet = getLogger("psephos.aiohttp")
_quiet.addHandler(NullHandler())
_quiet.propagate = False  # aiohttp's own lines repeat what a client sent
log = get_logger()


def bind(settings: Settings, *, shared: bool) -> socket.socket:
    """Returns a socket on the ingest port that does not listen yet; `shared`: others may bind the same port.

    Raises SettingsError.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.ingest_port))
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.ingest_port}"
        raise SettingsError(f"PSEPHOS_INGEST_PORT: can't listen on {where}: {error.strerror}") from None
    return listener


def connections_limit(wanted: int) -> int:
    """Returns how many connections this process can hold: as many as wanted, if it may open enough files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    log.warning("fewer connections than wanted: this process may not open more files", wanted=wanted, files=soft)
    return max(1, soft - OTHER_FILES)


class _Connection(web.RequestHandler):
    """aiohttp's own, counted, with a time limit for headers, and with a shorter path for a plain vote.

    aiohttp has no time-out once a request's first byte has arrived. And it creates a task, a request and a
    response for each request, which cost as much as everything that a vote needs: so a vote that has arrived
    whole, on an idle connection, is taken directly after aiohttp's parser and answered when the log has
    acknowledged it. Everything else (other paths and methods, a body still to come, pipelined requests,
    `Connection: close`, a client that does not read, a process that is to end) goes aiohttp's way; so do requests
    that arrive meanwhile.
    """

    __slots__ = ("_counted", "_headers_due", "_held", "_idle_s", "_listener", "_remote", "_under_way")

    def __init__(self, listener: "Listener", http: Any, loop: asyncio.AbstractEventLoop, idle_s: float) -> None:
        super().__init__(
            http,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            logger=_quiet,
            keepalive_timeout=idle_s,
            lingering_time=LINGER_S,
            auto_decompress=False,
        )
        self._listener = listener
        self._idle_s = idle_s
        self._counted = False
        self._headers_due: asyncio.TimerHandle | None = None
        self._remote: str | None = None
        self._under_way = False
        self._held: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._counted = True
        self._listener.connections += 1
        super().connection_made(transport)
        peer = self.peername
        self._remote = str(peer[0]) if isinstance(peer, (list, tuple)) else peer

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._counted:
            self._counted = False
            self._listener.connections -= 1
        self._headers_came()
        super().connection_lost(exc)
        self._at_rest()

    def data_received(self, data: bytes) -> None:
        if self._under_way:
            self._hold(data)
            return
        waiter = self._waiter  # for the next request; done as soon as one is complete
        if waiter is None or waiter.done():
            super().data_received(data)
            self._headers_came()
            return
        self._waiter = None  # so that the data is parsed without waking the handler yet
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if not self._messages:
            self._await_headers()
            return
        self._headers_came()
        if not self._takes_vote(*self._messages[0]) and not waiter.done():
            waiter.set_result(None)

    def _takes_vote(self, message: Any, content: StreamReader) -> bool:
        """Returns whether the first request received is a plain vote: then it is in progress, or is answered."""
        doors = self._listener.doors
        if (
            not isinstance(message, RawRequestMessage)
            or message.path != doors.votes_path
            or message.method != "POST"
            or message.should_close
            or message.upgrade
            or message.version != HttpVersion11
            or "Expect" in message.headers
            or not content.is_eof()
            or content.total_bytes > BODY_LIMIT
            or len(self._messages) > 1
            or self.writing_paused
            or doors.draining
        ):
            return False
        self._under_way = self._request_in_progress = True
        if not doors.vote_at_once(message.headers, self._remote, content, self._answer):
            self._at_rest()
            return False
        self._messages.clear()
        if self._parser is not None:
            self._parser.message_consumed()
        return True

    def _answer(self, answer: bytes) -> None:
        """Sends the answer to the vote in progress; its client may have gone."""
        self._at_rest()
        if self.transport is None or self.transport.is_closing():
            return
        self.transport.write(answer)
        if self._listener.doors.draining or self._close:
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._idle_s
        if self._held is not None:
            held, self._held = self._held, None
            self.transport.resume_reading()
            self.data_received(held)

    def _at_rest(self) -> None:
        """Notes that no vote is in progress; aiohttp's shutdown waits for this."""
        if self._under_way:
            self._under_way = self._request_in_progress = False
            if self._handler_waiter is not None and not self._handler_waiter.done():
                self._handler_waiter.set_result(None)

    def _hold(self, data: bytes) -> None:
        """Holds data back: answers go out in request order, so what follows a vote waits for the vote's answer."""
        self._held = data if self._held is None else self._held + data
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Skips needless calls: a body that is read asks for more, which costs time and parses nothing if reading
        goes on anyway.
        """
        if self._reading_paused or not self._under_way:
            super().resume_reading(resume_parser)

    def _process_keepalive(self) -> None:
        if self._under_way:
            self._next_keepalive_close_time = self._loop.time() + self._idle_s
        super()._process_keepalive()

    def _await_headers(self) -> None:
        if self._headers_due is None:
            self._headers_due = self._loop.call_later(HEADERS_TIMEOUT_S, self._give_up)

    def _headers_came(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _give_up(self) -> None:
        metrics.count_slow()
        self.force_close()


class _Refusal(asyncio.Protocol):
    """The connection of a client that arrives when there are already too many: one answer, then close."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        client = cast(asyncio.Transport, transport)  # uvloop's are not subclasses of it
        problem = busy("overloaded", "too many connections to this process; try again")
        metrics.count(problem.slug)
        head = fields({**problem.headers, "Connection": "close", "Access-Control-Allow-Origin": "*"})
        client.write(written(problem.status, head, problem.encode(), MEDIA_TYPE))
        client.write_eof()  # closing at once would reset the connection and lose the answer
        asyncio.get_running_loop().call_later(REFUSAL_S, client.close)


class Listener:
    """Serves `doors` on a bound socket. Lives in one event loop."""

    def __init__(self, doors: Doors, listener: socket.socket, settings: Settings) -> None:
        self.doors = doors
        self._socket = listener
        self._loop = asyncio.get_running_loop()
        self._http = web.Server(
            doors,
            access_log=None,
            logger=_quiet,
        )
        self._limit = connections_limit(settings.ingest_connections)
        self._idle_s = settings.ingest_idle_s
        self.connections = 0
        self._server: asyncio.Server | None = None
        metrics.watch_connections(lambda: self.connections, self._limit)

    def _protocol(self) -> asyncio.Protocol:
        """Returns the protocol for a client that has just connected."""
        if self.connections >= self._limit:
            return _Refusal()
        return _Connection(self, self._http, self._loop, self._idle_s)

    async def start(self) -> None:
        self._socket.setblocking(False)
        self._server = await self._loop.create_server(self._protocol, sock=self._socket, backlog=BACKLOG)

    async def drain(self, timeout_s: float) -> None:
        """Takes no new connections; each open one gets its answers, with `Connection: close`.

        `timeout_s`: for requests in progress; those that take longer are cut off.
        """
        self.doors.drain()
        await self._take_backlog()
        deadline = self._loop.time() + FAREWELL_S
        while self._http.connections and self._loop.time() < deadline:  # noqa: ASYNC110 - aiohttp has no event for it
            await asyncio.sleep(_LOOK_S)
        await self._http.shutdown(timeout_s)

    async def _take_backlog(self) -> None:
        """Takes the clients in the socket's queue, then closes it: closing alone would reset their connections."""
        if self._server is None:
            return
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                await self._loop.connect_accepted_socket(self._protocol, connection)
        self._server.close()
        self._socket.close()
