"""What people wish of a session on this machine, and what its control record becomes by it. Nothing waits here."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.control.orders import BEFORE_CLOSING, NO_MORE, NOTICE_MS, obey
from psephos.control.phases import FOLLOWING
from psephos.control.wishes import Wishes, objections, orders_of
from psephos.formats.control import Control, Phase

NOW = 1_800_000_000_000
HOUR = 3_600_000
OVER = [phase for phase in Phase if phase not in BEFORE_CLOSING]


def control(phase: Phase = Phase.OPEN, closes_in: int | None = None, opens_in: int | None = None) -> Control:
    opens_at, closes_at = (None if each is None else NOW + each for each in (opens_in, closes_in))
    return Control(phase=phase, number=7, opens_at=opens_at, closes_at=closes_at)


def after(known: Control, wishes: Wishes, *, now: int = NOW, closing: bool = False) -> Control:
    return obey(known, orders_of(known, wishes), now, closing=closing).control


def against(known: Control, wishes: Wishes, *, closing: bool = False) -> list[str]:
    return list(objections(known, wishes, now_ms=NOW, closing=closing))


def refused(known: Control, wishes: Wishes, *, closing: bool = False) -> str:
    """The one objection; and nothing is done."""
    assert after(known, wishes, closing=closing) == known
    (why,) = against(known, wishes, closing=closing)
    return why


def test_no_wish_and_nothing_due_changes_nothing() -> None:
    for phase in Phase:
        known = control(phase, closes_in=HOUR, opens_in=HOUR)
        assert after(known, Wishes()) == known


def test_voting_is_paused_and_goes_on() -> None:
    paused = after(control(), Wishes(paused=True))
    assert paused.phase is Phase.PAUSED
    assert after(paused, Wishes(paused=True)) == paused
    assert after(paused, Wishes()) == paused, "no wish leaves it as it is"
    assert after(paused, Wishes(paused=False)) == control()


def test_a_session_opens_when_it_is_due_and_paused_if_so_wished() -> None:
    early, due = control(Phase.PENDING, opens_in=1), control(Phase.PENDING, opens_in=0)
    assert after(early, Wishes(paused=True)) == early
    assert against(early, Wishes(paused=True)) == []
    assert after(due, Wishes()).phase is Phase.OPEN
    assert after(due, Wishes(paused=True)).phase is Phase.PAUSED, "never open for a moment"


@pytest.mark.parametrize("phase", OVER)
@pytest.mark.parametrize("paused", [True, False])
def test_when_voting_is_over_it_is_neither_paused_nor_resumed(phase: Phase, paused: bool) -> None:
    assert refused(control(phase), Wishes(paused=paused)) == f"the session is {phase}: voting is over"


@pytest.mark.parametrize(("phase", "paused"), [(Phase.OPEN, True), (Phase.PAUSED, False)])
def test_from_the_millisecond_of_the_end_voting_is_over(phase: Phase, paused: bool) -> None:
    known = control(phase, closes_in=0)
    assert refused(known, Wishes(paused=paused)) == "voting ended at 2027-01-15T08:00:00.000Z"
    assert after(control(phase, closes_in=1), Wishes(paused=paused)).phase is not phase


def test_a_pause_is_possible_until_an_end_that_is_fixed() -> None:
    assert after(control(closes_in=1), Wishes(paused=True, close_at=NOW), closing=True).phase is Phase.PAUSED


@pytest.mark.parametrize("phase", sorted(BEFORE_CLOSING))
def test_the_end_is_moved_to_later(phase: Phase) -> None:
    known = control(phase, closes_in=HOUR, opens_in=60_000 if phase is Phase.PENDING else None)
    wishes = Wishes(closes_at=NOW + 2 * HOUR)
    later = after(known, wishes)
    assert (later.phase, later.closes_at) == (phase, NOW + 2 * HOUR)
    assert after(later, wishes) == later
    assert against(later, wishes) == []


def test_a_session_without_an_end_gets_one() -> None:
    assert after(control(), Wishes(closes_at=NOW + NOTICE_MS)).closes_at == NOW + NOTICE_MS


@pytest.mark.parametrize(
    ("known", "wished_in", "closing", "says"),
    [
        (control(closes_in=HOUR), HOUR - 1, False, "it can only be moved to later"),
        (control(closes_in=NOTICE_MS), HOUR, False, "too near to be moved"),
        (control(closes_in=0), HOUR, False, "closing has begun"),
        (control(), NOTICE_MS - 1, False, "too near: ingest needs 3 s"),
        (control(closes_in=HOUR), 2 * HOUR, True, "closing has begun"),
        *((control(phase, closes_in=HOUR), 2 * HOUR, False, f"fixed: the session is {phase}") for phase in OVER),
    ],
)
def test_an_end_that_may_not_be_moved(known: Control, wished_in: int, closing: bool, says: str) -> None:
    assert says in refused(known, Wishes(closes_at=NOW + wished_in), closing=closing)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in NO_MORE])
@pytest.mark.parametrize("closing", [True, False])
def test_void_comes_before_every_other_wish_and_is_for_ever(phase: Phase, closing: bool) -> None:
    wishes = Wishes(void="wrong options", paused=True, closes_at=NOW + HOUR, close_at=NOW)
    void = after(control(phase), wishes, closing=closing)
    assert void == Control(phase=Phase.VOID, number=7, reason="wrong options")
    for other in (wishes, Wishes(void="another"), Wishes(paused=False), Wishes(closes_at=NOW + HOUR)):
        assert after(void, other) == void
    assert against(void, Wishes(void="another")) == []


def test_a_final_result_is_not_void() -> None:
    assert refused(control(Phase.FINAL), Wishes(void="too late")) == "the session is Final: its result stands"


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
    assert refused(known, Wishes(close_at=NOW + 2), closing=closing) == says


def test_closing_that_can_begin_is_begun_elsewhere() -> None:
    for phase in BEFORE_CLOSING:
        known = control(phase, closes_in=HOUR, opens_in=HOUR)
        assert against(known, Wishes(close_at=NOW)) == []
        assert after(known, Wishes(close_at=NOW)) == known


def test_a_new_wish_leaves_the_others_but_for_an_end_that_was_decided() -> None:
    known = Wishes(paused=True, closes_at=NOW).and_now(Wishes(void="fire"))
    assert known == Wishes(paused=True, void="fire")
    assert known.and_now(Wishes(paused=False, void="water")) == Wishes(paused=False, void="fire")
    assert Wishes(close_at=1).and_now(Wishes(close_at=2, closes_at=3)) == Wishes(close_at=1, closes_at=3)


some = st.builds(
    Wishes,
    paused=st.sampled_from([None, True, False]),
    closes_at=st.one_of(st.none(), st.integers(NOW - HOUR, NOW + 3 * HOUR)),
    void=st.sampled_from(["", "", "fire"]),
)


@given(
    moments=st.lists(st.tuples(st.integers(0, HOUR), some), max_size=20),
    closes_in=st.one_of(st.none(), st.integers(-HOUR, 2 * HOUR)),
)
def test_whatever_is_wished_phases_follow_each_other_and_an_end_once_seen_is_the_end(
    moments: list[tuple[int, Wishes]], closes_in: int | None
) -> None:
    known, now = control(closes_in=closes_in), NOW
    seen = [known]
    for pause, wishes in moments:
        now += pause
        known = after(known, wishes, now=now)
        assert after(known, wishes, now=now) == known, "a level: doing it twice does nothing"
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
