"""What may die while votes flow: every acknowledged vote is in the ledger once, whatever it was.

Each row has voters outside of the cluster who try until they have a receipt, a journal of those on disk, and at
its end the judge of `tests/faults`, who reads log and ledger with code of his own.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import wait_until

from e2e.certificates import Authority
from e2e.deploy import NAMESPACE, NODE_TWO, PROMETHEUS_PORT, RELEASE
from e2e.kube import get, items, kill_pods, kubectl, rolled_out, script
from e2e.outside import Traffic, Viewer, tea_and_coffee
from e2e.reader import Reader
from e2e.report import Report, Row
from e2e.sessions import LARGE, NOTICE_S, Session, in_seconds, patiently, session

RATE = 40.0
BEFORE = 40  # votes that are acknowledged before something dies
WHOLE_S = 400.0  # a limit that only ends a hang: a node that was gone takes minutes on a busy machine
PARTITIONS = LARGE["partitions"]
OPERATORS = "app.kubernetes.io/component=operator"
TARGETS = f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/targets?state=active"


@dataclass
class Storm:
    """One session with a workload a role, its voters and a viewer, over all rows."""

    session: Session
    viewer: Viewer
    authority: Authority
    reader: Reader
    folder: Path
    voters: int = 0
    acknowledged: int = 0
    journals: list[Path] = field(default_factory=list)

    def traffic(self, name: str) -> Traffic:
        """New voters with a journal of their own."""
        self.journals.append(self.folder / name.replace(" ", "-"))
        votes = tea_and_coffee(self.voters)
        self.voters += 1_000_000
        return Traffic(self.authority, self.session, votes, self.journals[-1], rate=RATE)

    def counted(self) -> int:
        """As the viewer sees it."""
        turnout = self.viewer.newest.get("turnout", {})
        return int(turnout.get("accepted", 0)) + int(turnout.get("duplicate", 0))


@pytest.fixture(scope="module")
def storm(
    namespace: str, authority: Authority, reader: Reader, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Storm]:
    large = session("storm", namespace, capacity=LARGE, recount={"schedule": "0 0 1 1 *", "parallelism": 2})
    large.wait("Open", 240)
    with Viewer(authority, large) as viewer:
        yield Storm(large, viewer, authority, reader, tmp_path_factory.mktemp("journals"))


@pytest.mark.parametrize("role", ["ingest", "gateway"])
def test_pods_of_a_role_are_on_different_nodes(role: str, storm: Storm) -> None:
    nodes = [pod["spec"]["nodeName"] for pod in storm.session.pods(role)]
    assert len(nodes) == len(set(nodes)) == 2


def test_prometheus_scrapes_every_role(storm: Storm) -> None:
    def roles_up() -> bool:
        with urllib.request.urlopen(TARGETS, timeout=10) as answer:
            targets = json.load(answer)["data"]["activeTargets"]
        up = {target["labels"]["role"] for target in targets if target["health"] == "up" and of_storm(target)}
        return up == {"ingest", "tally", "projector", "gateway", "operator"}

    def of_storm(target: dict[str, Any]) -> bool:
        return target["labels"]["namespace"] in (storm.session.namespace, NAMESPACE)

    patiently(roles_up, "every role is scraped", 60)


Break = Callable[[Storm], Callable[[], bool]]
"""Breaks something and returns what tells whether it is whole again."""


def role_killed(role: str) -> Break:
    def kill(storm: Storm) -> Callable[[], bool]:
        killed = kill_pods(storm.session.namespace, storm.session.selector(role))
        return pods_replaced(storm.session.namespace, storm.session.selector(role), killed)

    return kill


def backend_killed(backend: str) -> Break:
    def kill(_storm: Storm) -> Callable[[], bool]:
        selector = f"app.kubernetes.io/name={RELEASE}-dev-{backend}"
        return pods_replaced(NAMESPACE, selector, kill_pods(NAMESPACE, selector))

    return kill


def pods_replaced(namespace: str, selector: str, killed: list[str]) -> Callable[[], bool]:
    """As many other pods are ready as were killed."""

    def replaced() -> bool:
        pods = [pod for pod in items("pods", namespace, selector) if "deletionTimestamp" not in pod["metadata"]]
        return sum(ready(pod) and pod["metadata"]["uid"] not in killed for pod in pods) >= len(killed)

    return replaced


def ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def object_deleted(kind: str, suffix: str) -> Break:
    def delete(storm: Storm) -> Callable[[], bool]:
        name, namespace = f"{storm.session.name}-{suffix}", storm.session.namespace
        before = get(kind, name, namespace)
        assert before is not None
        kubectl("delete", kind, name, "-n", namespace, "--wait=false")

        def back() -> bool:
            now = get(kind, name, namespace)
            return now is not None and now["metadata"]["uid"] != before["metadata"]["uid"]

        return back

    return delete


def operators_killed(_storm: Storm) -> Callable[[], bool]:
    return pods_replaced(NAMESPACE, OPERATORS, kill_pods(NAMESPACE, OPERATORS))


def node_two_stopped(_storm: Storm) -> Callable[[], bool]:
    """Gone long enough that the cluster notices, then back."""
    script("cluster/node", "stop", NODE_TWO)
    patiently(lambda: not node_ready(NODE_TWO), "the cluster misses node two", WHOLE_S)
    script("cluster/node", "start", NODE_TWO)
    return lambda: node_ready(NODE_TWO)


def node_ready(name: str) -> bool:
    node = get("node", name)
    assert node is not None
    return any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])


ROWS: dict[str, Break] = {
    "ingest pods": role_killed("ingest"),
    "tally pod": role_killed("tally"),
    "projector pod": role_killed("projector"),
    "gateway pods": role_killed("gateway"),
    "both operators": operators_killed,
    "ingest Deployment deleted": object_deleted("deployment", "ingest"),
    "tally StatefulSet deleted": object_deleted("statefulset", "tally"),
    "votes Service deleted": object_deleted("service", "votes"),
    "session ConfigMap deleted": object_deleted("configmap", "session"),
    "Redis pod": backend_killed("redis"),
    "Kafka pod": backend_killed("kafka"),
    "node two, stopped and started": node_two_stopped,
}


@pytest.mark.parametrize("what", ROWS)
@pytest.mark.timeout(1_800)  # more than all limits within it together
def test_no_vote_is_lost_or_counted_twice(what: str, storm: Storm, report: Report) -> None:
    with storm.traffic(what) as traffic:
        wait_until(lambda: traffic.acknowledged >= BEFORE, "votes are acknowledged")
        broken_at = time.monotonic()
        whole = ROWS[what](storm)
        patiently(lambda: whole() and everything_ready(storm.session), f"{what}: whole again", WHOLE_S)
        so_far = storm.acknowledged + traffic.acknowledged
        patiently(lambda: storm.counted() >= so_far, f"{what}: results are current again", WHOLE_S)
        whole_s = time.monotonic() - broken_at
        again = traffic.acknowledged
        wait_until(lambda: traffic.acknowledged >= again + BEFORE, "votes go on")
    silent_s = traffic.longest_gap(broken_at)
    storm.acknowledged += traffic.acknowledged
    judge(storm, report, what, traffic, silent_s, whole_s)


def judge(storm: Storm, report: Report, what: str, traffic: Traffic, silent_s: float, whole_s: float) -> None:
    """Once all is counted: what of this row's votes is lost, who counts twice."""
    uid = storm.session.uid
    patiently(lambda: not storm.reader.uncounted(uid, PARTITIONS), "the log is counted to its end", WHOLE_S)
    found = storm.reader.audit(uid, PARTITIONS, storm.journals[-1])
    row = Row(what, traffic.acknowledged, silent_s, whole_s, len(found.lost), len(found.double))
    report.add(row)
    assert (found.lost, found.double, found.faults) == ([], [], [])
    assert found.acknowledged == traffic.acknowledged > BEFORE


