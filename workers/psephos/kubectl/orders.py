"""People's orders as changes to a session's object. Pure.

The operator reads them in `psephos_operator.reconcile.life`; annotations and words are the contract between the
two, and a test compares them. They are repeated here, so that the plugin needs no Kafka client.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from psephos.formats.control import Phase
from psephos.platform.durations import parse_duration
from psephos.platform.errors import FAILED, PsephosError

PAUSED, CLOSED, VOID = "paused", "closed", "void"
VOTING, REASON, RECOUNT = "psephos.dev/voting", "psephos.dev/reason", "psephos.dev/recount"
BEFORE_CLOSING = ("", Phase.PENDING.value, Phase.OPEN.value, Phase.PAUSED.value)
ENDED = (Phase.FINAL.value, Phase.VOID.value)
FINAL_RUN = "final"
_LONGEST = timedelta(days=999_999)  # a time this much later can still be represented


class Refused(PsephosError):
    """The session's state does not allow this order, or the order makes no sense. The message is one line."""

    exit_code = FAILED


def phase_of(session: Mapping[str, Any]) -> str:
    """The phase in the status; empty before the operator has seen the session."""
    return str((session.get("status") or {}).get("phase", ""))


def pause(session: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """The change that pauses voting. Raises Refused."""
    return _ordered(session, PAUSED, reason, BEFORE_CLOSING)


def resume(session: Mapping[str, Any]) -> dict[str, Any]:
    """The change that resumes voting. Raises Refused."""
    if _annotations(session).get(VOTING) != PAUSED:
        raise Refused(f"{_name(session)} is not paused")
    return _annotated({VOTING: None, REASON: None})


def close(session: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """The change that begins closing, as soon as ingest has learned of it. Raises Refused."""
    return _ordered(session, CLOSED, reason, BEFORE_CLOSING)


def void(session: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """The change that makes the session void. Raises Refused."""
    if phase_of(session) in ENDED:
        raise Refused(f"{_name(session)} is {phase_of(session)}: that can't be changed any more")
    return _annotated({VOTING: VOID, REASON: reason or None})


def extend(session: Mapping[str, Any], until: datetime) -> dict[str, Any]:
    """The change to a later end. It has the object's version: if two people extend at once, one gets an error.

    Raises:
        Refused: if closing has begun, or the end would not be later.
    """
    if phase_of(session) not in BEFORE_CLOSING:
        raise Refused(f"{_name(session)} is {phase_of(session)}: its end is fixed")
    now = closes_at(session)
    if now is not None and until <= now:
        raise Refused(f"{_name(session)} closes at {text(now)}; {text(until)} is not later")
    version = session["metadata"]["resourceVersion"]
    return {"metadata": {"resourceVersion": version}, "spec": {"closesAt": text(until)}}


def later(session: Mapping[str, Any], by: str) -> datetime:
    """The session's end plus a duration such as 90s, 10m, 2h or 1d. Raises Refused."""
    longer = parse_duration(by)
    if not longer or longer > _LONGEST:
        raise Refused(f"--by is {by!r}; allowed: a duration such as 90s, 10m, 2h or 1d")
    end = closes_at(session)
    if end is None:
        raise Refused(f"{_name(session)} has no end that could be later: give one with --to")
    return end + longer


def moment(text_: str) -> datetime:
    """Parses a time with its zone. Raises Refused."""
    try:
        found = datetime.fromisoformat(text_)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise Refused(f"--to is {text_!r}; allowed: a time with its zone, such as 2026-11-23T20:00:00Z")
    return found.astimezone(UTC)


def recount_again(session: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The change for a repaired disputed session, and the run's new name: verdicts are never overwritten."""
    _, _, number = _annotations(session).get(RECOUNT, FINAL_RUN).partition("-")
    run = f"{FINAL_RUN}-{int(number or 1) + 1}"
    return _annotated({RECOUNT: run}), run


def closes_at(session: Mapping[str, Any]) -> datetime | None:
    """The time when the session closes; None if it has no end."""
    found = session["spec"].get("closesAt")
    return None if found is None else datetime.fromisoformat(found)


def text(when: datetime) -> str:
    """A time as text for a spec, in UTC."""
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _ordered(session: Mapping[str, Any], voting: str, reason: str, phases: tuple[str, ...]) -> dict[str, Any]:
    if phase_of(session) not in phases:
        raise Refused(f"{_name(session)} is {phase_of(session)}: it can't be {voting} any more")
    return _annotated({VOTING: voting, REASON: reason or None})


def _annotated(annotations: dict[str, str | None]) -> dict[str, Any]:
    return {"metadata": {"annotations": annotations}}


def _annotations(session: Mapping[str, Any]) -> Mapping[str, str]:
    return session["metadata"].get("annotations") or {}


def _name(session: Mapping[str, Any]) -> str:
    return str(session["metadata"]["name"])
