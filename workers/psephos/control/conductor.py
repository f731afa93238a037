"""The conductor: takes one session through its phases by the clock, as the operator does in a cluster."""

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext

import msgspec

from psephos.adapters.dynamodb import Ledger, LedgerMissing, LedgerUnavailable
from psephos.adapters.kafka import LogUnavailable
from psephos.control.closing import DRAIN_TIMEOUT_S, Drained, close, closing_of, fix_closing
from psephos.control.errors import Stopped
from psephos.control.orderbook import OrderBook, Ordered
from psephos.control.orders import BEFORE_CLOSING, NO_MORE, obey
from psephos.control.phases import change, current, set_phase
from psephos.control.wishes import Wishes, orders_of
from psephos.formats.control import ENDED, Control, Phase
from psephos.platform.clock import now_ms
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings

_LOOK_S = 2.0  # how often an idle conductor polls for changes that others made
_LISTEN_S = 0.05  # and for orders
_RETRY_S = 2.0
log = get_logger()

Recount = Callable[[], Phase]
"""Runs the final recount and returns Final or Disputed. It is retried after server errors."""


class Conductor:
    """Runs a session's life in a thread of its own until it has ended or `stop` is called.

    `recount` runs the final recount (in this process, or as a child); `orders` is where people give orders, and
    while a session is Disputed the conductor waits for their decision. Servers that are unavailable for a while
    only delay it. Errors that a retry can't fix end the thread; `failure` keeps them.
    """

    def __init__(
        self,
        settings: Settings,
        recount: Recount,
        *,
        orders: OrderBook | None = None,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
        progress: Callable[[str], None] = lambda _what: None,
    ) -> None:
        self._settings = settings
        self._ledger = Ledger.of(settings)
        self._recount = recount
        self._drain_timeout_s = drain_timeout_s
        self._progress = progress
        self._stop = threading.Event()
        self._orders = orders
        self._close_at: int | None = None
        self._closing = False
        self._dealt_with = 0
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="conductor", daemon=True)
        self.control: Control | None = None
        self.failure: Exception | None = None

    def start(self) -> None:
        """Starts the thread. The session must have been prepared."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Asks the thread to stop and waits up to `timeout_s` for it, also while a recount runs."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def close(self, closes_at: int | None = None) -> None:
        """Begins closing: at `closes_at` (ms since 1970), or now plus ingest's notice time. Returns at once."""
        self._close_at = now_ms() if closes_at is None else closes_at
        self._wake.set()

    def wait(self, timeout_s: float | None = None) -> Control | None:
        """Waits for the control record that ended the session; returns None if it has not ended by then.

        Raises the error that made the conductor give up.
        """
        self._ended.wait(timeout_s)
        if self.failure is not None:
            raise self.failure
        return self.control if self.control is not None and self.control.phase in ENDED else None

    def _run(self) -> None:
        try:
            with self._orders.held() if self._orders is not None else nullcontext():
                while not self._stop.is_set() and not self._try_step():
                    pass
        except Exception as error:
            log.error("the conductor gives up", why=str(error))
            self.failure = error
        finally:
            self._ended.set()

    def _try_step(self) -> bool:
        """Takes one step; returns whether nothing is left to do. Unavailable servers are tried again."""
        try:
            self.control = self._step()
            self._answer(self.control)
        except Stopped:
            return False
        except (LogUnavailable, LedgerUnavailable, LedgerMissing, Drained) as error:
            log.warning("the conductor tries again", why=str(error))
            self._progress(str(error))
            self._stop.wait(_RETRY_S)
            return False
        if self.control.phase in ENDED:
            self._ended.set()
        if self.control.phase in NO_MORE or (self.control.phase in ENDED and self._orders is None):
            return True
        if self.control.phase in BEFORE_CLOSING | ENDED:
            self._idle(self.control)
        return False

    def _idle(self, control: Control) -> None:
        """Waits until something is due by the clock, or the conductor is called."""
        due = control.opens_at if control.phase is Phase.PENDING else control.closes_at
        left = _LOOK_S if due is None or control.phase in ENDED else (due - now_ms()) / 1000
        until = time.monotonic() + min(max(left, 0.0), _LOOK_S)
        while (left := until - time.monotonic()) > 0 and not self._called():
            self._wake.wait(min(left, _LISTEN_S))
        self._wake.clear()

    def _called(self) -> bool:
        """Returns whether a call or an order is waiting for this conductor."""
        return self._wake.is_set() or self._stop.is_set() or (self._orders is not None and self._orders.waiting())

    def _step(self) -> Control:
        control = self._obey()
        match control.phase:
            case Phase.PENDING | Phase.OPEN | Phase.PAUSED:
                if not self._closing and not control.closed_by(now_ms()):
                    return control
                self._close()
            case Phase.CLOSING:
                self._close()
            case Phase.RECOUNTING:
                return self._count()
            case _:
                return control
        return current(self._settings)

    def _obey(self) -> Control:
        """Carries out what is wished and due, except closing, which is only begun."""
        ordered = Ordered(0, Wishes()) if self._orders is None else self._orders.ordered()
        wishes = self._possible(ordered.wishes)
        self._closing = closing_of(self._ledger) is not None

        def obeyed(control: Control) -> Control:
            return obey(control, orders_of(control, wishes), now_ms(), closing=self._closing).control

        control = change(self._settings, obeyed)
        close_at = wishes.close_at if self._close_at is None else self._close_at
        if close_at is not None and control.phase in BEFORE_CLOSING and not self._closing:
            closing = fix_closing(self._settings, self._ledger, close_at)
            control, self._closing = msgspec.structs.replace(control, closes_at=closing.closes_at), True
        self._dealt_with = ordered.number
        self._answer(control)
        return control

    def _possible(self, wishes: Wishes) -> Wishes:
        """The wishes without void once the result is sealed, even if a process died before setting phase Final."""
        sealed = wishes.void and self._ledger.get("final") is not None
        return msgspec.structs.replace(wishes, void="") if sealed else wishes

    def _answer(self, control: Control) -> None:
        if self._orders is not None:
            self._orders.answer(self._dealt_with, control, closing=self._closing)

    def _close(self) -> None:
        close(
            self._settings,
            drain_timeout_s=self._drain_timeout_s,
            progress=self._progress,
            stopped=self._interrupted,
        )

    def _interrupted(self) -> bool:
        """Returns whether to leave a step of closing: the next one continues where it stood."""
        return self._stop.is_set() or (self._orders is not None and self._orders.waiting())

    def _count(self) -> Control:
        self._progress("recounting")
        begun = time.monotonic()
        phase = self._recount()
        log.info("recount done", phase=phase, seconds=round(time.monotonic() - begun, 3))
        return set_phase(self._settings, phase)
