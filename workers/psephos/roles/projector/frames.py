"""Builds a result frame from heads. Pure: the time is an argument."""

from collections.abc import Mapping

from psephos.domain.genesis import Genesis
from psephos.domain.results import cells_of, combine, embargoed, segments_json, totals_json, turnout
from psephos.domain.session import Session
from psephos.formats.control import Control, Phase
from psephos.formats.frames import Frame
from psephos.roles.projector.heads import Head


def version_of(heads: Mapping[int, Head], control: Control) -> int:
    """Returns the sum of the end offsets and the control record's number: it only grows."""
    return sum(head.end for head in heads.values()) + control.number


def build_frame(
    session: Session, genesis: Genesis, heads: Mapping[int, Head], control: Control, *, lag_ms: int, now_ms: int
) -> Frame:
    """Returns the live frame of these heads. Under embargo it has no figures per option.

    It is never the final one: that is built from the sealed result (`psephos.domain.results.final_frame`).
    """
    total = combine((head.state for head in heads.values()), cells_of(session))
    hidden = embargoed(session, Phase.OPEN)  # a live frame shows nothing, whatever the phase
    return Frame(
        session=session.name,
        epoch=genesis.epoch,
        version=version_of(heads, control),
        phase=control.phase.value,
        totals=None if hidden else totals_json(session, total.tallies),
        segments=None if hidden else segments_json(session, total.tallies),
        turnout=turnout(total.classes, total.voters),
        as_of=now_ms,
        lag_ms=lag_ms,
        final=False,
        closes_at=control.closes_at,
    )
