"""What the operator keeps as it should be, against a real API server: changes, drift, pause, invalid specs."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.apiserver.api import Manifest, Refused
from tests.apiserver.cluster import Cluster
from tests.apiserver.kubelet import all_available
from tests.apiserver.operators import Operator, Owners, Vote, add_token_key, versions
from tests.waiting import wait_until

from psephos.adapters.kafka import read_control
from psephos.domain.session import Spec
from psephos.formats.control import Phase
from psephos_lab.servers import Backends

LARGE = {"votesPerSecond": 20_000, "viewers": 100_000, "partitions": 2}


class Operated(NamedTuple):
    """A namespace, the operator that looks after it, and the cluster."""

    cluster: Cluster
    operator: Operator
    namespace: str

    def vote(self, name: str, **spec: Any) -> Vote:
        """A session that is open."""
        vote = Vote(self.cluster, self.namespace, name, **spec).create()
        vote.wait_phase("Open")
        return vote


@pytest.fixture(scope="module")
def operated(cluster: Cluster, backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    namespace = cluster.create_namespace(f"reconcile-{uuid.uuid4().hex[:6]}")
    add_token_key(cluster, namespace)
    folder = tmp_path_factory.mktemp("reconcile")
    with Operator(cluster, backends, namespace, folder) as operator, all_available(cluster.admin, namespace):
        yield Operated(cluster, operator, namespace)


# --- Each field of the spec, changed while the session is open


@pytest.fixture(scope="module")
def large(operated: Operated) -> Vote:
    """One open session with a workload a role, which the table below changes again and again."""
    closes = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    vote = operated.vote("final", capacity=LARGE, closesAt=closes)
    settle(vote)
    return vote


def settle(vote: Vote) -> None:
    """Waits until the operator has done all that the present spec asks for."""
    wait_until(
        lambda: vote.status.get("observedGeneration") == vote.now["metadata"]["generation"],
        "the spec has been taken in",
    )


CONFIG = "ConfigMap/final-session"
HOUR = timedelta(hours=1)


def at(delta: timedelta) -> str:
    return (datetime.now(UTC) + delta).strftime("%Y-%m-%dT%H:%M:%SZ")


def names(*roles: str) -> set[str]:
    return {f"{'StatefulSet' if role == 'tally' else 'Deployment'}/final-{role}" for role in roles}


TOKENS = {"secretRef": {"name": "tokens", "key": "hs256"}, "issuer": "https://id.example", "audience": "final"}
OTHER_OPTIONS = [{"id": "pizza"}, {"id": "salad"}]

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "opensAt": ({"opensAt": "2020-01-01T00:00:00Z"}, "the session has opened"),
    "closeGrace": ({"closeGrace": "2s"}, "fixed since the session was prepared"),
    "ballot.type": ({"ballot": {"type": "approval"}}, "spec.ballot.type"),
    "ballot.options": ({"ballot": {"options": OTHER_OPTIONS}}, "ids and their order are fixed"),
    "ballot.min": ({"ballot": {"min": 0}}, "spec.ballot.min"),
    "ballot.max": ({"ballot": {"max": 2}}, "spec.ballot.max"),
    "ballot.scale": ({"ballot": {"scale": {"min": 0, "max": 3}}}, "spec.ballot.scale"),
    "ballot.method": ({"ballot": {"method": "sum"}}, "spec.ballot.method"),
    "ballot.elimination": ({"ballot": {"elimination": "batch"}}, "spec.ballot.elimination"),
    "ballot.stop": ({"ballot": {"stop": "two"}}, "spec.ballot.stop"),
    "ballot.tieBreak": ({"ballot": {"tieBreak": "lot"}}, "spec.ballot.tieBreak"),
    "voters.eligibility": ({"voters": {"eligibility": "open"}}, "spec.voters.eligibility"),
    "voters.revote": ({"voters": {"revote": "last"}}, "spec.voters.revote"),
    "voters.votesPerVoter": ({"voters": {"votesPerVoter": 2}}, "spec.voters.votesPerVoter"),
    "voters.segments": ({"voters": {"segments": ["no"]}}, "spec.voters.segments"),
    "voters.tokens.weightClaim": ({"voters": {"tokens": {"weightClaim": "w"}}}, "weightClaim"),
    "voters.tokens.segmentClaim": ({"voters": {"tokens": {"segmentClaim": "s"}}}, "segmentClaim"),
    "capacity.partitions": ({"capacity": {"partitions": 3}}, "spec.capacity.partitions"),
}
"""What the API server refuses once a session is open: the change, and a part of the message."""

TAKEN: dict[str, tuple[dict[str, Any], set[str]]] = {
    "title": ({"title": "The Final"}, {CONFIG, *names("gateway")}),
    "ballot.options[].label": (
        {"ballot": {"options": [{"id": "pizza", "label": "Pizza!"}, {"id": "soup"}]}},
        {CONFIG, *names("gateway")},
    ),
    "closesAt": ({"closesAt": at(2 * HOUR)}, set()),
    "voters.tokens.issuer": (
        {"voters": {"tokens": {"issuer": "https://other.example"}}},
        {CONFIG, *names("ingest", "gateway")},
    ),
    "voters.tokens.audience": ({"voters": {"tokens": {"audience": "all"}}}, {CONFIG, *names("ingest", "gateway")}),
    "voters.tokens.secretRef": (
        {"voters": {"tokens": {"secretRef": {"key": "other"}}}},
        {CONFIG, *names("ingest", "gateway")},
    ),
    "voters.tokens.algorithms, jwksUrl": (
        {"voters": {"tokens": {"algorithms": ["ES256"], "jwksUrl": "https://id.example/jwks", "secretRef": None}}},
        {CONFIG, *names("ingest", "gateway")},
    ),
    "capacity.votesPerSecond, viewers": (
        {"capacity": {"votesPerSecond": 60_000, "viewers": 200_000}},
        {"HorizontalPodAutoscaler/final-ingest", "HorizontalPodAutoscaler/final-gateway"},
    ),
    "recount.schedule": ({"recount": {"schedule": "0 * * * *"}}, {"CronJob/final-audit"}),
    "recount.parallelism": ({"recount": {"parallelism": 2}}, set()),
    "exports": ({"exports": {"url": "s3://results/final"}}, {CONFIG}),
    "deletionPolicy": ({"deletionPolicy": "Delete"}, set()),
    "results.visibility": ({"results": {"visibility": "afterClose"}}, {CONFIG, *names("projector", "gateway")}),
}
"""What is taken, and exactly which objects in the cluster change by it."""

ELSEWHERE = {"voters.roll": "test_another_roll_restarts_who_takes_votes_and_nobody_else"}


@pytest.mark.parametrize("field", REFUSED)
def test_a_field_that_is_fixed_is_refused_with_its_name(large: Vote, field: str) -> None:
    change, why = REFUSED[field]
    with pytest.raises(Refused, match="spec") as refused:
        large.change(**change)
    assert why in refused.value.message


@pytest.mark.parametrize("field", TAKEN)
def test_a_field_that_may_change_changes_what_depends_on_it_and_nothing_else(
    operated: Operated, large: Vote, field: str
) -> None:
    change, expected = TAKEN[field]
    before = versions(large.children())
    large.change(**change)
    settle(large)
    after = versions(large.children())
    assert {key for key in after if after[key] != before.get(key)} == expected
    assert set(before) == set(after)
    assert large.phase == "Open"
    if field == "closesAt":
        control = read_control(large.settings(operated.operator))
        assert control is not None
        assert control.closes_at == round(datetime.fromisoformat(change["closesAt"]).timestamp() * 1000)
        assert large.status["closesAt"].startswith(change["closesAt"][:-1])


def test_an_earlier_end_and_a_loosened_embargo_are_refused(operated: Operated) -> None:
    vote = operated.vote("strict", closesAt=at(HOUR), results={"visibility": "afterClose"})
    with pytest.raises(Refused, match="only be moved to later"):
        vote.change(closesAt=at(HOUR / 2))
    with pytest.raises(Refused, match="an embargo can't be loosened"):
        vote.change(results={"visibility": "live"})
    assert vote.status["leader"] == "sealed"


def test_another_roll_restarts_who_takes_votes_and_nobody_else(operated: Operated) -> None:
    voters = {"eligibility": "roll", "tokens": TOKENS, "roll": {"configMapRef": {"name": "roll"}}}
    vote = operated.vote("closed-list", voters=voters, capacity=LARGE)
    settle(vote)
    before = versions(vote.children())
    vote.change(voters={"roll": {"configMapRef": {"name": "other"}}})
    settle(vote)
    after = versions(vote.children())
    changed = {key for key in after if after[key] != before[key]}
    wanted = {"ConfigMap/closed-list-session", "Deployment/closed-list-ingest", "Deployment/closed-list-gateway"}
    assert changed == wanted


def test_every_field_of_the_spec_is_in_one_of_the_tables() -> None:
    covered = " ".join((*REFUSED, *TAKEN, *ELSEWHERE))
    for path in _paths(Spec.model_json_schema(by_alias=True)):
        *_, last = path.split(".")
        assert last in covered.replace("[]", "") or path.startswith("voters.roll"), path


def _paths(schema: dict[str, Any], prefix: str = "", of: dict[str, Any] | None = None) -> Iterator[str]:
    of = schema if of is None else of
    for name, member in of.get("properties", {}).items():
        found = member
        for part in member.get("anyOf", ()):
            found = part if "$ref" in part else found
        if "$ref" in found and name not in ("secretRef", "scale", "exports", "roll"):
            yield from _paths(schema, f"{prefix}{name}.", schema["$defs"][found["$ref"].rpartition("/")[2]])
        else:
            yield prefix + name


# --- Ready


def test_ready_is_true_only_when_all_is_available_and_every_partition_is_owned(
    cluster: Cluster, backends: Backends, namespace: str, tmp_path: Path
) -> None:
    add_token_key(cluster, namespace)
    with Operator(cluster, backends, namespace, tmp_path) as operator:
        vote = Vote(cluster, namespace).create()
        vote.wait_("Ready", "False", "WorkloadsNotAvailable")
        with all_available(cluster.admin, namespace):
            vote.wait_("Ready", "False", "PartitionsNotOwned")
            with Owners(operator, vote):
                vote.wait_("Ready")
                assert vote.status["partitions"] == {"total": 2, "owned": 2}
            vote.wait_("Ready", "False", "PartitionsNotOwned")
        vote.change(title="Another")  # a new generation that no kubelet has brought up
        vote.wait_("Ready", "False", "WorkloadsNotAvailable")


# --- Drift


def test_what_others_change_or_delete_comes_back_and_is_counted(operated: Operated) -> None:
    vote = operated.vote("drifting", capacity=LARGE)
    settle(vote)
    api, before = operated.cluster.admin, vote.children()
    counted = operated.operator.metric('psephos_operator_drift_total{kind="Service"}')
    service, gateway = before["Service/drifting-votes"], before["Deployment/drifting-gateway"]
    config = before["ConfigMap/drifting-session"]
    api.patch(service, {"spec": {"selector": {"psephos.dev/votes": "false"}}})
    api.patch(
        gateway, {"metadata": {"labels": {"psephos.dev/session-uid": None, "app.kubernetes.io/part-of": "x"}}}
    )
    api.patch(config, {"data": {"session.yaml": "other"}})
    api.delete("policy/v1", "PodDisruptionBudget", "drifting-tally", operated.namespace)
    wait_until(lambda: "PodDisruptionBudget/drifting-tally" in vote.children(), "the budget is back")

    def is_back(key: str, *path: str) -> bool:
        now, then = vote.children().get(key, {}), before[key]
        for part in path:
            now, then = now.get(part, {}), then[part]
        return bool(now == then)

    wait_until(lambda: is_back("Service/drifting-votes", "spec", "selector"), "the selector is back")
    wait_until(lambda: is_back("ConfigMap/drifting-session", "data"), "the session's file is back")
    wait_until(lambda: is_back("Deployment/drifting-gateway", "metadata", "labels"), "the labels are back")
    assert operated.operator.metric('psephos_operator_drift_total{kind="Service"}') > counted
    wait_until(lambda: "DriftCorrected" in vote.events(), "an event tells")


def test_what_is_no_longer_wanted_goes_and_what_takes_its_place_comes_first(operated: Operated) -> None:
    vote = operated.vote("growing")
    settle(vote)
    assert "Deployment/growing-serve" in vote.children()
    vote.change(capacity={"votesPerSecond": 20_000, "viewers": 100_000})
    wait_until(lambda: "Deployment/growing-serve" not in vote.children(), "the small layout is gone")
    assert {f"Deployment/growing-{role}" for role in ("ingest", "projector", "gateway")} <= set(vote.children())
    wait_until(lambda: vote.status["layout"] == "roles", "the status tells")


# --- Replicas that an autoscaler owns


def test_replicas_that_an_autoscaler_has_set_stay(operated: Operated) -> None:
    vote = operated.vote("scaled", capacity=LARGE)
    settle(vote)
    api = operated.cluster.admin
    ingest = vote.children()["Deployment/scaled-ingest"]
    assert ingest["spec"]["replicas"] == 3, "it begins at what capacity asks for"
    api.request(
        "PATCH",
        f"/apis/apps/v1/namespaces/{operated.namespace}/deployments/scaled-ingest/scale",
        {"spec": {"replicas": 5}},
        content="application/merge-patch+json",
    )
    vote.change(title="Again")
    settle(vote)
    assert vote.children()["Deployment/scaled-ingest"]["spec"]["replicas"] == 5
    owners = [
        entry["manager"]
        for entry in vote.children()["Deployment/scaled-ingest"]["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {}) and not entry.get("subresource")
    ]
    assert "psephos-operator" not in owners


# --- Pauses


def test_voting_pauses_and_goes_on_by_annotation(operated: Operated) -> None:
    vote = operated.vote("pausing")
    vote.annotate(voting="paused", reason="fire alarm")
    vote.wait_phase("Paused")
    assert vote.condition("Paused")["message"] == "fire alarm"
    control = read_control(vote.settings(operated.operator))
    assert control is not None
    assert (control.phase, control.reason) == (Phase.PAUSED, "fire alarm")
    vote.annotate(voting=None, reason=None)
    vote.wait_phase("Open")
    assert [reason for reason in vote.events() if reason in ("Open", "Paused")] == ["Open", "Paused", "Open"]


def test_a_session_that_the_operator_is_told_to_leave_alone_is_left_alone(operated: Operated) -> None:
    vote = operated.vote("alone")
    settle(vote)
    vote.annotate(reconcile="paused")
    vote.wait_("Paused", "True", "ReconcilePaused")
    operated.cluster.admin.delete("v1", "Service", "alone-votes", operated.namespace)
    other = operated.vote("witness")  # the operator has been round since
    settle(other)
    assert "Service/alone-votes" not in vote.children()
    vote.annotate(reconcile=None)
    wait_until(lambda: "Service/alone-votes" in vote.children(), "the Service is back")
    vote.wait_("Paused", "False")


def test_a_session_can_be_made_void(operated: Operated) -> None:
    vote = operated.vote("spoilt")
    vote.annotate(voting="void", reason="the ballot was wrong")
    vote.wait_phase("Void")
    control = read_control(vote.settings(operated.operator))
    assert control is not None
    assert (control.phase, control.reason) == (Phase.VOID, "the ballot was wrong")


# --- What is wrong


def test_a_spec_that_no_schema_can_refuse_is_reported_and_makes_nothing(operated: Operated) -> None:
    vote = Vote(operated.cluster, operated.namespace, "wrong", recount={"schedule": "soon"}).create()
    vote.wait_("Degraded", "True", "InvalidSpec")
    assert "spec.recount.schedule" in vote.condition("Degraded")["message"]
    assert vote.children() == {}
    vote.change(recount={"schedule": "0 * * * *"})
    vote.wait_phase("Open")
    vote.wait_("Degraded", "False")


def test_a_key_that_is_lost_after_genesis_is_never_made_anew(operated: Operated) -> None:
    vote = operated.vote("keyless")
    settle(vote)
    (name,) = [
        key.partition("/")[2] for key in vote.children() if key.startswith("Secret/") and "session-key" in key
    ]
    api = operated.cluster.admin
    secret = api.get("v1", "Secret", name, operated.namespace)
    api.delete("v1", "Secret", name, operated.namespace)
    vote.wait_("Degraded", "True", "KeysLost")
    assert vote.is_("Ready", "False")
    assert f"Secret/{name}" not in vote.children()
    kept = {key: secret["metadata"][key] for key in ("name", "namespace", "labels")}
    api.create({**secret, "metadata": kept})
    vote.wait_("Degraded", "False")


def test_an_order_that_comes_too_late_is_refused_in_the_status(operated: Operated) -> None:
    vote = operated.vote("hurried", closesAt=at(HOUR))
    vote.annotate(voting="stopped")
    vote.wait_("Degraded", "True", "OrderRefused")
    assert "allowed: paused, closed, void" in vote.condition("Degraded")["message"]
    assert vote.phase == "Open"
    vote.annotate(voting=None)
    vote.wait_("Degraded", "False")


# --- At rest


def test_a_session_at_rest_and_an_operator_of_the_next_version_change_nothing(
    cluster: Cluster, backends: Backends, namespace: str, tmp_path: Path
) -> None:
    """The next version has another image for new sessions; nobody is restarted by it."""
    add_token_key(cluster, namespace)
    with ExitStack() as running:
        running.enter_context(all_available(cluster.admin, namespace))
        with Operator(cluster, backends, namespace, tmp_path) as first:
            votes = [
                Vote(cluster, namespace, name, capacity=capacity).create()
                for name, capacity in (("small", {"partitions": 2}), ("big", LARGE))
            ]
            for vote in votes:
                vote.wait_phase("Open")
                running.enter_context(Owners(first, vote))
            for vote in votes:
                vote.wait_("Ready")
            before = {vote.name: _all_versions(vote) for vote in votes}
            looks = first.metric('psephos_operator_reconciles_total{outcome="done"}')
            wait_until(
                lambda: first.metric('psephos_operator_reconciles_total{outcome="done"}') >= looks + 6,
                "every session was looked at again, three times",
            )
            assert _changed(before, votes) == {}
        with Operator(cluster, backends, namespace, tmp_path, "next", image="psephos:next") as after:
            wait_until(lambda: after.metric('psephos_operator_reconciles_total{outcome="done"}') >= 6, "looks")
            assert _changed(before, votes) == {}
            new = Vote(cluster, namespace, "new").create()
            new.wait_phase("Open")
            template = new.children()["Deployment/new-serve"]["spec"]["template"]
            assert template["spec"]["containers"][0]["image"] == "psephos:next"


def _changed(before: dict[str, dict[str, str]], votes: list[Vote]) -> dict[str, Any]:
    """What is no longer as it was, for people to read."""
    now = {vote.name: _all_versions(vote) for vote in votes}
    return {
        f"{name} {key}": (before[name].get(key), version)
        for name, found in now.items()
        for key, version in found.items()
        if before[name].get(key) != version
    }


def _all_versions(vote: Vote) -> dict[str, str]:
    objects: dict[str, Manifest] = {**vote.children(), "session": vote.now}
    return {key: found["metadata"]["resourceVersion"] for key, found in objects.items()}
