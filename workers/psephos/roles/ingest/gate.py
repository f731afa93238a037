"""When a vote may come in, and when an acknowledgement came in time. Pure: every time is an argument.

Three clocks. `wall_ms`, milliseconds since 1970, decides whether `closesAt` has passed. `mono`, seconds by
`time.monotonic`, decides whether a 202 may still be answered: a process that was stopped, or whose wall clock was
set back, must not promise a vote that stands behind the close marker. The third is the broker's, who says when it
appended a record: that holds whatever the clocks here say. The marker is written one grace time after `closesAt`,
so an acknowledged record stands before it if

1. the acknowledgement came before `closesAt + grace/2` by either clock here, and the record was appended before
   then by the broker's (the other half is for clocks that differ), and
2. it came within `HEARD_SHARE` of the grace after the control topic was last known to hold nothing newer: then no
   earlier `closesAt` was fixed unheard.
"""

from functools import lru_cache

from psephos.formats.control import Control, Phase
from psephos.platform.clock import text_of
from psephos.roles.ingest.problems import Problem, busy

HEARD_SHARE = 0.75  # the rest of the grace is for the way of a new state into the topic
PAUSED_RETRY_S = 5
_NEVER = float("-inf")
_WITHOUT_END = float("inf")


class Gate:
    """The session's state as this process knows it."""

    def __init__(self) -> None:
        self._control: Control | None = None
        self._heard = _NEVER
        self._deadline = _WITHOUT_END

    @property
    def phase(self) -> Phase:
        return self._control.phase if self._control else Phase.PENDING

    @property
    def closes_at(self) -> int | None:
        """Milliseconds since 1970; None where that is not fixed."""
        return self._control.closes_at if self._control else None

    def learn(self, control: Control, *, wall_ms: int, mono: float) -> None:
        """A newer state of the session."""
        self._control = control
        self._deadline = _WITHOUT_END
        self.tighten(wall_ms=wall_ms, mono=mono)

    def heard(self, mono: float) -> None:
        """At `mono` there was no newer state than the one that has been learnt."""
        self._heard = mono

    def tighten(self, *, wall_ms: int, mono: float) -> None:
        """Call it about every second: a wall clock that was set only ever moves the deadline forward."""
        last_ms = self._last_confirmation_ms()
        if last_ms is not None:
            self._deadline = min(self._deadline, mono + (last_ms - wall_ms) / 1000)

    def is_current(self, mono: float) -> bool:
        """Whether the state is known well enough to promise anything."""
        if self._control is None:
            return False
        return mono - self._heard <= HEARD_SHARE * self._control.grace_ms / 1000

    def admit(self, *, wall_ms: int, mono: float) -> None:
        """Raises Problem unless a vote that is received now may count."""
        control = self._control
        if control is None or control.phase is Phase.PENDING:
            raise _not_open(control)
        if control.phase not in (Phase.OPEN, Phase.PAUSED) or control.closed_by(wall_ms):
            raise _closed(control)
        if control.phase is Phase.PAUSED:
            raise busy("session-paused", "voting is paused; try again later", PAUSED_RETRY_S)
        if not self.is_current(mono):
            raise busy("overloaded", "the session's state can't be confirmed at the moment; try again")

    def confirms(self, *, wall_ms: int, mono: float, appended_ms: int | None) -> bool:
        """Whether an acknowledgement that comes now makes a 202. appended_ms: by the broker, if it tells."""
        last_ms = self._last_confirmation_ms()
        in_time = last_ms is None or (max(wall_ms, appended_ms or 0) <= last_ms and mono <= self._deadline)
        return in_time and self.is_current(mono)

    def _last_confirmation_ms(self) -> int | None:
        if self._control is None or self._control.closes_at is None:
            return None
        return self._control.closes_at + self._control.grace_ms // 2


timestamp = lru_cache(64)(text_of)  # votes come many in one millisecond


def _not_open(control: Control | None) -> Problem:
    if control is None or control.opens_at is None:
        return Problem("session-not-open", "voting has not begun")
    opens_at = timestamp(control.opens_at)
    return Problem("session-not-open", f"voting begins at {opens_at}", opensAt=opens_at)


def _closed(control: Control) -> Problem:
    if control.closes_at is None:
        return Problem("session-closed", "voting is over")
    closes_at = timestamp(control.closes_at)
    return Problem("session-closed", f"voting ended at {closes_at}", closesAt=closes_at)
