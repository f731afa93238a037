"""The fork server: imports modules, forks a child for each request of its parent, and reports how each one ends.

It has one thread and knows nothing that a child must not know: a fork copies all of the memory but only the thread
that forks, so a lock held by another thread would never be released in the child.
"""

import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

from psephos.platform.forkserver.child import become
from psephos.platform.forkserver.heap import settle
from psephos.platform.forkserver.host import FIRST, HOST, First
from psephos.platform.forkserver.linux import ParentGone, end_with_parent, set_title
from psephos.platform.forkserver.messages import Channel, Ended, Failed, Signal, Signalled, Start, Started

TITLE = "psephos-forks"
_CANNOT_IMPORT = 2  # exit code


def main(arguments: Sequence[str]) -> None:
    """`arguments`: the control socket's descriptor, the parent's process id, and the modules to import.

    Runs until the parent closes the socket. Returns in each child as well, when its program has ended.
    For a fork server that forks its own parent: `host`, the descriptors of the control socket, of the first
    child's end of it and of what that child is to run, and the modules to import.
    """
    start = _host(*arguments[1:]) if arguments[0] == HOST else _serve(*arguments)
    if start is not None:
        gc.enable()
        become(start)


def _serve(descriptor: str, parent: str, *modules: str) -> Start | None:
    try:
        end_with_parent(int(parent))
    except ParentGone:
        return None
    set_title(TITLE)
    _import(modules)
    return _Server(_channel(descriptor)).run()


def _host(descriptor: str, firsts: str, what: str, *modules: str) -> Start | None:
    first = First(int(firsts), int(what))
    first.pass_signals_on()
    set_title(TITLE)
    _import(modules)
    return _Server(_channel(descriptor), first).run()


def _channel(descriptor: str) -> Channel:
    connection = socket.socket(fileno=int(descriptor))
    connection.set_inheritable(False)
    return Channel(connection)


def _import(modules: Sequence[str]) -> None:
    """Imports, such that children write to as few of the pages as possible: each page written to is copied."""
    gc.disable()
    try:
        for module in modules:
            importlib.import_module(module)
    except Exception as error:
        sys.stderr.write(f"psephos: the fork server can't import {module}: {error}\n")
        sys.exit(_CANNOT_IMPORT)
    settle()


class _Server:
    def __init__(self, channel: Channel, first: First | None = None) -> None:
        self._channel = channel
        self._first = first
        self._numbers: dict[int, int] = {}  # numbers by process id, of children not yet reaped
        self._pids: dict[int, int] = {}  # the other way round
        self._woken, self._wake = socket.socketpair()

    def run(self) -> Start | None:
        """Returns in each child what it is to run, and None in the server when the parent is gone."""
        self._watch_children()
        if self._first is not None and self._fork_child(FIRST) == 0:
            self._leave(FIRST)
            return self._first.read()
        with suppress(EOFError):
            while True:
                select.select([self._channel.fileno(), self._woken.fileno()], [], [])
                self._reap()
                while (request := self._channel.receive(0)) is not None:
                    if isinstance(request, Signal):
                        self._signal(request)
                    elif isinstance(request, Start) and self._fork(request) == 0:
                        self._leave(request.number)
                        return request
        if self._first is not None:
            self._first.wait()
        return None

    def _watch_children(self) -> None:
        for end in (self._woken, self._wake):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _leave(self, number: int) -> None:
        """Closes in a child what belongs to the server alone."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self._first is not None:
            self._first.leave(number)
        for held in (self._channel, self._woken, self._wake):
            held.close()

    def _fork(self, request: Start) -> int:
        try:
            pid = self._fork_child(request.number)
        except OSError as error:
            self._channel.send(Failed(f"{request.name} can't start: {error.strerror}"))
            return -1
        if pid:
            self._channel.send(Started(pid))
        return pid

    def _fork_child(self, number: int) -> int:
        """Forks. A signal that arrives meanwhile stays pending: in a child until it has become its program."""
        server = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                _bind_to(server)
                return 0
            with suppress(OSError):  # the child does it as well: it must be done before either goes on
                os.setpgid(pid, pid)
            self._numbers[pid], self._pids[number] = number, pid
            if number == FIRST and self._first is not None:
                self._first.runs_as(pid)
            return pid
        finally:
            if os.getpid() == server:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _signal(self, request: Signal) -> None:
        """Sends a signal. NB: no process id can belong to another process by now: only we reap these children."""
        pid = self._pids.get(request.number)
        if pid is not None:
            (os.killpg if request.group else os.kill)(pid, request.signal)
        self._channel.send(Signalled())

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            while self._woken.recv(1024):
                pass
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self._numbers.pop(pid, None)
            if number is None:
                continue  # an orphan of a child, which process 1 of a container adopts
            del self._pids[number]
            exit_code = os.waitstatus_to_exitcode(status)
            if number == FIRST and self._first is not None:
                self._first.ended(exit_code)
            self._channel.send(Ended(number, exit_code))


def _bind_to(server: int) -> None:
    """Runs first in a child: nothing that it does may outlive the fork server."""
    os.setpgid(0, 0)
    try:
        end_with_parent(server)
    except ParentGone:
        os._exit(1)
