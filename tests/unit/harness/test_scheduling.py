"""Who gets which tests of a parallel run."""

from pathlib import Path

import pytest
from tests.scheduling import LONG, OWN_SERVERS, choose, folder

ROOT = Path(__file__).parents[3]
API, FAULTS = OWN_SERVERS
PLAIN = "tests/unit/test_plain.py"


def test_who_has_servers_goes_on_with_their_tests() -> None:
    assert choose([PLAIN, f"{API}test_a.py"], API, set()) == f"{API}test_a.py"
    assert choose([PLAIN, f"{API}test_a.py"], API, {API}) == f"{API}test_a.py"
    assert choose([PLAIN], API, set()) == PLAIN


def test_nobody_else_starts_the_same_servers_while_there_are_other_tests() -> None:
    waiting = [f"{API}test_a.py", f"{API}test_b.py", PLAIN]
    assert choose(waiting, "", {API}) == PLAIN
    assert choose(waiting, "", set()) == f"{API}test_a.py"


def test_at_the_end_whoever_is_free_helps_where_most_is_left() -> None:
    waiting = [f"{FAULTS}test_a.py", f"{API}test_b.py", f"{API}test_c.py"]
    assert choose(waiting, FAULTS, {API}) == f"{FAULTS}test_a.py"
    assert choose(waiting[1:], FAULTS, {API}) == f"{API}test_b.py"


def test_servers_are_not_started_for_one_last_file() -> None:
    assert choose([f"{API}test_a.py", f"{FAULTS}test_a.py"], "", {API, FAULTS}) is None
    assert choose([], "", set()) is None


def test_what_takes_long_comes_before_what_stands_before_it() -> None:
    waiting = [PLAIN, LONG[4], LONG[3]]
    assert choose(waiting, "", set()) == LONG[3]


def test_what_is_said_to_take_long_is_there_and_begins_with_one_file_for_each_servers() -> None:
    assert [path for path in LONG if not (ROOT / path).is_file()] == []
    assert [folder(path) for path in LONG[: len(OWN_SERVERS)]] == list(OWN_SERVERS)


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_each_file_is_handed_out_once_however_many_processes_there_are(processes: int) -> None:
    waiting = [f"{where}test_{number}.py" for where in (*OWN_SERVERS, "tests/unit/") for number in range(7)]
    held = dict.fromkeys(range(processes), "")
    given: list[str] = []
    while held:
        for process in list(held):
            mine = held.pop(process)
            path = choose([path for path in waiting if path not in given], mine, set(held.values()) - {""})
            if path is not None:
                given.append(path)
                held[process] = folder(path)
    assert sorted(given) == sorted(waiting)
