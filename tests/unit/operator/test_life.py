"""What is to be done next in a session's life: every place where an operator may find it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.sessions import session

from psephos.control import Closing, Orders, Voting
from psephos.domain.genesis import Genesis
from psephos.formats.control import Control, Phase
from psephos_operator.reconcile.backends import Standing
from psephos_operator.reconcile.life import (
    PREPARE_AHEAD_MS,
    Do,
    Step,
    decide,
    orders_of,
    orders_of_control,
    recounting,
    run_of,
    transition_at,
)

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


def standing(phase: Phase, **members: object) -> Standing:
    """A prepared session in this phase that closes at END."""
    control = Control(phase=phase, number=3, closes_at=END, grace_ms=1_000)
    return Standing(**{"genesis": GENESIS, "control": control, "ends": (0, 0), **members})  # type: ignore[arg-type]


def orders(voting: Voting = Voting.GOES_ON, closes_at: int | None = END, opens_at: int | None = None) -> Orders:
    return Orders(voting, "", opens_at, closes_at)


@pytest.mark.parametrize(
    ("at", "found", "wanted"),
    [
        # before it is prepared
        (NOW, Standing(), Step(Do.PREPARE, Phase.PENDING)),
        (NOW, Standing(genesis=GENESIS), Step(Do.PREPARE, Phase.PENDING)),
        # voting
        (NOW, standing(Phase.OPEN), Step(Do.WAIT, Phase.OPEN, END)),
        (END, standing(Phase.OPEN), Step(Do.FIX_END, Phase.OPEN)),
        (END + 9**9, standing(Phase.PAUSED), Step(Do.FIX_END, Phase.PAUSED)),
        (NOW, standing(Phase.OPEN, closing=FIXED), Step(Do.WAIT, Phase.OPEN, END)),
        (NOW, standing(Phase.OPEN, closing=Closing(NOW + 5, 1_000)), Step(Do.TELL_END, Phase.OPEN)),
        (END, standing(Phase.OPEN, closing=FIXED), Step(Do.BEGIN_CLOSING, Phase.OPEN)),
        # closing
        (END, standing(Phase.CLOSING), Step(Do.FIX_END, Phase.CLOSING)),
        (END, standing(Phase.CLOSING, closing=FIXED), Step(Do.WAIT, Phase.CLOSING, END + 1_000)),
        (END + 1_000, standing(Phase.CLOSING, closing=FIXED), Step(Do.SEAL, Phase.CLOSING)),
        (END + 1_000, standing(Phase.CLOSING, closing=FIXED, sealed={0: 10}), Step(Do.SEAL, Phase.CLOSING)),
        (
            END + 1_000,
            standing(Phase.CLOSING, closing=FIXED, sealed=SEALED, ends=(10, 19)),
            Step(Do.WAIT, Phase.CLOSING, END + 2_000),
        ),
        (
            END + 1_000,
            standing(Phase.CLOSING, closing=FIXED, sealed=SEALED, ends=(10, 20)),
            Step(Do.BEGIN_RECOUNT, Phase.CLOSING),
        ),
        # recounting
        (END, standing(Phase.RECOUNTING, closing=FIXED), Step(Do.WAIT, Phase.RECOUNTING, END + 2_000)),
        (
            END,
            standing(Phase.RECOUNTING, closing=FIXED, final={"state": "Final"}),
            Step(Do.CONCLUDE, Phase.RECOUNTING, conclusion=Phase.FINAL),
        ),
        (
            END,
            standing(Phase.RECOUNTING, closing=FIXED, disputed={"state": "Disputed"}),
            Step(Do.CONCLUDE, Phase.RECOUNTING, conclusion=Phase.DISPUTED),
        ),
        # ended
        (END, standing(Phase.FINAL), Step(Do.WAIT, Phase.FINAL)),
        (END, standing(Phase.VOID), Step(Do.WAIT, Phase.VOID)),
        (END, standing(Phase.DISPUTED, disputed={"state": "Disputed"}), Step(Do.WAIT, Phase.DISPUTED)),
        (END, standing(Phase.DISPUTED), Step(Do.WAIT, Phase.DISPUTED, END + 2_000)),
        (
            END,
            standing(Phase.DISPUTED, final={"state": "Final"}),
            Step(Do.CONCLUDE, Phase.DISPUTED, conclusion=Phase.FINAL),
        ),
    ],
)
def test_the_protocol_goes_on_where_it_stands(at: int, found: Standing, wanted: Step) -> None:
    assert decide(orders(), found, at) == wanted


def test_a_session_is_prepared_ten_minutes_before_it_opens() -> None:
    opens = NOW + PREPARE_AHEAD_MS + 1
    assert decide(orders(opens_at=opens), Standing(), NOW) == Step(Do.WAIT, Phase.PENDING, NOW + 1)
    assert decide(orders(opens_at=opens), Standing(), NOW + 1).do is Do.PREPARE


def test_a_session_that_is_void_before_it_was_prepared_never_is() -> None:
    assert decide(orders(Voting.VOID), Standing(), NOW) == Step(Do.WAIT, Phase.VOID)


def test_a_person_closes_before_the_time() -> None:
    assert decide(orders(Voting.CLOSED), standing(Phase.OPEN), NOW) == Step(Do.FIX_END, Phase.OPEN, closes_at=NOW)


def test_a_sealed_result_is_not_made_void() -> None:
    found = standing(Phase.RECOUNTING, closing=FIXED, final={"state": "Final"})
    assert decide(orders(Voting.VOID), found, END).conclusion is Phase.FINAL
    assert decide(orders(Voting.VOID), standing(Phase.RECOUNTING, closing=FIXED), END).do is Do.OBEY


def test_an_order_that_is_refused_is_told_and_nothing_is_done() -> None:
    step = decide(orders(closes_at=END - 1), standing(Phase.OPEN), NOW)
    assert (step.do, step.wake_at) == (Do.WAIT, END)
    assert "only be moved to later" in step.refused


def test_a_recount_runs_until_it_has_a_result_also_after_a_repair() -> None:
    assert recounting(standing(Phase.RECOUNTING))
    assert recounting(standing(Phase.DISPUTED)), "another run, without a result so far"
    assert not recounting(standing(Phase.DISPUTED, disputed={}))
    assert not recounting(standing(Phase.OPEN))


@pytest.mark.parametrize(
    ("asked", "run"), [("final-2", "final-2"), ("final", "final"), ("audit-1", "final"), ("", "final")]
)
def test_a_recounts_name_is_final_with_a_number_or_it_is_not_taken(asked: str, run: str) -> None:
    assert run_of({"psephos.dev/recount": asked}) == run


def test_orders_come_from_annotations_and_spec() -> None:
    document = session(closesAt="2030-01-01T00:00:00Z").model_dump(mode="json", by_alias=True)
    assert document["metadata"]["annotations"] == {}
    assert orders_of(session(closesAt="2030-01-01T00:00:00Z"))[0].closes_at == 1_893_456_000_000
    known = Control(phase=Phase.OPEN, number=1, closes_at=END)
    given = {"psephos.dev/voting": "paused", "psephos.dev/reason": "why"}
    assert orders_of_control(known, given) == Orders(Voting.PAUSED, "why", None, END)
    assert orders_of_control(None, {"psephos.dev/voting": "nonsense"}) == Orders()


def test_the_next_transition_is_the_clocks() -> None:
    assert transition_at(session(), standing(Phase.OPEN)) == END
    assert transition_at(session(), standing(Phase.CLOSING)) is None
    assert transition_at(session(), Standing()) is None


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
    found = standing(phase, closing=closing, sealed=sealed, ends=ends, final=final)
    step = decide(orders(voting), found, at)
    ended = phase in (Phase.FINAL, Phase.VOID, Phase.DISPUTED)
    assert step.do is not Do.WAIT or step.wake_at is not None or ended or voting is Voting.PAUSED
    assert step.do is not Do.PREPARE
    if step.wake_at is not None:
        assert step.wake_at > at or step.do is not Do.WAIT
