"""What nobody had in mind: names that are taken, absurd but valid specs, annotations that make no sense."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from tests.apiserver.api import Manifest
from tests.apiserver.cluster import Cluster
from tests.apiserver.kubelet import all_available
from tests.apiserver.operators import SESSION, Operator, Vote, add_token_key
from tests.unit.operator.sessions import ACCESS, plan, session, settings
from tests.unit.operator.test_builders import EVERYTHING, LARGE
from tests.waiting import wait_until

from psephos.domain.session import parse_session
from psephos.formats.control import Phase
from psephos_lab.servers import Backends
from psephos_operator.builders import build

LONGEST = "x" * 50  # of a session's name


class Scene:
    """One namespace with its operator."""

    def __init__(self, cluster: Cluster, operator: Operator, namespace: str) -> None:
        self.cluster, self.operator, self.namespace = cluster, operator, namespace

    def vote(self, name: str, **spec: Any) -> Vote:
        return Vote(self.cluster, self.namespace, name, **spec)


@pytest.fixture(scope="module")
def scene(cluster: Cluster, backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    namespace = cluster.create_namespace(f"oddities-{uuid.uuid4().hex[:6]}")
    add_token_key(cluster, namespace)
    folder = tmp_path_factory.mktemp("oddities")
    with Operator(cluster, backends, namespace, folder, resync_s="2") as operator, all_available(cluster.admin):
        yield Scene(cluster, operator, namespace)


# --- Names


def foreign(kind: str, name: str, namespace: str) -> Manifest:
    members: dict[str, Any] = {
        "ConfigMap": {"apiVersion": "v1", "data": {"ours": "yes"}},
        "Service": {"apiVersion": "v1", "spec": {"selector": {"app": "shop"}, "ports": [{"port": 443}]}},
    }
    return {"kind": kind, "metadata": {"name": name, "namespace": namespace}, **members[kind]}


@pytest.mark.parametrize(("kind", "suffix"), [("ConfigMap", "session"), ("Service", "votes")])
def test_what_somebody_else_has_under_a_childs_name_is_not_taken_over(
    scene: Scene, kind: str, suffix: str
) -> None:
    vote = scene.vote(f"shop-{suffix}")
    theirs = foreign(kind, f"{vote.name}-{suffix}", scene.namespace)
    before = scene.cluster.admin.create(theirs)
    vote.create()
    vote.wait_("Degraded", "True", "ApplyFailed")
    message = vote.condition("Degraded")["message"]
    assert f"{kind} {vote.name}-{suffix}: one of this name is there, and it is not this session's" in message
    found = scene.cluster.admin.get("v1", kind, f"{vote.name}-{suffix}", scene.namespace)
    assert found["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], "nobody touched it"
    assert f"Deployment/{vote.name}-serve" in vote.children(), "all else is there"
    scene.cluster.admin.delete("v1", kind, f"{vote.name}-{suffix}", scene.namespace)
    vote.wait_("Degraded", "False")
    assert f"{kind}/{vote.name}-{suffix}" in vote.children()


def test_a_child_that_lost_all_labels_and_its_owner_is_not_mistaken_for_somebody_elses(scene: Scene) -> None:
    vote = scene.vote("nameless").create()
    vote.wait_("Degraded", "False")
    wait_until(lambda: "Service/nameless-votes" in vote.children(), "it is there")
    service = vote.children()["Service/nameless-votes"]
    scene.cluster.admin.patch(service, {"metadata": {"labels": {"app.kubernetes.io/managed-by": "x"}}})

    def is_right() -> bool:
        labels = scene.cluster.admin.get("v1", "Service", "nameless-votes", scene.namespace)["metadata"]["labels"]
        return bool(labels["app.kubernetes.io/managed-by"] == "psephos-operator")

    wait_until(is_right, "its labels are back")


def test_no_two_sessions_have_a_child_of_the_same_name() -> None:
    """Also those whose names are what another one's children are called after."""
    endings = (
        "",
        "-votes",
        "-session",
        "-recount",
        "-recount-final",
        "-seal",
        "-final",
        "-audit",
        "-tally",
        "-serve",
    )
    sessions = [f"lunch{ending}" for ending in endings] + [LONGEST, LONGEST[:-1] + "y", LONGEST[:-1]]
    children: dict[str, set[tuple[str, str]]] = {}
    for name in sessions:
        found = children.setdefault(name, set())
        for capacity in ({}, LARGE):
            wanted = plan(session(name, capacity=capacity), phase=Phase.OPEN, apis=EVERYTHING)
            late = replace(wanted, phase=Phase.RECOUNTING, recounting=True, sealing=True)
            for each in (*build(wanted, ACCESS), *build(late, ACCESS)):
                if each["metadata"]["namespace"] == "votes":
                    found.add((each["kind"], each["metadata"]["name"]))
    for one, other in combinations(sessions, 2):
        assert not children[one] & children[other], (one, other)


# --- Specs


