"""Applies people's commands (pause, resume, close, void, move a time) to a session's control record. Pure.

The operator reads them from annotations and the spec, the local controller from a file. The record is written by
`psephos.control.phases.change`.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec

from psephos.formats.control import Control, Phase
from psephos.platform.clock import text_of

NOTICE_MS = 3_000  # so ingest learns of the end in time
NOTICE_S = NOTICE_MS // 1000
BEFORE_CLOSING = frozenset({Phase.PENDING, Phase.OPEN, Phase.PAUSED})
NO_MORE = frozenset({Phase.FINAL, Phase.VOID})


class Voting(StrEnum):
    """What voting is to be. `closed`: begin to close now, whatever `closesAt` says."""

    GOES_ON = ""
    PAUSED = "paused"
    CLOSED = "closed"
    VOID = "void"


class Commands(NamedTuple):
    """Everything that people can command of a session. Times in ms since 1970, None if not set.

    close_at: begin to close, for this time or as soon as ingest can learn of it.
    """

    voting: Voting = Voting.GOES_ON
    reason: str = ""
    opens_at: int | None = None
    closes_at: int | None = None
    close_at: int | None = None


class Decision(NamedTuple):
    """The control record that the commands lead to, with its old number. `refused`: what can't be done and why."""

    control: Control
    refused: str = ""


def apply_commands(control: Control, commands: Commands, now: int, *, closing: bool) -> Decision:
    """The state that these commands ask for at `now` (ms), except closing.

    `closing`: the ledger has fixed the end.

    A session that is closing can only be made void. Once voting has begun, the end may only be moved to later or
    removed, and neither the old nor the new one may be too near for ingest to learn of it: otherwise a voter could
    be refused because voting is over and then be able to vote again. If a command is refused, the others are still
    carried out.
    """
    if control.phase in NO_MORE:
        return Decision(control)
    if commands.voting is Voting.VOID:
        return Decision(msgspec.structs.replace(control, phase=Phase.VOID, reason=commands.reason))
    if control.phase not in BEFORE_CLOSING:
        return Decision(control)
    closes_at, refused = _end(control, commands, now, closing=closing)
    timed = msgspec.structs.replace(control, closes_at=closes_at)
    return Decision(_paused_or_open(timed, commands, now), refused)


def _paused_or_open(control: Control, commands: Commands, now: int) -> Control:
    wants_pause = commands.voting is Voting.PAUSED
    match control.phase:
        case Phase.PENDING:
            control = msgspec.structs.replace(control, opens_at=commands.opens_at)
            if (commands.opens_at or 0) > now:
                return control
            phase = Phase.PAUSED if wants_pause else Phase.OPEN
            return msgspec.structs.replace(control, phase=phase, reason=commands.reason if wants_pause else "")
        case Phase.OPEN | Phase.PAUSED if control.closed_by(now):
            return control
        case Phase.OPEN if wants_pause:
            return msgspec.structs.replace(control, phase=Phase.PAUSED, reason=commands.reason)
        case Phase.PAUSED if wants_pause:
            return msgspec.structs.replace(control, reason=commands.reason)
        case Phase.PAUSED if commands.voting is Voting.GOES_ON:
            return msgspec.structs.replace(control, phase=Phase.OPEN, reason="")
        case _:
            return control


def _end(control: Control, commands: Commands, now: int, *, closing: bool) -> tuple[int | None, str]:
    """The time at which voting closes, and why it is not the commanded one; empty if it is."""
    known, wanted = control.closes_at, commands.closes_at
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
