"""A client call that does not come back is left behind; its answer is heard where there is one."""

import threading

import pytest

from psephos.roles.tally import publisher


def test_a_call_that_does_not_come_back_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "_STUCK_S", 0.05)
    never = threading.Event()
    with pytest.raises(TimeoutError, match="did not come back"):
        publisher.in_time(never.wait)  # type: ignore[arg-type]
    never.set()


def test_what_a_call_raises_is_raised() -> None:
    def refused() -> None:
        raise BufferError("the queue is full")

    with pytest.raises(BufferError, match="the queue is full"):
        publisher.in_time(refused)


def test_a_call_that_comes_back_is_waited_for() -> None:
    made: list[str] = []
    publisher.in_time(lambda: made.append("done"))
    assert made == ["done"]
