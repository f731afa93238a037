"""Ports on loopback: free ones, and clear errors about taken ones."""

from __future__ import annotations

import errno
import itertools
import os
import random
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from psephos_lab.errors import StackError

LOOPBACK = "127.0.0.1"

#: Free ports come from below the range that Linux uses for outgoing connections (32768 and up): a server that is
#: killed and started again on its port must not find it taken by a client's connection.
_CANDIDATES = range(20_000, 32_000)

_TCP_LISTEN = "0A"  # state column of /proc/net/tcp

_handed_out: set[int] = set()
_claims = ExitStack()  # never closed: they end with this process


def free_port(row: int = 1) -> int:
    """Returns a TCP port on loopback that nothing listens on: the first of `row` consecutive ones.

    They are reserved for this process as long as it lives: nothing else holds a port before its server binds it,
    or while a server that is to come back is down.

    Raises StackError if no port is left.
    """
    start = random.choice(_CANDIDATES)  # noqa: S311 - no secret
    for first in itertools.chain(range(start, _CANDIDATES.stop), range(_CANDIDATES.start, start)):
        if _reserve(range(first, first + row)):
            return first
    raise StackError(f"no {row} free ports in a row from {_CANDIDATES.start} on, on {LOOPBACK}")


def _reserve(ports: range) -> bool:
    """Reserves all of the ports or none; returns whether it did."""
    with ExitStack() as claims:
        for port in ports:
            if port in _handed_out or not _can_bind(port):
                return False
            try:
                claims.enter_context(_claim(port))
            except OSError:
                return False
        _claims.push(claims.pop_all())
    _handed_out.update(ports)
    return True


def _claim(port: int) -> socket.socket:
    """Marks the port as taken for other processes. Raises OSError if another process has marked it.

    A name in Linux's abstract namespace belongs to the same network namespace as the port, and disappears with its
    holder, however that ends. On other systems nothing is marked.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if sys.platform == "linux":
        try:
            claim.bind(f"\0psephos-port-{port}")
        except OSError:
            claim.close()
            raise
    return claim


def require_port(port: int, purpose: str) -> int:
    """Returns the port itself, if a server can listen on it.

    Raises StackError if it is taken, out of range, or needs rights that we lack; names the owner if it is visible.
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
    """Returns what listens on the port, as ``name (process 123)``; None if nothing does or it is not visible."""
    wanted = {f"socket:[{inode}]" for _address, inode in listeners(port)}
    if not wanted:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # processes end meanwhile, and other users' are closed to us
            if any(os.readlink(fd) in wanted for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return None


def listeners(port: int) -> Iterator[tuple[str, str]]:
    """Yields local address (hexadecimal, as in the kernel) and socket inode of every listener on a TCP port."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                address, hex_port = fields[1].rsplit(":", 1)
                if fields[3] == _TCP_LISTEN and int(hex_port, 16) == port:
                    yield address, fields[9]


def accepts(port: int) -> bool:
    """Returns whether something accepts TCP connections on the port right now."""
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
