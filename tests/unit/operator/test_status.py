"""The status, from what was observed: conditions that keep their time, figures, nothing by option too early."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.unit.control.test_state_machine import GENESIS
from tests.unit.operator.sessions import session

from psephos.control import Closing, ObservedState
from psephos.formats.blocks import NOTHING, RecordClass, State
from psephos.formats.control import Control, Phase
from psephos_operator.reconcile.backends import table_change
from psephos_operator.reconcile.status import Condition, Report, figures, status

NOW = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
MILLION = 1_000_000


def state(pizza: int, soup: int) -> State:
    classes = [0] * len(RecordClass)
    classes[RecordClass.ACCEPTED] = pizza + soup
    return State((pizza * MILLION, soup * MILLION), tuple(classes), pizza + soup, NOTHING)


def observed(phase: Phase, *states: State, **members: Any) -> ObservedState:
    control = Control(phase=phase, number=1, closes_at=1_000)
    return ObservedState(genesis=GENESIS, control=control, states=states, **members)


def test_a_conditions_time_is_when_it_turned() -> None:
    def report(ready: bool | None, reason: str) -> Report:
        return Report(3, Phase.OPEN, {"Ready": Condition(ready, reason, "why")})

    first = status(report(False, "WorkloadsNotAvailable"), {}, NOW)
    later = status(report(False, "PartitionsNotOwned"), first, NOW + timedelta(minutes=1))
    assert later["conditions"][0]["lastTransitionTime"] == "2026-11-23T20:00:00Z"
    assert later["conditions"][0]["reason"] == "PartitionsNotOwned"
    turned = status(report(True, "Serving"), later, NOW + timedelta(minutes=2))
    assert turned["conditions"][0]["lastTransitionTime"] == "2026-11-23T20:02:00Z"
    assert turned["conditions"][0]["observedGeneration"] == 3
    assert status(report(None, "OwnershipUnknown"), turned, NOW)["conditions"][0]["status"] == "Unknown"


def test_the_same_observation_is_the_same_status() -> None:
    report = Report(1, Phase.OPEN, {"Ready": Condition(True, "Serving")}, {"accepted": 3})
    once = status(report, {}, NOW)
    assert status(report, once, NOW + timedelta(days=1)) == once


def test_what_can_not_be_seen_now_stays_as_it_was_seen_last() -> None:
    before = {"accepted": 7, "leader": "pizza", "conditions": []}
    kept = status(Report(2, Phase.OPEN, {}, {}, keep=True), before, NOW)
    assert (kept["accepted"], kept["leader"], kept["observedGeneration"]) == (7, "pizza", 2)
    assert "accepted" not in status(Report(2, Phase.OPEN, {}, {}), before, NOW)


@pytest.mark.parametrize(
    ("states", "leader"),
    [((), ""), ((state(2, 1), state(0, 2)), "soup"), ((state(1, 1),), "tie"), ((state(3, 0),), "pizza")],
)
def test_the_leader_while_results_are_live(states: tuple[State, ...], leader: str) -> None:
    assert figures(session(), observed(Phase.OPEN, *states))["leader"] == leader


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.FINAL])
def test_under_embargo_nobody_leads_before_the_result_is_final(phase: Phase) -> None:
    hidden = session(results={"visibility": "afterClose"})
    found = figures(hidden, observed(phase, state(3, 1)))
    assert found["leader"] == "sealed"
    assert "pizza" not in str(found)
    assert "soup" not in str(found)


def test_the_result_is_told_when_the_session_is_final_and_exactly() -> None:
    document = {
        "outcome": {"winners": ["pizza"]},
        "totals": {"pizza": Decimal("2.5"), "soup": 1},
        "version": 9,
        "sealedAt": "2026-11-23T20:00:00Z",
    }
    early = figures(session(), observed(Phase.RECOUNTING, state(1, 0), final=document))
    assert "outcome" not in early
    found = figures(session(), observed(Phase.FINAL, state(1, 0), final=document))
    assert found["outcome"]["totals"] == {"pizza": "2.5", "soup": 1}
    assert found["leader"] == "pizza"


def test_the_ledgers_end_is_told_once_it_is_fixed() -> None:
    assert figures(session(), observed(Phase.OPEN))["closesAt"] == "1970-01-01T00:00:01.000Z"
    fixed = figures(session(), observed(Phase.OPEN, closing=Closing(2_000, 1)))
    assert fixed["closesAt"] == "1970-01-01T00:00:02.000Z"


@pytest.mark.parametrize(
    ("table", "units", "billing", "change"),
    [
        ({}, 4_000, "on-demand", {}),
        ({}, 8_000, "on-demand", {"WarmThroughput": {"WriteUnitsPerSecond": 8_000}}),
        ({"WarmThroughput": {"WriteUnitsPerSecond": 9_000}}, 8_000, "on-demand", {}),
        (
            {"ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5}},
            400,
            "provisioned",
            {
                "BillingMode": "PROVISIONED",
                "ProvisionedThroughput": {"ReadCapacityUnits": 100, "WriteCapacityUnits": 400},
            },
        ),
        ({"ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 500}}, 400, "provisioned", {}),
    ],
)
def test_the_table_grows_to_what_capacity_asks_for_and_never_shrinks(
    table: dict[str, Any], units: int, billing: str, change: dict[str, Any]
) -> None:
    assert table_change(table, units, billing) == change
