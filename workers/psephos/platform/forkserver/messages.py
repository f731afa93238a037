"""Requests and replies between a parent and its fork server: msgpack, each preceded by its length, on a socket."""

import select
import socket
from collections.abc import Sequence

import msgspec

_LENGTH_BYTES = 4
_CHUNK = 65_536


class Start(msgspec.Struct, frozen=True, tag=True):
    """Fork a child and run `python -m module arguments` in it. `number`: the parent's name for this child.

    `environment`: the child's whole environment; `log`: a file to append its output to, None for the fork server's
    standard error.
    """

    number: int
    name: str
    module: str
    arguments: Sequence[str]
    environment: dict[str, str]
    log: str | None


class Signal(msgspec.Struct, frozen=True, tag=True):
    """Send a signal to a child, or to its process group. It is not an error if the child has already ended."""

    number: int
    signal: int
    group: bool


class Started(msgspec.Struct, frozen=True, tag=True):
    pid: int


class Signalled(msgspec.Struct, frozen=True, tag=True):
    pass


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The request could not be carried out. `why`: one line."""

    why: str


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A child has ended; sent without a request. `exit_code`: negative for a signal."""

    number: int
    exit_code: int


Request = Start | Signal
Reply = Started | Signalled | Failed
Message = Request | Reply | Ended


class Channel:
    """Exchanges whole messages over a stream socket. One thread at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, message: Message) -> None:
        """Sends a message. Raises EOFError if the other side is gone."""
        content = msgspec.msgpack.encode(message)
        try:
            self._connection.sendall(len(content).to_bytes(_LENGTH_BYTES) + content)
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None

    def receive(self, timeout_s: float) -> Message | None:
        """The next message; None if no whole one arrives in time. Raises EOFError if the other side is gone."""
        while (message := self._next()) is None:
            if not select.select([self._connection], [], [], timeout_s)[0]:
                return None
            self._received += self._chunk()
        return message

    def close(self) -> None:
        self._connection.close()

    def _chunk(self) -> bytes:
        try:
            chunk = self._connection.recv(_CHUNK)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise EOFError
        return chunk

    def _next(self) -> Message | None:
        end = _LENGTH_BYTES + int.from_bytes(self._received[:_LENGTH_BYTES])
        if len(self._received) < max(end, _LENGTH_BYTES + 1):
            return None
        content = bytes(self._received[_LENGTH_BYTES:end])
        del self._received[:end]
        return self._decoder.decode(content)
