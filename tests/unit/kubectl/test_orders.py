"""Commands as changes of the object: which are possible when, and what they are in the operator's words."""

from collections.abc import Callable
from typing import Any

import pytest

from psephos.control.commands import Voting
from psephos.kubectl import orders
from psephos.kubectl.access import reason
from psephos.kubectl.frames import frames_of, proxied
from psephos.kubectl.orders import Refused
from psephos_operator.reconcile import annotations


def session(
    phase: str = "Open", closes_at: str | None = "2027-05-22T20:00:00Z", **annotations: str
) -> dict[str, Any]:
    named = {f"psephos.dev/{name}": value for name, value in annotations.items()}
    return {
        "metadata": {"name": "lunch", "resourceVersion": "7", "annotations": named},
        "spec": {} if closes_at is None else {"closesAt": closes_at},
        "status": {"phase": phase},
    }  # fmt: skip


def test_plugin_and_operator_mean_the_same_by_the_same_words() -> None:
    assert (orders.VOTING, orders.REASON, orders.RECOUNT) == (
        annotations.VOTING,
        annotations.REASON,
        annotations.RECOUNT,
    )
    assert {orders.PAUSED, orders.CLOSED, orders.VOID} == {each.value for each in Voting if each.value}
    change, run = orders.recount_again(session("Disputed"))
    assert annotations.run_of(change["metadata"]["annotations"]) == run == "final-2"
    assert orders.recount_again(session("Disputed", recount="final-9"))[1] == "final-10"


@pytest.mark.parametrize("phase", ["Closing", "Recounting", "Final", "Disputed", "Void"])
def test_from_closing_on_there_is_no_pause_no_close_and_no_later_end(phase: str) -> None:
    refused: tuple[Callable[[dict[str, Any]], object], ...] = (
        lambda found: orders.pause(found, ""),
        lambda found: orders.close(found, ""),
        lambda found: orders.extend(found, orders.later(found, "1h")),
    )
    for order in refused:
        with pytest.raises(Refused, match=f"lunch is {phase}"):
            order(session(phase))


@pytest.mark.parametrize("phase", ["", "Pending", "Open", "Paused"])
def test_before_closing_all_of_them_are_possible(phase: str) -> None:
    found = session(phase)
    assert orders.pause(found, "why")["metadata"]["annotations"][orders.REASON] == "why"
    assert orders.close(found, "")["metadata"]["annotations"] == {orders.VOTING: "closed", orders.REASON: None}
    assert orders.extend(found, orders.later(found, "10m"))["spec"] == {"closesAt": "2027-05-22T20:10:00Z"}


def test_a_session_can_be_declared_void_until_it_is_final() -> None:
    for phase in ("Open", "Closing", "Recounting", "Disputed"):
        assert orders.void(session(phase), "why")["metadata"]["annotations"][orders.VOTING] == "void"
    for phase in ("Final", "Void"):
        with pytest.raises(Refused, match=phase):
            orders.void(session(phase), "why")


def test_a_later_end_names_the_version_that_it_was_read_from() -> None:
    found = session()
    assert orders.extend(found, orders.later(found, "1d"))["metadata"] == {"resourceVersion": "7"}


@pytest.mark.parametrize("by", ["soon", "10", "-1m", "0m", "1w", "10 m"])
def test_a_duration_that_is_none_is_refused(by: str) -> None:
    with pytest.raises(Refused, match="allowed: a duration such as"):
        orders.later(session(), by)


@pytest.mark.parametrize("to", ["soon", "2027-05-22T20:30:00", "20:30"])
def test_a_time_without_its_zone_is_refused(to: str) -> None:
    with pytest.raises(Refused, match="allowed: a time with its zone"):
        orders.moment(to)


def test_an_end_that_is_not_later_is_refused() -> None:
    with pytest.raises(Refused, match="2027-05-22T19:00:00Z is not later"):
        orders.extend(session(), orders.moment("2027-05-22T21:00:00+02:00"))


def test_a_session_without_an_end_is_given_one_by_to_and_not_by_by() -> None:
    with pytest.raises(Refused, match="give one with --to"):
        orders.later(session(closes_at=None), "10m")
    found = orders.extend(session(closes_at=None), orders.moment("2027-05-22T21:00:00+02:00"))
    assert found["spec"] == {"closesAt": "2027-05-22T19:00:00Z"}


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("http://a-results.team.svc/v1", "/api/v1/namespaces/team/services/http:a-results:80/proxy/v1"),
        ("http://a-results.team.svc:8081/v1", "/api/v1/namespaces/team/services/http:a-results:8081/proxy/v1"),
        ("https://a.vote.example/v1/sessions/a", None),
    ],
)  # fmt: skip
def test_an_address_that_only_pods_reach_is_asked_through_the_api_server(address: str, path: str | None) -> None:
    assert proxied(address) == path


def test_frames_are_the_data_lines_of_a_stream() -> None:
    lines = ["retry: 2000\n", "\n", "id: e:1\n", 'data: {"turnout": {}, "version": 1}\n', "\n", ": still here\n"]
    assert [frame["version"] for frame in frames_of(lines)] == [1]
    with pytest.raises(Refused, match="no gateway"):
        list(frames_of(["data: <html>\n"]))


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ('Error from server (NotFound): votingsessions "x" not found\n', 'votingsessions "x" not found'),
        ("Warning: old\nError from server (Forbidden): may not\n", "may not"),
        ("error: no configuration has been provided\n", "no configuration has been provided"),
        ("E1 memcache.go: one\nUnable to connect to the server: dial\n", "Unable to connect to the server: dial"),
        ("", "kubectl failed and did not say why"),
    ],
)
def test_what_kubectl_says_becomes_one_line(said: str, line: str) -> None:
    assert reason(said) == line
