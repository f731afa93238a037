"""A program that becomes its own fork server, and continues as its first child.

A parent that executes a fork server holds a copy of the modules that its children share. One that becomes the fork
server shares them, too: it executes the fork server in its place, in the same process, so that nothing that it has
read is left. The first child has the other end of the control socket and requests the further children. To its own
parent the process is the program: it forwards signals to the first child, and ends with it and with its exit code.
"""

import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import msgspec

from psephos.platform.child_process import ProcessError
from psephos.platform.forkserver.client import ForkServer, interpreters_own
from psephos.platform.forkserver.messages import Channel, Signal, Start
from psephos.platform.signals import STACKS

HOST = "host"  # the argument that makes a fork server a host
FIRST = 0  # the number of the first child; the client counts from 1
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, STACKS)
_INPUT, _OUTPUT, _ERRORS = 0, 1, 2
_first_ones: socket.socket | None = None  # in the first child, its end of the control socket


def become_fork_server(modules: Sequence[str], allocator: Mapping[str, str], first: Start) -> NoReturn:
    """Executes a fork server with these modules in place of this process. Its first child runs `first`.

    NB: call it before there are threads, children or files that must be kept. Raises OSError.
    """
    ours, theirs = socket.socketpair()
    secrets = os.memfd_create("first", 0)  # only the first child reads it: the others must not know what it knows
    with open(secrets, "wb", closefd=False) as file:
        file.write(msgspec.msgpack.encode(first))
    for descriptor in (ours.fileno(), theirs.fileno()):
        os.set_inheritable(descriptor, True)
    held = [str(descriptor) for descriptor in (ours.fileno(), theirs.fileno(), secrets)]
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-m", "psephos.platform.forkserver", HOST, *held, *modules]
    environment = {**allocator, **interpreters_own(os.environ)}
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is wanted


def start_of_first(name: str, module: str, arguments: Sequence[str]) -> Start:
    """The request to run `python -m module arguments`, in the environment of this process."""
    return Start(FIRST, name, module, tuple(arguments), dict(os.environ), None)


class First:
    """The first child, from the fork server's point of view."""

    def __init__(self, descriptor: int, secrets: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._secrets = secrets
        self._pid: int | None = None
        self._before = {number: signal.getsignal(number) for number in _PASSED_ON}
        os.set_inheritable(descriptor, False)
        os.set_inheritable(secrets, False)

    def pass_signals_on(self) -> None:
        """Forwards signals from now on. Until there is a first child, a signal ends this process."""
        for number, before in self._before.items():
            if before is not signal.SIG_IGN:
                signal.signal(number, self._pass_on)

    def runs_as(self, pid: int) -> None:
        """In the fork server: notes the first child's process id and closes that child's files."""
        self._pid = pid
        self._socket.close()
        os.close(self._secrets)

    def read(self) -> Start:
        """In the first child: returns what it is to run, and keeps its end of the control socket."""
        global _first_ones
        _first_ones = self._socket
        with open(self._secrets, "rb") as file:
            file.seek(0)
            return msgspec.msgpack.decode(file.read(), type=Start)

    def leave(self, number: int) -> None:
        """In every child: restores signal handlers. Of the standard files, further ones keep only the errors."""
        for passed_on, before in self._before.items():
            signal.signal(passed_on, before)
        if number != FIRST:
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, _INPUT)
            os.close(nothing)
            os.dup2(_ERRORS, _OUTPUT)

    def wait(self) -> NoReturn:
        """Ends the fork server when the first child has ended."""
        assert self._pid is not None
        self.ended(os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]))

    def ended(self, exit_code: int) -> NoReturn:
        """Ends the fork server in the way that the first child ended, and with it all other children."""
        if exit_code < 0:
            with suppress(OSError):  # SIGKILL has no handler
                signal.signal(-exit_code, signal.SIG_DFL)
            os.kill(os.getpid(), -exit_code)
            exit_code = 128 - exit_code  # for process 1 of a container, which such a signal does not end
        os._exit(exit_code)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        if self._pid is None:
            os._exit(0)
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)


class ForkServerAbove(ForkServer):
    """The fork server whose first child is this process."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(())
        self._channel = Channel(connection)

    @property
    def pid(self) -> int | None:
        return os.getppid()

    def close(self) -> None:
        """Kills every child that still runs. The fork server itself ends with this process."""
        with self._lock:
            for number in list(self._alive):
                with suppress(ProcessError):
                    self._ask(Signal(number, signal.SIGKILL, True))

    def _execute(self) -> NoReturn:
        raise ProcessError("the fork server has ended")

    def _abandon(self) -> NoReturn:
        """Kills the unresponsive fork server, and with it this process: to be restarted from outside."""
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
        raise AssertionError


def fork_server_above() -> ForkServer | None:
    """The fork server whose first child is this process, once; None if there is none."""
    global _first_ones
    connection, _first_ones = _first_ones, None
    return None if connection is None else ForkServerAbove(connection)


def is_first() -> bool:
    """Returns whether this process is the first child of a fork server, and has not asked for it yet."""
    return _first_ones is not None
