"""The page of the benchmarks: figures go between its marks, and budgets are judged by what was measured."""

from functools import partial
from typing import Any

import pytest
from bench import page
from bench.budgets import BUDGETS, Budget
from bench.openloop import Latencies
from bench.running import FOLDER, in_turn
from bench.sessions import MEMORY_BYTES, fitting

TALLY = {
    "runs": {
        "1000": {
            "Psephos, 1 worker": [{"cpu_us_a_vote": 5.0, "votes_a_second": 300.0}],
            "Psephos, 2 workers": [{"cpu_us_a_vote": 6.0, "votes_a_second": 500.0}],
            "Kafka Streams 4.3.1": [{"cpu_us_a_vote": 30.0, "votes_a_second": 100.0}],
        }
    }
}


def budget(start: str) -> Budget:
    return next(each for each in BUDGETS if each.what.startswith(start))


def test_the_page_holds_what_the_json_files_say() -> None:
    text = (FOLDER / "README.md").read_text()
    assert page.filled(text, page.measured(FOLDER)) == text, "run `python -m bench page`"


def test_without_figures_each_section_says_how_to_measure() -> None:
    text = "".join(f"<!-- figures: {name} -->\nold\n<!-- end -->\nby hand\n" for name in page.SECTIONS)
    made = page.filled(text, {})
    assert "old" not in made
    assert "Not measured yet: `python -m bench tally`." in made
    assert made.count("by hand") == len(page.SECTIONS)


def test_a_page_without_a_section_is_refused() -> None:
    with pytest.raises(ValueError, match="tally"):
        page.filled("<!-- figures: budgets -->\n<!-- end -->", {})


def test_a_budget_is_met_or_missed_by_its_figure() -> None:
    assert budget("tally").judge({"tally": TALLY}) == ("5.0 µs at 1,000 votes", True)
    assert budget("the same").judge({"tally": TALLY}) == ("5.0x (1 worker: 3.0x) at 1,000 votes", True)
    slow = {"batch": {"rounds": {"subject": [{"votesPerCoreSecond": 99_999.0}]}}}
    assert budget("ingest, batches").judge(slow).word == "**missed**"


@pytest.mark.parametrize("figures", [{}, {"tally": {"runs": {"1000": {}}}}, {"tally": {"runs": {}}}])
def test_a_budget_without_its_figure_is_not_measured(figures: dict[str, Any]) -> None:
    assert budget("tally").judge(figures).met is None
    assert budget("the same").judge(figures).met is None


def test_a_probe_that_is_on_no_frame_misses_the_budget() -> None:
    rounds = {"half load": [{"p99Millis": 100.0, "missing": 1, "votesPerSecond": 10}]}
    assert budget("vote to screen").judge({"screen": {"rounds": rounds}}).met is False


def test_rounds_take_turns_and_all_found_so_far_is_told_each_time() -> None:
    order: list[str] = []

    def measure(name: str) -> dict[str, Any]:
        order.append(name)
        return {"n": len(order)}

    names = {name: partial(measure, name) for name in ("a", "b")}
    told = [sum(map(len, found.values())) for found in in_turn(names, 2, rest_s=0)]
    assert order == ["a", "b", "a", "b"]
    assert told == [1, 2, 3, 4]


def test_percentiles_are_those_of_all_latencies() -> None:
    found = Latencies([float(number) for number in range(1, 102)], 0, 0, 1.0, "")
    assert (found.percentile(50), found.percentile(99)) == (51.0, 100.0)


def test_a_refused_vote_is_told_with_its_answer() -> None:
    with pytest.raises(RuntimeError, match=r"1 votes were refused .HTTP/1.1 429"):
        Latencies([1.0], 1, 0, 1.0, "HTTP/1.1 429 Too Many Requests").require_all()


def test_as_many_sessions_run_as_the_memory_holds() -> None:
    quarter = [{"proportionalMiB": MEMORY_BYTES / 2**20 / 4}]
    assert fitting(50, []) == 50
    assert fitting(50, quarter) == 4
    assert fitting(2, quarter) == 2
