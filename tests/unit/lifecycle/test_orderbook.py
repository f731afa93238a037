"""The order book: one conductor, one commander at a time, and whatever dies in between."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.waiting import PATIENCE_S, wait_until

from psephos.control import LifecycleError, OrderBook, Untaken, Wishes, obey
from psephos.control.wishes import orders_of
from psephos.formats.control import Control, Phase
from psephos.platform.clock import now_ms

OPEN = Control(phase=Phase.OPEN, number=1)
Decide = Callable[[Control, Wishes], Control]


def obedient(control: Control, wishes: Wishes) -> Control:
    return obey(control, orders_of(control, wishes), now_ms(), closing=False).control


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "orders"


@contextmanager
def conducted(folder: Path, control: Control = OPEN, decide: Decide = obedient) -> Iterator[list[Control]]:
    """A conductor without a log: it looks, decides and answers. Yields the states that it went through."""
    stop, states = threading.Event(), [control]

    def conduct() -> None:
        book = OrderBook(folder, "lunch")
        with book.held():
            while not stop.is_set():
                ordered = book.ordered()
                known = decide(states[-1], ordered.wishes)
                if known != states[-1]:
                    states.append(known)
                book.answer(ordered.number, known, closing=False)
                while not stop.wait(0.01) and not book.waiting():
                    pass

    with ThreadPoolExecutor(1) as pool:
        conducting = pool.submit(conduct)
        try:
            wait_until(OrderBook(folder, "lunch").running, "the conductor runs")
            yield states
        finally:
            stop.set()
        conducting.result(PATIENCE_S)


def test_an_order_is_carried_out_and_answered(folder: Path) -> None:
    with conducted(folder) as states:
        book = OrderBook(folder, "lunch")
        assert book.give(Wishes(paused=True)).phase is Phase.PAUSED
        assert book.give(Wishes(paused=True)).phase is Phase.PAUSED
        assert book.give(Wishes(paused=False)).phase is Phase.OPEN
    assert [state.phase for state in states] == [Phase.OPEN, Phase.PAUSED, Phase.OPEN]
    assert not book.running()


def test_an_order_that_can_not_be_carried_out_is_not_written(folder: Path) -> None:
    with conducted(folder, Control(phase=Phase.CLOSING, number=3)):
        book = OrderBook(folder, "lunch")
        with pytest.raises(LifecycleError, match=r"^lunch: the session is Closing: voting is over$"):
            book.give(Wishes(paused=True))
        assert book.ordered().number == 0


def test_an_order_that_comes_too_late_is_taken_back(folder: Path) -> None:
    """Between the look at the session and the order voting ended."""

    def ending(control: Control, wishes: Wishes) -> Control:
        return Control(phase=Phase.CLOSING, number=2) if wishes.paused else control

    with conducted(folder, decide=ending):
        book = OrderBook(folder, "lunch")
        with pytest.raises(LifecycleError, match="voting is over"):
            book.give(Wishes(paused=True))
        assert book.ordered().wishes == Wishes()


def test_what_is_sealed_is_not_void_though_its_phase_does_not_say_so_yet(folder: Path) -> None:
    with conducted(folder, Control(phase=Phase.RECOUNTING, number=4), lambda control, _wishes: control):
        book = OrderBook(folder, "lunch")
        with pytest.raises(LifecycleError, match="its result is sealed, and stands"):
            book.give(Wishes(void="too late"))
        assert book.ordered().wishes == Wishes()


def test_what_was_ordered_stands_until_a_conductor_takes_it(folder: Path) -> None:
    with conducted(folder):
        pass
    book = OrderBook(folder, "lunch")
    with pytest.raises(Untaken, match="does not run"):
        book.give(Wishes(paused=True))
    with book.held(), pytest.raises(Untaken, match="is busy; the order stands"):
        OrderBook(folder, "lunch").give(Wishes(paused=True), timeout_s=0.1)
    with conducted(folder) as states:
        wait_until(lambda: states[-1].phase is Phase.PAUSED, "the order is taken at the next start")


def test_a_conductor_that_goes_away_is_told_at_once(folder: Path) -> None:
    with conducted(folder):
        pass
    book, commander = OrderBook(folder, "lunch"), OrderBook(folder, "lunch")
    with ThreadPoolExecutor(1) as pool:
        with book.held():
            giving = pool.submit(commander.give, Wishes(paused=True), PATIENCE_S)
            wait_until(lambda: book.ordered().number == 1, "the order is there")
        with pytest.raises(Untaken, match="was stopped; the order stands"):
            giving.result(PATIENCE_S)


def test_there_is_one_conductor(folder: Path) -> None:
    with (
        conducted(folder),
        pytest.raises(LifecycleError, match="another conductor keeps"),
        OrderBook(folder, "lunch").held(),
    ):
        pass


def test_orders_given_at_once_are_all_carried_out(folder: Path) -> None:
    later = now_ms() + 3_600_000
    orders = [Wishes(paused=True), Wishes(closes_at=later), Wishes(paused=True), Wishes(closes_at=later)]
    with conducted(folder) as states, ThreadPoolExecutor(len(orders)) as pool:
        list(pool.map(lambda order: OrderBook(folder, "lunch").give(order), orders))
    assert (states[-1].phase, states[-1].closes_at) == (Phase.PAUSED, later)


def test_numbers_go_on_when_the_orders_were_deleted(folder: Path) -> None:
    with conducted(folder) as states:
        book = OrderBook(folder, "lunch")
        book.give(Wishes(paused=True))
        (folder / "wishes.json").unlink()
        assert book.give(Wishes(paused=False)).phase is Phase.OPEN
        assert states[-1].phase is Phase.OPEN


def test_orders_that_can_not_be_read_are_no_orders(folder: Path) -> None:
    with conducted(folder) as states:
        (folder / "wishes.json").write_text('{"number": 5, "wishes": {"paused": "perhaps"}}')
        book = OrderBook(folder, "lunch")
        assert not book.waiting()
        assert book.give(Wishes(paused=True)).phase is Phase.PAUSED
        assert len(states) == 2


def test_a_session_that_has_ended_says_so_without_a_conductor(folder: Path) -> None:
    with conducted(folder, Control(phase=Phase.VOID, number=4, reason="fire")):
        wait_until(lambda: OrderBook(folder, "lunch").taken() is not None, "the conductor has answered")
    book = OrderBook(folder, "lunch")
    with pytest.raises(LifecycleError, match="the session is Void: voting is over"):
        book.give(Wishes(paused=True))
    assert book.give(Wishes(void="water")).reason == "fire", "it is void, whoever asks again"
