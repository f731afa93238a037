"""What people command, as the next control record: what is obeyed in which phase, and what is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.control.commands import NOTICE_MS, Commands, Voting, apply_commands
from psephos.formats.control import Control, Phase

NOW = 1_000_000
LATER, LATEST = NOW + 60_000, NOW + 120_000


def control(phase: Phase, **members: object) -> Control:
    return Control(phase=phase, number=7, **members)  # type: ignore[arg-type]


def test_pause_and_resume_tell_their_reason() -> None:
    paused = apply_commands(control(Phase.OPEN), Commands(Voting.PAUSED, "power cut"), NOW, closing=False).control
    assert (paused.phase, paused.reason) == (Phase.PAUSED, "power cut")
    again = apply_commands(paused, Commands(), NOW, closing=False).control
    assert (again.phase, again.reason) == (Phase.OPEN, "")


def test_a_session_opens_at_its_time_and_not_before() -> None:
    pending = control(Phase.PENDING, opens_at=LATER)
    assert apply_commands(pending, Commands(opens_at=LATER), NOW, closing=False).control.phase is Phase.PENDING
    assert apply_commands(pending, Commands(opens_at=LATER), LATER, closing=False).control.phase is Phase.OPEN
    moved = apply_commands(pending, Commands(opens_at=LATEST), LATER, closing=False).control
    assert (moved.phase, moved.opens_at) == (Phase.PENDING, LATEST)


@pytest.mark.parametrize(
    ("known", "wanted", "closing", "becomes", "refused"),
    [
        (LATER, LATEST, False, LATEST, ""),
        (None, LATER, False, LATER, ""),
        (LATER, None, False, None, ""),
        (LATEST, LATER, False, LATEST, "only be moved to later"),
        (LATER, NOW + NOTICE_MS - 1, False, LATER, "too near"),
        (None, NOW - 1, False, None, "too near"),
        (LATER, LATEST, True, LATER, "closing has begun"),
        (NOW, LATEST, False, NOW, "closing has begun"),
    ],
)
def test_the_end_moves_to_later_only_until_closing_begins(
    known: int | None, wanted: int | None, closing: bool, becomes: int | None, refused: str
) -> None:
    found = apply_commands(control(Phase.OPEN, closes_at=known), Commands(closes_at=wanted), NOW, closing=closing)
    assert found.control.closes_at == becomes
    assert refused in found.refused
    assert bool(found.refused) is bool(refused)


def test_an_end_that_is_near_is_not_moved_any_more() -> None:
    """Some would be told that voting is over, and others could go on."""
    near = control(Phase.OPEN, closes_at=NOW + NOTICE_MS)
    for wanted in (LATEST, None):
        found = apply_commands(near, Commands(closes_at=wanted), NOW, closing=False)
        assert found.control == near
        assert "too near to be moved" in found.refused


def test_closing_leaves_a_paused_session_paused() -> None:
    paused = control(Phase.PAUSED, reason="power cut")
    assert apply_commands(paused, Commands(Voting.CLOSED), NOW, closing=True).control == paused


@pytest.mark.parametrize(("phase", "voting"), [(Phase.OPEN, Voting.PAUSED), (Phase.PAUSED, Voting.GOES_ON)])
def test_when_the_end_has_come_there_is_nothing_to_pause_or_to_resume(phase: Phase, voting: Voting) -> None:
    over = control(phase, closes_at=NOW)
    assert apply_commands(over, Commands(voting, "", None, NOW), NOW, closing=False).control == over


def test_a_refused_end_does_not_stand_in_the_way_of_a_pause() -> None:
    found = apply_commands(
        control(Phase.OPEN, closes_at=LATEST), Commands(Voting.PAUSED, closes_at=LATER), NOW, closing=False
    )
    assert found.control.phase is Phase.PAUSED
    assert found.refused


@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.RECOUNTING, Phase.DISPUTED])
def test_a_session_that_is_closing_can_only_be_made_void(phase: Phase) -> None:
    known = control(phase, closes_at=LATER)
    assert apply_commands(known, Commands(Voting.PAUSED, "", NOW, LATEST), NOW, closing=True).control == known
    assert apply_commands(known, Commands(Voting.VOID, "fraud"), NOW, closing=True).control.phase is Phase.VOID


@given(
    phase=st.sampled_from(list(Phase)),
    voting=st.sampled_from(list(Voting)),
    known=st.none() | st.integers(NOW - 9_999, NOW + 9_999),
    times=st.tuples(*[st.none() | st.integers(NOW - 9_999, NOW + 9_999)] * 2),
    closing=st.booleans(),
)
def test_obeying_twice_changes_nothing_more(
    phase: Phase,
    voting: Voting,
    known: int | None,
    times: tuple[int | None, int | None],
    closing: bool,
) -> None:
    commands = Commands(voting, "why", *times)
    once = apply_commands(control(phase, closes_at=known), commands, NOW, closing=closing).control
    assert once.number == 7
    if phase in (Phase.FINAL, Phase.VOID):
        assert once == control(phase, closes_at=known)
    first = once
    for _ in range(2):  # a session that opens late is paused in a second step
        once, last = apply_commands(once, commands, NOW, closing=closing).control, once
    assert once == last
    assert msgspec.structs.replace(once, phase=first.phase, reason=first.reason) == first
