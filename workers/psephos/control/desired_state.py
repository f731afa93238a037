"""The desired state of a session on this machine, and the commands that follow from it. Pure.

One value holds everything that people want, and the controller compares it with the control record again and
again: what has been written is carried out in the end, whichever process dies meanwhile, and after that nothing
more happens. In a cluster the resource is the desired state.
"""

from collections.abc import Iterator

import msgspec

from psephos.control.commands import BEFORE_CLOSING, NO_MORE, Commands, Voting, apply_commands
from psephos.formats.control import Control, Phase
from psephos.platform.clock import text_of


class DesiredState(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Times in milliseconds since 1970. None or an empty string: leave it as it is.

    closes_at: when voting is to end; close_at: begin closing, for this time or as soon as ingest can learn of it;
    void: the reason why the session is void.
    """

    paused: bool | None = None
    closes_at: int | None = None
    close_at: int | None = None
    void: str = ""

    def merge(self, change: "DesiredState") -> "DesiredState":
        """This with a change. Any earlier `closes_at` has been decided."""
        return DesiredState(
            paused=self.paused if change.paused is None else change.paused,
            closes_at=change.closes_at,
            close_at=change.close_at if self.close_at is None else self.close_at,
            void=self.void or change.void,
        )


def commands_of(control: Control, desired: DesiredState) -> Commands:
    """The commands that keep the session as it is, except for what is desired."""
    is_paused = control.phase is Phase.PAUSED
    paused = is_paused if desired.paused is None else desired.paused
    return Commands(
        voting=Voting.VOID if desired.void else Voting.PAUSED if paused else Voting.GOES_ON,
        reason=desired.void or (control.reason if is_paused else ""),
        opens_at=control.opens_at,
        closes_at=control.closes_at if desired.closes_at is None else desired.closes_at,
        close_at=desired.close_at,
    )


def conflicts(control: Control, desired: DesiredState, *, now_ms: int, closing: bool) -> Iterator[str]:
    """Yields why the desired state can't be reached, one reason per line; nothing where it is reached already.

    `closing`: the ledger has fixed the end.
    """
    if desired.void and control.phase in NO_MORE and control.phase is not Phase.VOID:
        yield f"the session is {control.phase}: its result stands"
    if desired.closes_at is not None and desired.closes_at != control.closes_at:
        yield from _against_end(control, desired, now_ms, closing)
    if desired.paused is not None:
        yield from _against_voting(control, now_ms)
    if desired.close_at is not None:
        yield from _against_closing(control, desired.close_at, now_ms, closing)


def _against_end(control: Control, desired: DesiredState, now_ms: int, closing: bool) -> Iterator[str]:
    if control.phase not in BEFORE_CLOSING:
        yield f"closesAt is fixed: the session is {control.phase}"
    elif refused := apply_commands(control, commands_of(control, desired), now_ms, closing=closing).refused:
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
