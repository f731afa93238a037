"""When votes come in, and when an acknowledgement makes a 202. Time is an argument: nothing waits here."""

import pytest

from psephos.formats.control import Control, Phase
from psephos.roles.ingest.gate import HEARD_SHARE, Gate
from psephos.roles.ingest.problems import Problem

WALL = 1_800_000_000_000
MONO = 500.0
GRACE_MS = 10_000


def gate(phase: Phase = Phase.OPEN, closes_in_ms: int | None = None, opens_at: int | None = None) -> Gate:
    """A gate that learnt its state at WALL and MONO, and heard that it is current."""
    one = Gate()
    closes_at = None if closes_in_ms is None else WALL + closes_in_ms
    control = Control(phase=phase, number=1, opens_at=opens_at, closes_at=closes_at, grace_ms=GRACE_MS)
    one.learn(control, wall_ms=WALL, mono=MONO)
    one.heard(MONO)
    return one


def confirms(one: Gate, wall_ms: int, mono: float, appended_ms: int | None = None) -> bool:
    return one.confirms(wall_ms=wall_ms, mono=mono, appended_ms=appended_ms)


def refusal(one: Gate, wall_ms: int = WALL, mono: float = MONO) -> Problem:
    with pytest.raises(Problem) as caught:
        one.admit(wall_ms=wall_ms, mono=mono)
    return caught.value


def test_nothing_comes_in_before_anything_is_known() -> None:
    assert refusal(Gate()).slug == "session-not-open"
    assert not confirms(Gate(), WALL, MONO)
    assert not Gate().is_current(MONO)


def test_before_opening_the_answer_says_when() -> None:
    problem = refusal(gate(Phase.PENDING, opens_at=WALL))
    assert (problem.slug, problem.status) == ("session-not-open", 409)
    assert problem.members == {"opensAt": "2027-01-15T08:00:00.000Z"}


def test_votes_come_in_until_the_millisecond_of_the_end() -> None:
    one = gate(closes_in_ms=5)
    one.admit(wall_ms=WALL + 4, mono=MONO + 0.004)
    assert refusal(one, WALL + 5, MONO + 0.005).slug == "session-closed"


@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.RECOUNTING, Phase.FINAL, Phase.DISPUTED, Phase.VOID])
def test_after_the_end_nothing_comes_in(phase: Phase) -> None:
    assert refusal(gate(phase, closes_in_ms=1000)).slug == "session-closed"


def test_a_pause_says_when_to_come_back_unless_the_end_has_come_meanwhile() -> None:
    problem = refusal(gate(Phase.PAUSED, closes_in_ms=1000))
    assert (problem.slug, problem.headers) == ("session-paused", {"Retry-After": "5"})
    assert refusal(gate(Phase.PAUSED, closes_in_ms=1000), WALL + 1000).slug == "session-closed"


def test_an_acknowledgement_counts_for_half_the_grace() -> None:
    one = gate(closes_in_ms=1_000)
    assert confirms(one, WALL + 6_000, MONO + 6)
    assert not confirms(one, WALL + 6_001, MONO + 6.001)


def test_a_record_that_its_broker_appended_too_late_makes_no_202_whatever_the_clocks_here_say() -> None:
    """They may be an hour behind from the beginning: then nothing here would ever notice."""
    one = gate(closes_in_ms=1_000)
    assert confirms(one, WALL, MONO, WALL + 6_000)
    assert not confirms(one, WALL, MONO, WALL + 6_001)
    assert confirms(gate(), WALL, MONO, WALL + 3_600_000), "a session without an end has no marker"


def test_a_wall_clock_that_stands_still_or_goes_back_gains_no_time() -> None:
    one = gate(closes_in_ms=1_000)
    one.heard(MONO + 7)
    assert not confirms(one, WALL - 3_600_000, MONO + 6.5)
    one.tighten(wall_ms=WALL - 3_600_000, mono=MONO + 6.5)
    assert not confirms(one, WALL - 3_600_000, MONO + 6.5)


def test_a_wall_clock_that_is_set_forward_moves_the_deadline_for_good() -> None:
    one = gate(closes_in_ms=60_000)
    one.tighten(wall_ms=WALL + 60_000, mono=MONO + 1)
    one.heard(MONO + 7)
    assert not confirms(one, WALL, MONO + 6.5)


def test_an_end_that_moves_moves_the_deadline_with_it() -> None:
    one = gate(closes_in_ms=1_000)
    later = Control(phase=Phase.OPEN, number=2, closes_at=WALL + 60_000, grace_ms=GRACE_MS)
    one.learn(later, wall_ms=WALL + 500, mono=MONO + 0.5)
    one.heard(MONO + 60)
    assert confirms(one, WALL + 64_000, MONO + 64)
    earlier = Control(phase=Phase.CLOSING, number=3, closes_at=WALL + 61_000, grace_ms=GRACE_MS)
    one.learn(earlier, wall_ms=WALL + 62_000, mono=MONO + 62)
    one.heard(MONO + 62)
    assert confirms(one, WALL + 66_000, MONO + 66)
    assert not confirms(one, WALL + 66_001, MONO + 66.001)


def test_a_process_that_has_not_heard_for_long_promises_nothing() -> None:
    """An earlier end may have been fixed meanwhile, and its marker written one grace time after it."""
    one, silence = gate(), HEARD_SHARE * GRACE_MS / 1000
    assert confirms(one, WALL, MONO + silence)
    assert not confirms(one, WALL, MONO + silence + 0.001)
    problem = refusal(one, WALL, MONO + silence + 0.001)
    assert (problem.slug, problem.headers) == ("overloaded", {"Retry-After": "1"})
    one.heard(MONO + silence + 1)
    one.admit(wall_ms=WALL, mono=MONO + silence + 1)
