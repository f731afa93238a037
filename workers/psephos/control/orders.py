"""Turns people's orders (pause, resume, void, move a time) into the session's next control record. Pure.

The operator reads orders from annotations and the spec, the local stack from its commands. The record is written
by `psephos.control.phases.change`.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec

from psephos.formats.control import Control, Phase
from psephos.platform.clock import text_of

NOTICE_MS = 3_000  # ingest obeys the control record within 2 s, so it learns of the end in time
NOTICE_S = NOTICE_MS // 1000
BEFORE_CLOSING = frozenset({Phase.PENDING, Phase.OPEN, Phase.PAUSED})
NO_MORE = frozenset({Phase.FINAL, Phase.VOID})


class Voting(StrEnum):
    """The ordered state of voting. `closed`: begin to close now, whatever `closesAt` says."""

    GOES_ON = ""
    PAUSED = "paused"
    CLOSED = "closed"
    VOID = "void"


class Orders(NamedTuple):
    """All that people can order about a running session. Times in ms since 1970, None if not set."""

    voting: Voting = Voting.GOES_ON
    reason: str = ""
    opens_at: int | None = None
    closes_at: int | None = None


class Obeyed(NamedTuple):
    """The control record that obeys the orders, with its old number. `refused`: what can't be done, and why."""

    control: Control
    refused: str = ""


def obey(control: Control, orders: Orders, now: int, *, closing: bool) -> Obeyed:
    """The state that these orders ask for, `now` in ms. `closing`: the ledger has fixed the end.

    A session that is closing can only be made void. Once voting has begun, the end may only be moved to later or
    removed, and neither the old nor the new one may be too near for ingest to learn of it: otherwise a voter could
    be refused because voting is over and then be able to vote again. If an order is refused, the others are still
    carried out.
    """
    if control.phase in NO_MORE:
        return Obeyed(control)
    if orders.voting is Voting.VOID:
        return Obeyed(msgspec.structs.replace(control, phase=Phase.VOID, reason=orders.reason))
    if control.phase not in BEFORE_CLOSING:
        return Obeyed(control)
    closes_at, refused = _end(control, orders, now, closing=closing)
    timed = msgspec.structs.replace(control, closes_at=closes_at)
    return Obeyed(_paused_or_open(timed, orders, now), refused)


def _paused_or_open(control: Control, orders: Orders, now: int) -> Control:
    wants_pause = orders.voting is Voting.PAUSED
    match control.phase:
        case Phase.PENDING:
            control = msgspec.structs.replace(control, opens_at=orders.opens_at)
            if (orders.opens_at or 0) > now:
                return control
            phase = Phase.PAUSED if wants_pause else Phase.OPEN
            return msgspec.structs.replace(control, phase=phase, reason=orders.reason if wants_pause else "")
        case Phase.OPEN | Phase.PAUSED if control.closed_by(now):
            return control
        case Phase.OPEN if wants_pause:
            return msgspec.structs.replace(control, phase=Phase.PAUSED, reason=orders.reason)
        case Phase.PAUSED if wants_pause:
            return msgspec.structs.replace(control, reason=orders.reason)
        case Phase.PAUSED if orders.voting is Voting.GOES_ON:
            return msgspec.structs.replace(control, phase=Phase.OPEN, reason="")
        case _:
            return control


def _end(control: Control, orders: Orders, now: int, *, closing: bool) -> tuple[int | None, str]:
    """The time at which voting closes, and why it is not the ordered one; empty if it is."""
    known, wanted = control.closes_at, orders.closes_at
    if wanted == known:
        return known, ""
    if closing or control.closed_by(now):
        return known, "closesAt is fixed: closing has begun"
    if control.closed_by(now + NOTICE_MS):
        return (
            known,
            f"closesAt is {text_of(known or 0)}: too near to be moved, ingest needs {NOTICE_S} s to hear of it",
        )
    if wanted is None:
        return None, ""
    if wanted < now + NOTICE_MS:
        return known, f"{text_of(wanted)} is too near: ingest needs {NOTICE_S} s to hear of it"
    if known is not None and wanted < known and control.phase is not Phase.PENDING:
        return known, f"closesAt is {text_of(known)}; it can only be moved to later"
    return wanted, ""
