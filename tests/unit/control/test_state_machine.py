"""The next step of a session's life, wherever a controller may find it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.control import (
    Action,
    Closing,
    Commands,
    ObservedState,
    Step,
    Voting,
    decide,
    recount_due,
)
from psephos.control.state_machine import PREPARE_AHEAD_MS
from psephos.domain.genesis import Genesis
from psephos.formats.control import Control, Phase

NOW = 1_000_000_000
END = NOW + 60_000
GENESIS = Genesis(
    session="s",
    name="lunch",
    partitions=2,
    topic_id="t",
    key_fingerprint="k",
    rules_hash="r",
    public_key="p",
    receipt_key="q",
    lot_commitment="l",
)
FIXED = Closing(END, 1_000)
SEALED = {0: 10, 1: 20}


def observed(phase: Phase, **members: object) -> ObservedState:
    """A prepared session in this phase that closes at END."""
    control = Control(phase=phase, number=3, closes_at=END, grace_ms=1_000)
    known = {
        "genesis": GENESIS,
        "control": control,
        "ends": (0, 0),
        "result_sealed": members.get("final") is not None,
    }
    return ObservedState(**{**known, **members})  # type: ignore[arg-type]


def commands(
    voting: Voting = Voting.GOES_ON, closes_at: int | None = END, opens_at: int | None = None
) -> Commands:
    return Commands(voting, "", opens_at, closes_at)


@pytest.mark.parametrize(
    ("at", "found", "wanted"),
    [
        # before it is prepared
        (NOW, ObservedState(), Step(Action.PREPARE, Phase.PENDING)),
        (NOW, ObservedState(genesis=GENESIS), Step(Action.PREPARE, Phase.PENDING)),
        # voting
        (NOW, observed(Phase.OPEN), Step(Action.WAIT, Phase.OPEN, END)),
        (END, observed(Phase.OPEN), Step(Action.FIX_CLOSING_TIME, Phase.OPEN)),
        (END + 9**9, observed(Phase.PAUSED), Step(Action.FIX_CLOSING_TIME, Phase.PAUSED)),
        (NOW, observed(Phase.OPEN, closing=FIXED), Step(Action.WAIT, Phase.OPEN, END)),
        (
            NOW,
            observed(Phase.OPEN, closing=Closing(NOW + 5, 1_000)),
            Step(Action.ANNOUNCE_CLOSING_TIME, Phase.OPEN),
        ),
        (END, observed(Phase.OPEN, closing=FIXED), Step(Action.BEGIN_CLOSING, Phase.OPEN, grace_ms=1_000)),
        # closing
        (END, observed(Phase.CLOSING), Step(Action.FIX_CLOSING_TIME, Phase.CLOSING)),
        (END, observed(Phase.CLOSING, closing=FIXED), Step(Action.WAIT, Phase.CLOSING, END + 1_000)),
        (END + 1_000, observed(Phase.CLOSING, closing=FIXED), Step(Action.SEAL, Phase.CLOSING)),
        (END + 1_000, observed(Phase.CLOSING, closing=FIXED, sealed={0: 10}), Step(Action.SEAL, Phase.CLOSING)),
        (
            END + 1_000,
            observed(Phase.CLOSING, closing=FIXED, sealed=SEALED, ends=(10, 19)),
            Step(Action.WAIT, Phase.CLOSING, END + 2_000),
        ),
        (
            END + 1_000,
            observed(Phase.CLOSING, closing=FIXED, sealed=SEALED, ends=(10, 20)),
            Step(Action.BEGIN_RECOUNT, Phase.CLOSING),
        ),
        # recounting
        (END, observed(Phase.RECOUNTING, closing=FIXED), Step(Action.WAIT, Phase.RECOUNTING, END + 2_000)),
        (
            END,
            observed(Phase.RECOUNTING, closing=FIXED, final={"state": "Final"}),
            Step(Action.CONCLUDE, Phase.RECOUNTING, conclusion=Phase.FINAL),
        ),
        (
            END,
            observed(Phase.RECOUNTING, closing=FIXED, disputed={"state": "Disputed"}),
            Step(Action.CONCLUDE, Phase.RECOUNTING, conclusion=Phase.DISPUTED),
        ),
        # ended
        (END, observed(Phase.FINAL), Step(Action.WAIT, Phase.FINAL)),
        (END, observed(Phase.VOID), Step(Action.WAIT, Phase.VOID)),
        (END, observed(Phase.DISPUTED, disputed={"state": "Disputed"}), Step(Action.WAIT, Phase.DISPUTED)),
        (END, observed(Phase.DISPUTED), Step(Action.WAIT, Phase.DISPUTED, END + 2_000)),
        (
            END,
            observed(Phase.DISPUTED, final={"state": "Final"}),
            Step(Action.CONCLUDE, Phase.DISPUTED, conclusion=Phase.FINAL),
        ),
    ],
)
def test_the_protocol_goes_on_where_it_stands(at: int, found: ObservedState, wanted: Step) -> None:
    assert decide(commands(), found, at) == wanted


def test_a_session_is_prepared_ten_minutes_before_it_opens() -> None:
    opens = NOW + PREPARE_AHEAD_MS + 1
    assert decide(commands(opens_at=opens), ObservedState(), NOW) == Step(Action.WAIT, Phase.PENDING, NOW + 1)
    assert decide(commands(opens_at=opens), ObservedState(), NOW + 1).action is Action.PREPARE


def test_a_session_that_is_void_before_it_was_prepared_never_is() -> None:
    assert decide(commands(Voting.VOID), ObservedState(), NOW) == Step(Action.WAIT, Phase.VOID)


def test_a_person_closes_before_the_time() -> None:
    assert decide(commands(Voting.CLOSED), observed(Phase.OPEN), NOW) == Step(
        Action.FIX_CLOSING_TIME, Phase.OPEN, closes_at=NOW
    )


def test_a_grace_period_begins_with_an_announcement_that_came_late() -> None:
    """Ingest could not know of the end before it, and acknowledges votes for less than a grace period after it."""
    announced = replace(observed(Phase.OPEN, closing=FIXED), control_at=END + 5_000)
    step = decide(commands(), announced, END + 6_000)
    assert (step.action, step.grace_ms) == (Action.BEGIN_CLOSING, FIXED.grace_ms + 5_000)


@pytest.mark.parametrize("control_at", [None, END - 5_000, END])
def test_an_announcement_in_time_leaves_the_grace_period_as_it_is(control_at: int | None) -> None:
    announced = replace(observed(Phase.OPEN, closing=FIXED), control_at=control_at)
    assert decide(commands(), announced, END).grace_ms == FIXED.grace_ms


def test_markers_wait_for_the_grace_period_that_was_announced() -> None:
    """If the closing time was announced late, it is longer than the one in the ledger."""
    control = Control(phase=Phase.CLOSING, number=3, closes_at=END, grace_ms=9_000)
    found = observed(Phase.CLOSING, closing=FIXED, control=control)
    assert decide(commands(), found, END + 8_999) == Step(Action.WAIT, Phase.CLOSING, END + 9_000)
    assert decide(commands(), found, END + 9_000).action is Action.SEAL


def test_a_command_to_close_is_carried_out_while_the_session_is_paused() -> None:
    paused = Commands(Voting.PAUSED, "", None, END, close_at=NOW + 5_000)
    assert decide(paused, observed(Phase.PAUSED), NOW) == Step(
        Action.FIX_CLOSING_TIME, Phase.PAUSED, closes_at=NOW + 5_000
    )


def test_a_sealed_result_is_not_made_void() -> None:
    found = observed(Phase.RECOUNTING, closing=FIXED, final={"state": "Final"})
    assert decide(commands(Voting.VOID), found, END).conclusion is Phase.FINAL
    assert (
        decide(commands(Voting.VOID), observed(Phase.RECOUNTING, closing=FIXED), END).action
        is Action.APPLY_COMMANDS
    )


def test_a_refused_command_is_reported_and_nothing_is_done() -> None:
    step = decide(commands(closes_at=END - 1), observed(Phase.OPEN), NOW)
    assert (step.action, step.wake_at) == (Action.WAIT, END)
    assert "only be moved to later" in step.refused


def test_a_recount_runs_until_it_has_a_result_also_after_a_repair() -> None:
    assert recount_due(observed(Phase.RECOUNTING))
    assert recount_due(observed(Phase.DISPUTED)), "another run, without a result so far"
    assert not recount_due(observed(Phase.DISPUTED, disputed={}))
    assert not recount_due(observed(Phase.OPEN))


@given(
    phase=st.sampled_from(list(Phase)),
    voting=st.sampled_from(list(Voting)),
    at=st.integers(NOW, END + 10_000),
    closing=st.sampled_from([None, FIXED, Closing(NOW + 1_000, 1_000)]),
    sealed=st.sampled_from([{}, {0: 10}, SEALED]),
    ends=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    final=st.sampled_from([None, {}]),
)
def test_wherever_it_stands_there_is_a_step_or_something_to_wait_for(
    phase: Phase,
    voting: Voting,
    at: int,
    closing: Closing | None,
    sealed: dict[int, int],
    ends: tuple[int, int],
    final: dict[str, object] | None,
) -> None:
    found = observed(phase, closing=closing, sealed=sealed, ends=ends, final=final)
    step = decide(commands(voting), found, at)
    ended = phase in (Phase.FINAL, Phase.VOID, Phase.DISPUTED)
    assert step.action is not Action.WAIT or step.wake_at is not None or ended or voting is Voting.PAUSED
    assert step.action is not Action.PREPARE
    if step.wake_at is not None:
        assert step.wake_at > at or step.action is not Action.WAIT
