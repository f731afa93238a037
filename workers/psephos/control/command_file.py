"""How people give commands to the controller of a session that runs on this machine: files in one folder.

| file | content |
|---|---|
| `desired.json` | a number and the desired state; written whole, by one process at a time |
| `acknowledged.json` | the number that the controller has dealt with, and the control record then |
| `controller` | locked by the controller as long as it runs |
| `submitter` | locked by the process that gives a command |

The desired state stays in its file, so a controller that dies in between carries it out when it is started again.
These files stand in for the resource and its status in a cluster.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from psephos.control.commands import NO_MORE
from psephos.control.desired_state import DesiredState, conflicts
from psephos.control.errors import LifecycleError
from psephos.formats.control import Control, Phase
from psephos.formats.errors import UNREADABLE
from psephos.platform.clock import now_ms
from psephos.platform.errors import FAILED, PsephosError
from psephos.platform.files import write_whole
from psephos.platform.logs import get_logger

_POLL_S = 0.05
_BEGIN_S = 2.0  # how long a process that only checks whether a controller runs may hold its lock
ACKNOWLEDGE_S = 30.0
_T = TypeVar("_T")
log = get_logger()


class PendingCommands(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of `desired.json`."""

    number: int
    desired: DesiredState


class Acknowledgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of `acknowledged.json`.

    closing: the end is fixed in the ledger, at the control record's `closesAt`.
    """

    session: str
    number: int
    control: Control
    closing: bool = False


class NotAcknowledged(PsephosError):
    """The controller has not dealt with a command yet, or has ended; the command stands.

    The message is one line.
    """

    exit_code = FAILED


class CommandFile:
    """One session's commands, in a folder. Threads of one process may not share it."""

    def __init__(self, folder: Path, session: str) -> None:
        """Opens the files in `folder`. `session`: the session's name, as people know it."""
        self._folder = folder
        self.session = session
        self._desired, self._acknowledged = folder / "desired.json", folder / "acknowledged.json"
        self._dealt_with = -1
        self._unreadable: bytes | None = None

    # --- The controller

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps every other controller out. Raises LifecycleError if one runs already."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / "controller").open("a") as lock:
            if not _until(lambda: _locked(lock, fcntl.LOCK_EX), _BEGIN_S):
                raise LifecycleError(f"another controller runs the session of {self._folder}")
            yield

    def pending(self) -> PendingCommands:
        """The desired state: number 0 and an empty one if no command was ever given."""
        raw = self._read(self._desired)
        try:
            return (
                PendingCommands(0, DesiredState())
                if raw is None
                else msgspec.json.decode(raw, type=PendingCommands)
            )
        except UNREADABLE as error:
            if raw != self._unreadable:
                log.error("commands can't be read", file=str(self._desired), why=str(error))
            self._unreadable = raw
            return PendingCommands(self._dealt_with, DesiredState())

    def waiting(self) -> bool:
        """Returns whether there is a command that has not been acknowledged."""
        return self.pending().number > self._dealt_with

    def acknowledge(self, number: int, control: Control, *, closing: bool) -> None:
        """Records that the commands up to `number` have been dealt with, and the result."""
        acknowledgement = Acknowledgement(self.session, number, control, closing)
        self._dealt_with = number
        if self.acknowledged() != acknowledgement:
            write_whole(self._acknowledged, msgspec.json.encode(acknowledgement))

    # --- The process that gives a command

    def running(self) -> bool:
        """Returns whether a controller is running."""
        try:
            with (self._folder / "controller").open("r") as lock:
                return not _locked(lock, fcntl.LOCK_SH)
        except OSError:
            return False

    def acknowledged(self) -> Acknowledgement | None:
        """The controller's last acknowledgement; None before the first one."""
        raw = self._read(self._acknowledged)
        return None if raw is None else msgspec.json.decode(raw, type=Acknowledgement)

    def give(self, command: DesiredState, timeout_s: float = ACKNOWLEDGE_S) -> Control:
        """Adds a command to the desired state; returns when it has been carried out.

        Raises LifecycleError with the reason if it is refused; NotAcknowledged if no controller runs, or none has
        dealt with it in `timeout_s` seconds.
        """
        with self._alone():
            known = self._known()
            self._require(command, known)
            if known.control.phase in NO_MORE:
                return known.control  # nothing can change it any more
            before = self.pending()
            number = max(before.number, known.number) + 1
            self._write(PendingCommands(number, before.desired.merge(command)))
            acknowledged = self._dealt(number, timeout_s)
            try:
                self._require(
                    msgspec.structs.replace(command, close_at=None), acknowledged
                )  # NB: closing has begun by now
                if command.void and acknowledged.control.phase is not Phase.VOID:
                    raise LifecycleError(f"{self.session}: its result is sealed, and stands")
            except LifecycleError:
                self._write(PendingCommands(number + 1, before.desired))
                raise
        return acknowledged.control

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._folder / "submitter").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _known(self) -> Acknowledgement:
        acknowledged = self.acknowledged()
        if acknowledged is not None and acknowledged.control.phase in NO_MORE:
            return acknowledged
        if not self.running():
            raise NotAcknowledged(f"session {self.session} does not run: start it with `psephos dev up`")
        acknowledged = acknowledged or _until(self.acknowledged, _BEGIN_S)
        if acknowledged is None:
            raise NotAcknowledged(f"session {self.session} has only just been started: try again")
        return acknowledged

    def _require(self, command: DesiredState, known: Acknowledgement) -> None:
        for why in conflicts(known.control, command, now_ms=now_ms(), closing=known.closing):
            raise LifecycleError(f"{self.session}: {why}")

    def _write(self, pending: PendingCommands) -> None:
        write_whole(self._desired, msgspec.json.encode(pending))

    def _dealt(self, number: int, timeout_s: float) -> Acknowledgement:
        def dealt() -> Acknowledgement | None:
            acknowledged = self.acknowledged()
            return acknowledged if acknowledged is not None and acknowledged.number >= number else None

        deadline = time.monotonic() + timeout_s
        while (acknowledged := dealt()) is None:
            if not self.running():
                raise NotAcknowledged(
                    f"session {self.session} was stopped; the command stands until it is started again"
                )
            if time.monotonic() > deadline:
                raise NotAcknowledged(
                    f"session {self.session} is busy; the command stands until its controller takes it"
                )
            time.sleep(_POLL_S)
        return acknowledged

    def _read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def _until(happened: Callable[[], _T], timeout_s: float) -> _T:
    """Polls `happened`; returns its first true value, or the last value when the time is up."""
    deadline = time.monotonic() + timeout_s
    while not (value := happened()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return value


def _locked(lock: IO[str], kind: int) -> bool:
    """Tries to lock without blocking; returns whether it succeeded."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
