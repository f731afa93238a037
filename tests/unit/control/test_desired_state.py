"""What people desire of a session on this machine, and what its control record becomes. Nothing waits here."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.control.commands import BEFORE_CLOSING, NO_MORE, NOTICE_MS, apply_commands
from psephos.control.desired_state import DesiredState, commands_of, conflicts
from psephos.control.phases import FOLLOWING
from psephos.formats.control import Control, Phase

NOW = 1_800_000_000_000
HOUR = 3_600_000
OVER = [phase for phase in Phase if phase not in BEFORE_CLOSING]


def control(phase: Phase = Phase.OPEN, closes_in: int | None = None, opens_in: int | None = None) -> Control:
    opens_at, closes_at = (None if each is None else NOW + each for each in (opens_in, closes_in))
    return Control(phase=phase, number=7, opens_at=opens_at, closes_at=closes_at)


def after(known: Control, desired: DesiredState, *, now: int = NOW, closing: bool = False) -> Control:
    return apply_commands(known, commands_of(known, desired), now, closing=closing).control


def against(known: Control, desired: DesiredState, *, closing: bool = False) -> list[str]:
    return list(conflicts(known, desired, now_ms=NOW, closing=closing))


def refused(known: Control, desired: DesiredState, *, closing: bool = False) -> str:
    """The one objection; and nothing is done."""
    assert after(known, desired, closing=closing) == known
    (why,) = against(known, desired, closing=closing)
    return why


def test_no_wish_and_nothing_due_changes_nothing() -> None:
    for phase in Phase:
        known = control(phase, closes_in=HOUR, opens_in=HOUR)
        assert after(known, DesiredState()) == known


def test_voting_is_paused_and_goes_on() -> None:
    paused = after(control(), DesiredState(paused=True))
    assert paused.phase is Phase.PAUSED
    assert after(paused, DesiredState(paused=True)) == paused
    assert after(paused, DesiredState()) == paused, "no desire leaves it as it is"
    assert after(paused, DesiredState(paused=False)) == control()


def test_a_session_opens_when_it_is_due_and_paused_if_so_wished() -> None:
    early, due = control(Phase.PENDING, opens_in=1), control(Phase.PENDING, opens_in=0)
    assert after(early, DesiredState(paused=True)) == early
    assert against(early, DesiredState(paused=True)) == []
    assert after(due, DesiredState()).phase is Phase.OPEN
    assert after(due, DesiredState(paused=True)).phase is Phase.PAUSED, "never open for a moment"


@pytest.mark.parametrize("phase", OVER)
@pytest.mark.parametrize("paused", [True, False])
def test_when_voting_is_over_it_is_neither_paused_nor_resumed(phase: Phase, paused: bool) -> None:
    assert refused(control(phase), DesiredState(paused=paused)) == f"the session is {phase}: voting is over"


@pytest.mark.parametrize(("phase", "paused"), [(Phase.OPEN, True), (Phase.PAUSED, False)])
def test_from_the_millisecond_of_the_end_voting_is_over(phase: Phase, paused: bool) -> None:
    known = control(phase, closes_in=0)
    assert refused(known, DesiredState(paused=paused)) == "voting ended at 2027-01-15T08:00:00.000Z"
    assert after(control(phase, closes_in=1), DesiredState(paused=paused)).phase is not phase


def test_a_pause_is_possible_until_an_end_that_is_fixed() -> None:
    assert after(control(closes_in=1), DesiredState(paused=True, close_at=NOW), closing=True).phase is Phase.PAUSED


@pytest.mark.parametrize("phase", sorted(BEFORE_CLOSING))
def test_the_end_is_moved_to_later(phase: Phase) -> None:
    known = control(phase, closes_in=HOUR, opens_in=60_000 if phase is Phase.PENDING else None)
    desired = DesiredState(closes_at=NOW + 2 * HOUR)
    later = after(known, desired)
    assert (later.phase, later.closes_at) == (phase, NOW + 2 * HOUR)
    assert after(later, desired) == later
    assert against(later, desired) == []


def test_a_session_without_an_end_gets_one() -> None:
    assert after(control(), DesiredState(closes_at=NOW + NOTICE_MS)).closes_at == NOW + NOTICE_MS


@pytest.mark.parametrize(
    ("known", "desired_in", "closing", "says"),
    [
        (control(closes_in=HOUR), HOUR - 1, False, "it can only be moved to later"),
        (control(closes_in=NOTICE_MS), HOUR, False, "too near to be moved"),
        (control(closes_in=0), HOUR, False, "closing has begun"),
        (control(), NOTICE_MS - 1, False, "too near: ingest needs 3 s"),
        (control(closes_in=HOUR), 2 * HOUR, True, "closing has begun"),
        *((control(phase, closes_in=HOUR), 2 * HOUR, False, f"fixed: the session is {phase}") for phase in OVER),
    ],
)
def test_an_end_that_may_not_be_moved(known: Control, desired_in: int, closing: bool, says: str) -> None:
    assert says in refused(known, DesiredState(closes_at=NOW + desired_in), closing=closing)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in NO_MORE])
@pytest.mark.parametrize("closing", [True, False])
def test_void_comes_before_every_other_wish_and_is_for_ever(phase: Phase, closing: bool) -> None:
    desired = DesiredState(void="wrong options", paused=True, closes_at=NOW + HOUR, close_at=NOW)
    void = after(control(phase), desired, closing=closing)
    assert void == Control(phase=Phase.VOID, number=7, reason="wrong options")
    for other in (
        desired,
        DesiredState(void="another"),
        DesiredState(paused=False),
        DesiredState(closes_at=NOW + HOUR),
    ):
        assert after(void, other) == void
    assert against(void, DesiredState(void="another")) == []


def test_a_final_result_is_not_void() -> None:
    assert (
        refused(control(Phase.FINAL), DesiredState(void="too late")) == "the session is Final: its result stands"
    )


@pytest.mark.parametrize(
    ("known", "closing", "says"),
    [
        (control(closes_in=HOUR), True, "closing has begun already: voting ends at 2027-01-15T09:00:00.000Z"),
        (control(closes_in=0), False, "voting ended at 2027-01-15T08:00:00.000Z already"),
        (control(closes_in=1), False, "voting ends at 2027-01-15T08:00:00.001Z, before that: extend it first"),
        *((control(phase), False, f"the session is {phase} already") for phase in OVER),
    ],
)
def test_closing_that_can_not_begin(known: Control, closing: bool, says: str) -> None:
    assert refused(known, DesiredState(close_at=NOW + 2), closing=closing) == says


def test_closing_that_can_begin_is_begun_elsewhere() -> None:
    for phase in BEFORE_CLOSING:
        known = control(phase, closes_in=HOUR, opens_in=HOUR)
        assert against(known, DesiredState(close_at=NOW)) == []
        assert after(known, DesiredState(close_at=NOW)) == known


def test_a_new_wish_leaves_the_others_but_for_an_end_that_was_decided() -> None:
    known = DesiredState(paused=True, closes_at=NOW).merge(DesiredState(void="fire"))
    assert known == DesiredState(paused=True, void="fire")
    assert known.merge(DesiredState(paused=False, void="water")) == DesiredState(paused=False, void="fire")
    assert DesiredState(close_at=1).merge(DesiredState(close_at=2, closes_at=3)) == DesiredState(
        close_at=1, closes_at=3
    )


some = st.builds(
    DesiredState,
    paused=st.sampled_from([None, True, False]),
    closes_at=st.one_of(st.none(), st.integers(NOW - HOUR, NOW + 3 * HOUR)),
    void=st.sampled_from(["", "", "fire"]),
)


@given(
    moments=st.lists(st.tuples(st.integers(0, HOUR), some), max_size=20),
    closes_in=st.one_of(st.none(), st.integers(-HOUR, 2 * HOUR)),
)
def test_whatever_is_wished_phases_follow_each_other_and_an_end_once_seen_is_the_end(
    moments: list[tuple[int, DesiredState]], closes_in: int | None
) -> None:
    known, now = control(closes_in=closes_in), NOW
    seen = [known]
    for pause, desired in moments:
        now += pause
        known = after(known, desired, now=now)
        assert after(known, desired, now=now) == known, "a level: doing it twice does nothing"
        before = seen[-1]
        if before.closed_by(now):
            assert known.closes_at == before.closes_at
            assert known.phase in (before.phase, Phase.VOID)
        if before.closes_at is not None:
            assert known.closes_at is not None
            assert known.closes_at >= before.closes_at
        seen.append(known)
    for before, behind in pairwise(seen):
        assert behind.phase is before.phase or behind.phase in FOLLOWING[before.phase]
