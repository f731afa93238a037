"""The order book of a session that runs on this machine: how people give orders to its conductor.

| in the folder | what |
|---|---|
| `wishes.json` | a number and all wishes; written whole, by one commander at a time |
| `taken.json` | the conductor's answer: the number that it has dealt with, and the control record then |
| `conductor` | locked by the conductor as long as it runs |
| `commander` | locked by the process that gives an order |

Wishes stay in the file, so a conductor that dies in between carries them out when it is started again. The order
book stands in for the resource and its status in a cluster.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from psephos.control.errors import LifecycleError
from psephos.control.orders import NO_MORE
from psephos.control.wishes import Wishes, objections
from psephos.formats.control import Control, Phase
from psephos.formats.errors import UNREADABLE
from psephos.platform.clock import now_ms
from psephos.platform.errors import FAILED, PsephosError
from psephos.platform.files import write_whole
from psephos.platform.logs import get_logger

_LOOK_S = 0.05
_BEGIN_S = 2.0  # how long a process that only checks whether a conductor runs may hold its lock
TAKEN_S = 30.0
_T = TypeVar("_T")
log = get_logger()


class Ordered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of `wishes.json`."""

    number: int
    wishes: Wishes


class Taken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of `taken.json`. closing: the end is fixed in the ledger, at the control record's `closesAt`."""

    session: str
    number: int
    control: Control
    closing: bool = False


class Untaken(PsephosError):
    """The conductor has not dealt with an order yet, or has ended; the order stands. The message is one line."""

    exit_code = FAILED


class OrderBook:
    """One session's orders, in a folder. Threads of one process may not share it."""

    def __init__(self, folder: Path, session: str) -> None:
        """Opens the book in `folder`. `session`: the session's name, as people know it."""
        self._folder = folder
        self.session = session
        self._wishes, self._taken = folder / "wishes.json", folder / "taken.json"
        self._dealt_with = -1
        self._unreadable: bytes | None = None

    # --- The conductor

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the book for one conductor. Raises LifecycleError if another one has it."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / "conductor").open("a") as lock:
            if not _until(lambda: _locked(lock, fcntl.LOCK_EX), _BEGIN_S):
                raise LifecycleError(f"another conductor keeps the session of {self._folder}")
            yield

    def ordered(self) -> Ordered:
        """The current wishes: number 0 and no wish if none was ever given."""
        raw = self._read(self._wishes)
        try:
            return Ordered(0, Wishes()) if raw is None else msgspec.json.decode(raw, type=Ordered)
        except UNREADABLE as error:
            if raw != self._unreadable:
                log.error("orders can't be read", file=str(self._wishes), why=str(error))
            self._unreadable = raw
            return Ordered(self._dealt_with, Wishes())

    def waiting(self) -> bool:
        """Returns whether there is an order that `answer` has not been called for."""
        return self.ordered().number > self._dealt_with

    def answer(self, number: int, control: Control, *, closing: bool) -> None:
        """Records that the orders up to `number` have been dealt with, and the result."""
        taken = Taken(self.session, number, control, closing)
        self._dealt_with = number
        if self.taken() != taken:
            write_whole(self._taken, msgspec.json.encode(taken))

    # --- The commander

    def running(self) -> bool:
        """Returns whether a conductor is running."""
        try:
            with (self._folder / "conductor").open("r") as lock:
                return not _locked(lock, fcntl.LOCK_SH)
        except OSError:
            return False

    def taken(self) -> Taken | None:
        """The conductor's last answer; None before the first one."""
        raw = self._read(self._taken)
        return None if raw is None else msgspec.json.decode(raw, type=Taken)

    def give(self, order: Wishes, timeout_s: float = TAKEN_S) -> Control:
        """Adds an order to the wishes; returns when it has been carried out.

        Raises LifecycleError with the objection if it is refused; Untaken if no conductor runs, or none has dealt
        with it in `timeout_s` seconds.
        """
        with self._commanding():
            known = self._known()
            self._require(order, known)
            if known.control.phase in NO_MORE:
                return known.control  # nothing can change it any more
            before = self.ordered()
            number = max(before.number, known.number) + 1
            self._order(Ordered(number, before.wishes.and_now(order)))
            taken = self._dealt(number, timeout_s)
            try:
                self._require(msgspec.structs.replace(order, close_at=None), taken)  # NB: closing has begun by now
                if order.void and taken.control.phase is not Phase.VOID:
                    raise LifecycleError(f"{self.session}: its result is sealed, and stands")
            except LifecycleError:
                self._order(Ordered(number + 1, before.wishes))
                raise
        return taken.control

    @contextmanager
    def _commanding(self) -> Iterator[None]:
        with (self._folder / "commander").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _known(self) -> Taken:
        taken = self.taken()
        if taken is not None and taken.control.phase in NO_MORE:
            return taken
        if not self.running():
            raise Untaken(f"session {self.session} does not run: start it with `psephos dev up`")
        taken = taken or _until(self.taken, _BEGIN_S)
        if taken is None:
            raise Untaken(f"session {self.session} has only just been started: try again")
        return taken

    def _require(self, order: Wishes, known: Taken) -> None:
        for why in objections(known.control, order, now_ms=now_ms(), closing=known.closing):
            raise LifecycleError(f"{self.session}: {why}")

    def _order(self, ordered: Ordered) -> None:
        write_whole(self._wishes, msgspec.json.encode(ordered))

    def _dealt(self, number: int, timeout_s: float) -> Taken:
        def dealt() -> Taken | None:
            taken = self.taken()
            return taken if taken is not None and taken.number >= number else None

        deadline = time.monotonic() + timeout_s
        while (taken := dealt()) is None:
            if not self.running():
                raise Untaken(f"session {self.session} was stopped; the order stands until it is started again")
            if time.monotonic() > deadline:
                raise Untaken(f"session {self.session} is busy; the order stands until its conductor takes it")
            time.sleep(_LOOK_S)
        return taken

    def _read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def _until(happened: Callable[[], _T], timeout_s: float) -> _T:
    """Polls `happened`; returns its first true value, or the last value when the time is up."""
    deadline = time.monotonic() + timeout_s
    while not (value := happened()) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return value


def _locked(lock: IO[str], kind: int) -> bool:
    """Tries to lock without blocking; returns whether it succeeded."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
