"""Decides when a vote may come in, and whether an acknowledgement came in time. Pure: every time is an argument.

There are three clocks. `wall_ms`, milliseconds since 1970, decides whether `closesAt` has passed. `mono`, seconds
by `time.monotonic`, decides whether a 202 may still be sent: a process that was stopped, or whose wall clock was
set back, must not promise a vote that is after the close marker. The third is the broker's, which reports when it
appended a record: that holds whatever the clocks here say. The marker is written one grace period after
`closesAt`, so an acknowledged record is before it if

1. the acknowledgement came before `closesAt + grace/2` by both clocks here, and the record was appended before
   then by the broker's (the other half is for clocks that differ), and
2. it came within `HEARD_SHARE` of the grace period after the control topic was last known to hold nothing newer:
   then no earlier `closesAt` was fixed without this process knowing.
"""

from functools import lru_cache

from psephos.formats.control import Control, Phase
from psephos.platform.clock import text_of
from psephos.roles.ingest.problems import Problem, busy

HEARD_SHARE = 0.75  # the rest of the grace period is for a new state to reach the topic
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
        """Closing time in milliseconds since 1970; None if it is not fixed."""
        return self._control.closes_at if self._control else None

    def learn(self, control: Control, *, wall_ms: int, mono: float) -> None:
        """Takes a newer state of the session."""
        self._control = control
        self._deadline = _WITHOUT_END
        self.tighten(wall_ms=wall_ms, mono=mono)

    def heard(self, mono: float) -> None:
        """Notes that at `mono` there was no newer state than the one learnt."""
        self._heard = mono

    def tighten(self, *, wall_ms: int, mono: float) -> None:
        """Updates the deadline. Call it about every second: a wall clock that was set can only make it earlier."""
        last_ms = self._last_confirmation_ms()
        if last_ms is not None:
            self._deadline = min(self._deadline, mono + (last_ms - wall_ms) / 1000)

    def is_current(self, mono: float) -> bool:
        """Returns whether the state is known well enough to promise anything."""
        if self._control is None:
            return False
        return mono - self._heard <= HEARD_SHARE * self._control.grace_ms / 1000

    def admit(self, *, wall_ms: int, mono: float) -> None:
        """Raises Problem unless a vote received now may count."""
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
        """Returns whether an acknowledgement that arrives now makes a 202. appended_ms: the broker's, if known."""
        last_ms = self._last_confirmation_ms()
        in_time = last_ms is None or (max(wall_ms, appended_ms or 0) <= last_ms and mono <= self._deadline)
        return in_time and self.is_current(mono)

    def _last_confirmation_ms(self) -> int | None:
        if self._control is None or self._control.closes_at is None:
            return None
        return self._control.closes_at + self._control.grace_ms // 2


timestamp = lru_cache(64)(text_of)  # many votes arrive in one millisecond


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
