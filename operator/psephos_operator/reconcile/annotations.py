"""What a person writes on a `VotingSession` besides its spec: annotations, as commands. Pure."""

import re
from collections.abc import Mapping

from psephos.control import Commands, ObservedState, Voting
from psephos.control.commands import BEFORE_CLOSING
from psephos.control.observation import FINAL_RUN
from psephos.domain.session import Session
from psephos.formats.control import Control, Phase
from psephos.platform.clock import ms_of

VOTING, REASON = "psephos.dev/voting", "psephos.dev/reason"
RECONCILE, RECOUNT = "psephos.dev/reconcile", "psephos.dev/recount"
PAUSED = "paused"
_RUN = re.compile(r"final(-[1-9][0-9]{0,3})?")


def commands_of_session(session: Session) -> tuple[Commands, str]:
    """The commands in spec and annotations, and what is wrong with them."""
    annotations, wrong = session.metadata.annotations, ""
    try:
        voting = Voting(annotations.get(VOTING, ""))
    except ValueError:
        allowed = ", ".join(each.value for each in Voting if each.value)
        voting, wrong = Voting.GOES_ON, f"annotation {VOTING}: found {annotations[VOTING]!r}; allowed: {allowed}"
    spec = session.spec
    return Commands(voting, annotations.get(REASON, ""), ms_of(spec.opens_at), ms_of(spec.closes_at)), wrong


def commands_of_control(control: Control | None, annotations: Mapping[str, str]) -> Commands:
    """The commands for a session whose spec can't be read: the times that it was last known to have."""
    words = annotations.get(VOTING, "")
    voting = Voting(words) if words in list(Voting) else Voting.GOES_ON
    times = (None, None) if control is None else (control.opens_at, control.closes_at)
    return Commands(voting, annotations.get(REASON, ""), *times)


def run_of(annotations: Mapping[str, str]) -> str:
    """The name of the final recount: another one than `final` after a repair, by annotation."""
    wanted = annotations.get(RECOUNT, FINAL_RUN)
    return wanted if _RUN.fullmatch(wanted) else FINAL_RUN


def reconcile_paused(annotations: Mapping[str, str]) -> bool:
    """Whether this session is to be left alone."""
    return annotations.get(RECONCILE) == PAUSED


def transition_at(session: Session, observed: ObservedState) -> int | None:
    """When the clock will open or close the session (ms since 1970), None if nothing is due by the clock."""
    control = observed.control
    if control is None:
        return ms_of(session.spec.opens_at)
    if control.phase is Phase.PENDING:
        return control.opens_at
    return control.closes_at if control.phase in BEFORE_CLOSING else None
