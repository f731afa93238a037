"""What people want of a session on this machine (its wishes), and the orders that follow from it. Pure.

A wish is a level, not an event: one value holds everything, and the conductor compares it with the control record
again and again. So a wish that has been written is carried out in the end, whichever process dies meanwhile, and
after that nothing more happens. In a cluster the resource holds all of it: see `orders`.
"""

from collections.abc import Iterator

import msgspec

from psephos.control.orders import BEFORE_CLOSING, NO_MORE, Orders, Voting, obey
from psephos.formats.control import Control, Phase
from psephos.platform.clock import text_of


class Wishes(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Times in milliseconds since 1970. None or an empty string: no wish, leave it as it is.

    closes_at: when voting is to end; close_at: begin closing, for this time or as soon as ingest can learn of it;
    void: the reason why the session is void.
    """

    paused: bool | None = None
    closes_at: int | None = None
    close_at: int | None = None
    void: str = ""

    def and_now(self, wish: "Wishes") -> "Wishes":
        """Merges a new wish into these. Any earlier wish for `closes_at` has been decided."""
        return Wishes(
            paused=self.paused if wish.paused is None else wish.paused,
            closes_at=wish.closes_at,
            close_at=wish.close_at if self.close_at is None else self.close_at,
            void=self.void or wish.void,
        )


def orders_of(control: Control, wishes: Wishes) -> Orders:
    """The orders that keep the session as it is, except for the wishes. Beginning to close is not included."""
    stands_paused = control.phase is Phase.PAUSED
    paused = stands_paused if wishes.paused is None else wishes.paused
    return Orders(
        voting=Voting.VOID if wishes.void else Voting.PAUSED if paused else Voting.GOES_ON,
        reason=wishes.void or (control.reason if stands_paused else ""),
        opens_at=control.opens_at,
        closes_at=control.closes_at if wishes.closes_at is None else wishes.closes_at,
    )


def objections(control: Control, wishes: Wishes, *, now_ms: int, closing: bool) -> Iterator[str]:
    """Yields why the wishes cannot be met, one reason per line; nothing for a wish that is already fulfilled.

    `closing`: the ledger has fixed the end.
    """
    if wishes.void and control.phase in NO_MORE and control.phase is not Phase.VOID:
        yield f"the session is {control.phase}: its result stands"
    if wishes.closes_at is not None and wishes.closes_at != control.closes_at:
        yield from _against_end(control, wishes, now_ms, closing)
    if wishes.paused is not None:
        yield from _against_voting(control, now_ms)
    if wishes.close_at is not None:
        yield from _against_closing(control, wishes.close_at, now_ms, closing)


def _against_end(control: Control, wishes: Wishes, now_ms: int, closing: bool) -> Iterator[str]:
    if control.phase not in BEFORE_CLOSING:
        yield f"closesAt is fixed: the session is {control.phase}"
    elif refused := obey(control, orders_of(control, wishes), now_ms, closing=closing).refused:
        yield refused


def _against_voting(control: Control, now_ms: int) -> Iterator[str]:
    if control.phase not in BEFORE_CLOSING:
        yield f"the session is {control.phase}: voting is over"
    elif control.closed_by(now_ms):
        yield f"voting ended at {text_of(control.closes_at or 0)}"


def _against_closing(control: Control, close_at: int, now_ms: int, closing: bool) -> Iterator[str]:
    end = "" if control.closes_at is None else text_of(control.closes_at)
    if control.phase not in BEFORE_CLOSING:
        yield f"the session is {control.phase} already"
    elif closing:
        yield f"closing has begun already: voting ends at {end}"
    elif control.closed_by(now_ms):
        yield f"voting ended at {end} already"
    elif control.closes_at is not None and close_at > control.closes_at:
        yield f"voting ends at {end}, before that: extend it first"
