"""Ports on loopback: free ones, and a clear word about taken ones."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from psephos.dev.errors import StackError

LOOPBACK = "127.0.0.1"

#: Free ports come from below the range that Linux gives to outgoing connections (32768 and up): a server that
#: is killed and started again on its port must not find a client's connection sitting on it.
_CANDIDATES = range(20_000, 32_000)

#: Processes that look for ports at the same time begin in different parts of the range: between the look and the
#: server's own bind nothing holds a port.
_PARTS = 8

_TCP_LISTEN = "0A"  # state column of /proc/net/tcp

_handed_out: set[int] = set()


def free_port() -> int:
    """A TCP port on loopback that nothing listens on and that this process has not been given before.

    Raises:
        StackError: no port is left.
    """
    own = _CANDIDATES[os.getpid() % _PARTS :: _PARTS]
    for port in (*random.sample(own, len(own)), *random.sample(_CANDIDATES, len(_CANDIDATES))):
        if port not in _handed_out and _can_bind(port):
            _handed_out.add(port)
            return port
    raise StackError(f"no free port between {_CANDIDATES.start} and {_CANDIDATES.stop} on {LOOPBACK}")


def require_port(port: int, purpose: str) -> int:
    """The port itself, when a server can listen on it.

    Raises:
        StackError: it is taken, out of range, or needs rights that we lack; names the owner where it can be seen.
    """
    if not 0 < port < 65_536:
        raise StackError(f"port {port} for {purpose} is out of range: choose one between 1 and 65535")
    if _can_bind(port):
        return port
    owner = port_owner(port) or "perhaps another stack, or a server of the system"
    raise StackError(
        f"port {port} on {LOOPBACK}, wanted for {purpose}, is taken by {owner}: stop it or choose another port"
    )


def port_owner(port: int) -> str | None:
    """Who listens on the port, as ``name (process 123)``; None when nobody does or we may not look."""
    wanted = {f"socket:[{inode}]" for _address, inode in listeners(port)}
    if not wanted:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # processes end while we look, and others' are closed to us
            if any(os.readlink(fd) in wanted for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return None


def listeners(port: int) -> Iterator[tuple[str, str]]:
    """Local address (hexadecimal, as the kernel shows it) and socket inode of every listener on a TCP port."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                address, hex_port = fields[1].rsplit(":", 1)
                if fields[3] == _TCP_LISTEN and int(hex_port, 16) == port:
                    yield address, fields[9]


def accepts(port: int) -> bool:
    """Whether something accepts TCP connections on the port right now."""
    with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections in TIME_WAIT don't count
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise StackError(
                    f"port {port} needs more rights than this user has: choose one above 1023"
                ) from error
            return False
    return True