EMOJI = "\N{BALLOT BOX WITH BALLOT}"
ABSURD: dict[str, dict[str, Any]] = {
    "a thousand options": {
        "ballot": {
            "type": "score",
            "scale": {"min": -32768, "max": 32767},
            "options": [{"id": f"option-{number}", "label": EMOJI * 20} for number in range(1000)],
        }
    },
    "an unreadable title": {"title": "\u202e\x00\x07 \u2028: {}'\"\\\n---\n" + EMOJI * 50},
    "more votes a second than there are people": {"capacity": {"votesPerSecond": 10**18, "viewers": 10**18}},
    "one vote a second": {"capacity": {"votesPerSecond": 1, "viewers": 1, "partitions": 1}},
    "the end of days": {"closesAt": "9999-12-31T23:59:59Z", "recount": {"schedule": "0 0 31 2 *"}},
    "schedules with names and steps": {"recount": {"schedule": "*/59,5-10/2 00 01,31 jan-dec/2 sun-sat"}},
    "one option": {"ballot": {"type": "ranked", "options": [{"id": "only"}]}},
}


@pytest.mark.parametrize("what", ABSURD)
def test_an_absurd_spec_is_either_refused_or_runs(scene: Scene, what: str) -> None:
    name = f"{LONGEST[:41]}-{uuid.uuid4().hex[:8]}"
    vote = scene.vote(name, **ABSURD[what]).create()
    vote.wait_phase("Open")
    wait_until(lambda: "layout" in vote.status, "its children are there")
    reasons = {vote.condition("Degraded")["reason"]}
    assert reasons <= {"AsExpected", "TableNotWarmed"}, vote.condition("Degraded")["message"]
    assert {"CronJob", "ConfigMap", "Service"} <= {key.partition("/")[0] for key in vote.children()}


def test_an_end_that_has_passed_closes_the_session_at_once(scene: Scene) -> None:
    vote = scene.vote("yesterday", closesAt="2001-01-01T00:00:00Z").create()
    wait_until(lambda: vote.phase in ("Closing", "Recounting"), "it closes")
    assert vote.status["closesAt"].startswith("2001-01-01T00:00:00")


def test_annotations_that_make_no_sense_hold_nothing_up(scene: Scene) -> None:
    vote = scene.vote("graffiti").create()
    vote.wait_phase("Open")
    vote.annotate(voting="PAUSED ", recount="../../etc", reconcile="maybe", reason="\n" * 1000, exports="{}")
    vote.wait_("Degraded", "True", "OrderRefused")
    assert "found 'PAUSED '; allowed: paused, closed, void" in vote.condition("Degraded")["message"]
    vote.annotate(voting="paused", reason="why? " * 30_000)
    vote.wait_phase("Paused")
    assert len(vote.condition("Paused")["message"]) <= 1024
    vote.annotate(voting=None, reason=None)
    vote.wait_phase("Open")
    vote.wait_("Degraded", "False")


def test_signs_of_any_kind_reach_the_pods_and_the_status_as_they_are(scene: Scene) -> None:
    label, reason = f"{EMOJI} \u2028\x85\x7f: \\ud83d 'soup'", f"{EMOJI} alarm\u2028\x85"
    vote = scene.vote("signs", ballot={"options": [{"id": "a", "label": label}, {"id": "b"}], "type": "single"})
    vote.create()
    wait_until(lambda: "ConfigMap/signs-session" in vote.children(), "it is there")
    session_file = vote.children()["ConfigMap/signs-session"]["data"]["session.yaml"]
    assert parse_session(session_file.encode()).labels == {"a": label, "b": "b"}
    vote.annotate(voting="paused", reason=reason)
    vote.wait_phase("Paused")
    assert vote.condition("Paused")["message"] == reason


def test_a_session_keeps_what_it_was_told_by_others(scene: Scene) -> None:
    """Labels, annotations and finalizers of other controllers stay, and hold up nothing but the deletion."""
    vote = scene.vote("shared")
    vote.manifest["metadata"] |= {
        "labels": {"team": "a"},
        "annotations": {"x/y": "z"},
        "finalizers": ["other.dev/f"],
    }
    vote.create()
    vote.wait_phase("Open")
    metadata = scene.cluster.admin.get(*SESSION, "shared", scene.namespace)["metadata"]
    assert set(metadata["finalizers"]) == {"other.dev/f", "psephos.dev/cleanup"}
    vote.delete()
    wait_until(lambda: vote.now["metadata"]["finalizers"] == ["other.dev/f"], "ours is gone")
    scene.cluster.admin.patch(vote.manifest, {"metadata": {"finalizers": None}})
    assert vote.gone


def test_services_find_the_pods_of_this_very_session() -> None:
    """Those of one before it, of the same name, may still take votes while they end."""
    for capacity in ({}, LARGE):
        wanted = plan(session(capacity=capacity), phase=Phase.OPEN, given=settings())
        for each in build(wanted, ACCESS):
            selector = each["spec"]["selector"] if each["kind"] == "Service" else None
            selector = each["spec"]["podSelector"]["matchLabels"] if each["kind"] == "NetworkPolicy" else selector
            if selector is not None:
                assert selector["psephos.dev/session-uid"] == wanted.uid, each["metadata"]["name"]
