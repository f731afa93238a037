"""When audits are due."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.reference import make_session

from psephos.control import next_due

NOW = datetime(2026, 11, 23, 19, 7, 30, tzinfo=UTC)  # a Monday


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        ("*/15 * * * *", "2026-11-23T19:15"),
        ("* * * * *", "2026-11-23T19:08"),
        ("7 * * * *", "2026-11-23T20:07"),
        ("0 20 * * *", "2026-11-23T20:00"),
        ("30 6 * * mon-fri", "2026-11-24T06:30"),
        ("0 0 1 jan,JUL *", "2027-01-01T00:00"),
        ("10-20/3 19 * * *", "2026-11-23T19:10"),
        ("0 12 29 2 *", "2028-02-29T12:00"),
        ("0 12 1 * 3", "2026-11-25T12:00"),
    ],
)
def test_the_next_time_of_a_schedule(schedule: str, due: str) -> None:
    assert next_due(schedule, NOW) == datetime.fromisoformat(due).replace(tzinfo=UTC)


def test_a_time_that_has_come_is_over_and_what_was_missed_is_not_made_up() -> None:
    on_time = datetime(2026, 11, 23, 19, 15, tzinfo=UTC)
    assert next_due("*/15 * * * *", on_time) == on_time + timedelta(minutes=15)
    assert next_due("*/15 * * * *", on_time + timedelta(hours=3, seconds=1)) == on_time + timedelta(hours=3.25)


def test_a_schedule_is_meant_in_utc() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5.5)))
    assert next_due("0 20 * * *", elsewhere) == datetime(2026, 11, 23, 20, tzinfo=UTC)


@pytest.mark.parametrize("schedule", ["0 0 31 2 *", "0 0 30 feb *"])
def test_days_that_no_month_has_never_come(schedule: str) -> None:
    assert next_due(schedule, NOW) is None


FIELDS = [(0, 59, ()), (0, 23, ()), (1, 28, ()), (1, 12, ("jan", "dec")), (0, 6, ("sun", "sat"))]


@st.composite
def fields(draw: st.DrawFn, low: int, high: int, names: tuple[str, ...]) -> str:
    first, last = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
    items = ["*", str(first), f"{first}-{last}", f"{first}-{last}/{draw(st.integers(1, 40))}", *names]
    items += [f"*/{draw(st.integers(1, 60))}"]
    return ",".join(draw(st.lists(st.sampled_from(items), min_size=1, max_size=3)))


@given(st.tuples(*(fields(*field) for field in FIELDS)).map(" ".join))
def test_whatever_a_session_may_say_comes_at_some_time(schedule: str) -> None:
    session = make_session(recount={"schedule": schedule})
    due = next_due(session.spec.recount.schedule, NOW)
    assert due is not None
    assert due > NOW
    assert due.second == 0