def everything_ready(session: Session) -> bool:
    """Every workload of the session has all its pods, and the operator says so."""
    for kind in ("deployments", "statefulsets"):
        for workload in items(kind, session.namespace, session.selector()):
            if workload["status"].get("readyReplicas", 0) < workload["spec"]["replicas"]:
                return False
    return session.condition("Ready")


@pytest.mark.timeout(300)
def test_a_namespace_that_is_deleted_takes_its_session_and_nothing_else(
    storm: Storm, report: Report, place: Callable[[str], str]
) -> None:
    doomed = session("doomed", place("doomed"), deletionPolicy="Delete")
    doomed.wait("Open")
    uid = doomed.uid
    with storm.traffic("namespace deleted") as traffic:
        with Traffic(storm.authority, doomed, tea_and_coffee(0, 50), storm.folder / "doomed") as votes:
            votes.finish()
        wait_until(lambda: traffic.acknowledged >= BEFORE, "votes are acknowledged")
        broken_at = time.monotonic()
        kubectl("delete", "namespace", doomed.namespace, "--timeout=120s", timeout=130)
        whole_s = time.monotonic() - broken_at
    assert storm.reader.left(uid) == {"topics": [], "items": []}
    storm.acknowledged += traffic.acknowledged
    judge(storm, report, "another session's namespace deleted", traffic, traffic.longest_gap(broken_at), whole_s)


