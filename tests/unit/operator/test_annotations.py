"""Commands and names from what a person writes on a `VotingSession`."""

import pytest
from tests.unit.control.test_state_machine import END, observed
from tests.unit.operator.sessions import session

from psephos.control import Commands, ObservedState, Voting
from psephos.formats.control import Control, Phase
from psephos_operator.reconcile.annotations import (
    commands_of_control,
    commands_of_session,
    run_of,
    transition_at,
)


@pytest.mark.parametrize(
    ("asked", "run"), [("final-2", "final-2"), ("final", "final"), ("audit-1", "final"), ("", "final")]
)
def test_a_recounts_name_is_final_with_a_number_or_it_is_not_taken(asked: str, run: str) -> None:
    assert run_of({"psephos.dev/recount": asked}) == run


def test_commands_come_from_annotations_and_spec() -> None:
    document = session(closesAt="2030-01-01T00:00:00Z").model_dump(mode="json", by_alias=True)
    assert document["metadata"]["annotations"] == {}
    assert commands_of_session(session(closesAt="2030-01-01T00:00:00Z"))[0].closes_at == 1_893_456_000_000
    known = Control(phase=Phase.OPEN, number=1, closes_at=END)
    given = {"psephos.dev/voting": "paused", "psephos.dev/reason": "why"}
    assert commands_of_control(known, given) == Commands(Voting.PAUSED, "why", None, END)
    assert commands_of_control(None, {"psephos.dev/voting": "nonsense"}) == Commands()


def test_the_next_transition_is_the_clocks() -> None:
    assert transition_at(session(), observed(Phase.OPEN)) == END
    assert transition_at(session(), observed(Phase.CLOSING)) is None
    assert transition_at(session(), ObservedState()) is None
