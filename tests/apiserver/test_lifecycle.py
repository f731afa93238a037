"""A session from `kubectl apply` to the signed result: the operator as a process, pods as processes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.apiserver.api import Manifest
from tests.apiserver.cluster import Cluster
from tests.apiserver.kubelet import all_available
from tests.apiserver.operators import Operator, Vote, add_token_key, cast, jobs_run, tally
from tests.faults.dynamodb_proxy import DynamoProxy, Fault, Kind
from tests.waiting import wait_until

from psephos.adapters.kafka import read_control
from psephos.control import Closing, closing_of
from psephos.control.state_machine import Action
from psephos.domain.results import decode_document, verify_result
from psephos.formats.control import Phase
from psephos_lab.servers import Backends

TURNS = ("Open", "Closing", "Recounting", "Final")

pytestmark = pytest.mark.timeout(600)  # whole sessions, each step of which starts processes


@pytest.fixture
def keyed(cluster: Cluster, namespace: str) -> str:
    """A namespace with the key of voter tokens."""
    add_token_key(cluster, namespace)
    return namespace


@pytest.fixture
def operator(cluster: Cluster, backends: Backends, keyed: str, tmp_path: Path) -> Iterator[Operator]:
    with Operator(cluster, backends, keyed, tmp_path) as running:
        yield running


def moment(in_s: float) -> tuple[str, int]:
    """A time from now, as text and in ms since 1970."""
    at = (datetime.now(UTC) + timedelta(seconds=in_s)).replace(microsecond=0)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ"), round(at.timestamp() * 1000)


def check_final(operator: Operator, vote: Vote, voters: int) -> None:
    """The result counts everybody, once, and its signature is the genesis'."""
    fourth = -(-voters // 4)
    assert vote.status["outcome"]["winners"] == ["pizza"]
    assert vote.status["outcome"]["totals"] == {"pizza": voters - fourth, "soup": fourth}
    assert vote.status["leader"] == "pizza"
    payload = vote.ledger(operator).get("final")
    assert payload is not None
    assert verify_result(decode_document(payload), vote.status["publicKey"])


def test_a_session_from_apply_to_the_signed_result(
    cluster: Cluster, operator: Operator, keyed: str, tmp_path: Path
) -> None:
    vote = Vote(cluster, keyed).create()

    def until_final(job: Manifest) -> None:
        """A result is sealed before its Job has ended; the Job has to stay, it has still to publish."""
        if "-seal-" in job["metadata"]["name"]:
            wait_until(lambda: vote.phase == "Final", "it is final")

    vote.wait_phase("Open")
    vote.wait_("Ready", "False", "WorkloadsNotAvailable")
    with all_available(cluster.admin, keyed):
        vote.wait_("Ready", "False", "PartitionsNotOwned")
        with tally(cluster.admin, vote, tmp_path), jobs_run(cluster.admin, keyed, tmp_path, until_final):
            vote.wait_("Ready")
            cast(operator, vote, 40)
            wait_until(lambda: vote.status.get("accepted") == 40, "all votes are counted")
            assert vote.status["leader"] == "pizza"
            assert "outcome" not in vote.status
            vote.annotate(voting="closed", reason="all have voted")
            vote.wait_phase("Final")
    check_final(operator, vote, 40)
    assert vote.is_("Final")
    assert tuple(reason for reason in vote.events() if reason in TURNS) == TURNS
    assert {key for key in vote.children() if key.startswith(("Job/", "CronJob/"))} == {
        "Job/lunch-recount-final",
        "Job/lunch-seal-final",
    }


@pytest.mark.long
def test_under_embargo_the_status_names_no_option_until_the_result_is_final(
    cluster: Cluster, operator: Operator, keyed: str, tmp_path: Path
) -> None:
    vote = Vote(cluster, keyed, results={"visibility": "afterClose"}).create()
    vote.wait_phase("Open")
    with tally(cluster.admin, vote, tmp_path), jobs_run(cluster.admin, keyed, tmp_path):
        cast(operator, vote, 8)
        wait_until(lambda: vote.status.get("accepted") == 8, "all votes are counted")
        vote.annotate(voting="closed")
        seen: list[dict[str, Any]] = []

        def final() -> bool:
            seen.append(vote.status)
            return vote.phase == "Final"

        wait_until(final, "it is final")
    for status in seen[:-1]:
        if status["phase"] != "Final":
            assert status["leader"] == "sealed"
            assert "pizza" not in str(status)
    check_final(operator, vote, 8)


def test_a_session_is_prepared_before_it_opens_and_opens_in_its_second(
    cluster: Cluster, operator: Operator, keyed: str
) -> None:
    later, _ = moment(3 * 3600)
    vote = Vote(cluster, keyed, opensAt=later).create()
    vote.wait_("Progressing", "False", "Scheduled")
    assert vote.children() == {}, "nothing runs hours ahead"
    vote.change(ballot={"options": [{"id": "bread"}, {"id": "soup"}]})
    vote.wait_("Progressing", "False", "Scheduled")
    vote.change(opensAt=moment(300)[0])
    wait_until(lambda: "epoch" in vote.status, "it is prepared")
    assert vote.phase == "Pending"
    assert "Deployment/lunch-serve" in vote.children()

    def is_open() -> bool:
        control = read_control(vote.settings(operator))
        return control is not None and control.phase == "Open"

    assert not is_open()
    soon, soon_ms = moment(10)
    vote.change(opensAt=soon)
    wait_until(is_open, "it opens")
    late_ms = time.time() * 1000 - soon_ms
    print(f"seen open {late_ms:.0f} ms after opensAt")
    assert late_ms >= 0


def test_an_operator_that_was_away_at_the_end_goes_on_where_the_protocol_stands(
    cluster: Cluster, backends: Backends, keyed: str, tmp_path: Path
) -> None:
    with Operator(cluster, backends, keyed, tmp_path) as operator:
        vote = Vote(cluster, keyed).create()
        vote.wait_phase("Open")
        with ExitStack() as pods:
            pods.enter_context(tally(cluster.admin, vote, tmp_path))
            pods.enter_context(jobs_run(cluster.admin, keyed, tmp_path))
            cast(operator, vote, 12)
            closes, closes_ms = moment(20)
            vote.change(closesAt=closes)
            wait_until(lambda: _closes_at(vote, operator) == closes_ms, "the end is announced")
            operator.kill()
            assert time.time() * 1000 < closes_ms, "it died before the end"
            wait_until(lambda: time.time() * 1000 > closes_ms + 3_000, "the end has come, and nobody closed")
            assert closing_of(vote.ledger(operator)) is None
            operator.process.start()
            vote.wait_phase("Final")
        closing = closing_of(vote.ledger(operator))
        assert closing == Closing(closes_ms, 1_000), "the end is when it was, not when the operator came back"
        check_final(operator, vote, 12)


def _closes_at(vote: Vote, operator: Operator) -> int | None:
    control = read_control(vote.settings(operator))
    return control.closes_at if control else None


def test_the_ledgers_end_counts_and_not_the_specs(cluster: Cluster, operator: Operator, keyed: str) -> None:
    vote = Vote(cluster, keyed, closesAt=moment(3600)[0]).create()
    vote.wait_phase("Open")
    fixed = Closing(moment(6)[1], 1_000)
    vote.ledger(operator).put_once("closing", msgspec.json.encode(fixed))  # as another closer, since dead
    vote.wait_phase("Closing")
    wait_until(lambda: vote.status["closesAt"] == datetime.fromtimestamp(fixed.closes_at / 1000, UTC).isoformat(
        timespec="milliseconds").replace("+00:00", "Z"), "the status tells the ledger's time")  # fmt: skip
    control = read_control(vote.settings(operator))
    assert control is not None
    assert control.closes_at == fixed.closes_at


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_operator_that_is_killed_in_every_step_loses_nothing(
    cluster: Cluster, backends: Backends, keyed: str, tmp_path: Path
) -> None:
    steps = [step for step in Action if step is not Action.WAIT]
    killed: list[str] = []
    with ExitStack() as running:
        operator = running.enter_context(Operator(cluster, backends, keyed, tmp_path))
        running.enter_context(all_available(cluster.admin, keyed))
        vote = Vote(cluster, keyed, opensAt=moment(300)[0]).create()

        def kill_in(step: Action) -> None:
            """NB: the line stands in the log before the step is taken."""
            wait_until(lambda: step.value in operator.steps(), f"the step: {step.value}")
            operator.kill()
            killed.append(step.value)
            operator.process.start()

        kill_in(Action.PREPARE)
        wait_until(lambda: "epoch" in vote.status, "it is prepared")
        vote.change(opensAt=None)
        kill_in(Action.APPLY_COMMANDS)
        vote.wait_phase("Open")
        running.enter_context(tally(cluster.admin, vote, tmp_path))
        running.enter_context(jobs_run(cluster.admin, keyed, tmp_path))
        cast(operator, vote, 20)
        vote.annotate(voting="closed")
        for step in steps[steps.index(Action.APPLY_COMMANDS) + 1 :]:
            kill_in(step)
        vote.wait_phase("Final")
        check_final(operator, vote, 20)
        assert len([key for key in vote.children() if "session-key" in key]) == 1
    assert killed == [step.value for step in steps]


def test_of_two_operators_one_acts_and_the_other_takes_over(
    cluster: Cluster, backends: Backends, keyed: str, tmp_path: Path
) -> None:
    with (
        Operator(cluster, backends, keyed, tmp_path, "one") as one,
        Operator(cluster, backends, keyed, tmp_path, "two") as two,
    ):
        wait_until(lambda: one.leads != two.leads, "one of them leads")
        leader, standby = (one, two) if one.leads else (two, one)
        vote = Vote(cluster, keyed).create()
        vote.wait_phase("Open")
        leader.process.pause()
        wait_until(lambda: standby.leads, "the other takes over")
        vote.annotate(voting="paused")
        vote.wait_phase("Paused")
        leader.process.resume()
        wait_until(lambda: '"no longer leading"' in leader.log.read_text(), "the first one notices")
        assert not leader.leads
        standby.kill()
        wait_until(lambda: leader.leads, "the first one leads again")
        vote.annotate(voting=None)
        vote.wait_phase("Open")
        numbers = read_control(vote.settings(leader))
        assert numbers is not None
        assert numbers.number == 3, "each change was written once"


def test_an_operator_that_stood_still_amid_a_reconcile_does_not_obey_its_old_orders(
    cluster: Cluster, backends: Backends, keyed: str, tmp_path: Path
) -> None:
    with (
        closing(DynamoProxy(backends.dynamodb_endpoint)) as proxy,
        Operator(cluster, backends, keyed, tmp_path, "one", dynamodb_endpoint=proxy.endpoint) as old,
    ):
        vote = Vote(cluster, keyed).create()
        vote.wait_phase("Open")
        with Operator(cluster, backends, keyed, tmp_path, "two") as new:
            proxy.plan(lambda call: Fault(Kind.HOLD, 120) if call.operation == "GetItem" else None)
            wait_until(lambda: proxy.injected[Kind.HOLD], "a reconcile that has its orders reads the ledger")
            old.process.pause()
            wait_until(lambda: new.leads, "the other takes over")
            vote.annotate(voting="paused")
            vote.wait_phase("Paused")
            answered = proxy.forwarded["GetItem"] + proxy.injected[Kind.HOLD]
            proxy.heal()
            wait_until(
                lambda: proxy.forwarded["GetItem"] >= answered,
                "the ledger has replied to the one that stands still",
            )
            old.process.resume()
            wait_until(lambda: '"no longer leading"' in old.log.read_text(), "it notices")
            old.process.stop(30)
            control = read_control(vote.settings(new))
    assert control is not None
    assert (control.phase, control.number) == (Phase.PAUSED, 2)