@pytest.mark.timeout(300)
def test_after_all_of_it_the_recount_agrees(storm: Storm, report: Report) -> None:
    """And nobody ever saw a count go backwards."""
    storm.session.extend(in_seconds(NOTICE_S))
    storm.session.wait("Final", 240)
    wait_until(storm.viewer.saw(lambda frame: frame["final"]), "the viewer sees the final frame", 60)
    turnout = storm.viewer.newest["turnout"]
    assert turnout["accepted"] + turnout["duplicate"] >= storm.acknowledged
    assert storm.viewer.newest["totals"].keys() == {"tea", "coffee"}
    assert sum(storm.viewer.newest["totals"].values()) == turnout["accepted"]
    assert storm.viewer.backwards == []


def before_the_close(session: Session, closes: float) -> None:
    time.sleep(max(0.0, closes - 3 - time.time()))


def in_the_close(session: Session, closes: float) -> None:
    patiently(lambda: session.phase() == "Closing", "closing", closes - time.time() + 60)


def in_the_recount(session: Session, closes: float) -> None:
    patiently(lambda: session.phase() == "Recounting", "recounting", closes - time.time() + 90)


@pytest.mark.parametrize(
    "moment", [before_the_close, in_the_close, in_the_recount], ids=lambda moment: moment.__name__
)
@pytest.mark.timeout(300)
def test_an_operator_killed_around_the_close_changes_neither_the_end_nor_the_result(
    moment: Callable[[Session, float], None],
    namespace: str,
    authority: Authority,
    reader: Reader,
    report: Report,
    tmp_path: Path,
) -> None:
    """Both replicas die; voting goes on to its last second, and is over then, with or without an operator."""
    name = moment.__name__.replace("_", "-")
    small = session(name, namespace)
    small.wait("Open")
    with Traffic(authority, small, tea_and_coffee(0), tmp_path / "journal", rate=RATE) as traffic:
        wait_until(lambda: traffic.acknowledged >= BEFORE, "votes are acknowledged")
        closes = time.time() + NOTICE_S
        small.extend(in_seconds(NOTICE_S))
        moment(small, closes)
        kill_pods(NAMESPACE, OPERATORS)
        killed_at = time.monotonic()
        small.wait("Final", 180)
        whole_s = time.monotonic() - killed_at
    found = reader.audit(small.uid, 2, tmp_path / "journal")
    what = f"both operators, {name.replace('-', ' ')}"
    report.add(Row(what, traffic.acknowledged, 0.0, whole_s, len(found.lost), len(found.double)))
    assert (found.lost, found.double, found.faults) == ([], [], [])
    assert found.acknowledged == traffic.acknowledged > BEFORE
    rolled_out(f"deployment/{RELEASE}-operator", NAMESPACE)
