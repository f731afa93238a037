"""A session's life where something is in its way: Strimzi's topics, servers away, a ledger that was changed."""

from pathlib import Path
from typing import Any

import pytest
from tests.apiserver.api import Manifest
from tests.apiserver.cluster import Cluster
from tests.apiserver.kubelet import all_available, set_failed
from tests.apiserver.operators import Operator, Vote, add_token_key, cast, jobs_run, tally
from tests.waiting import wait_until

from psephos.adapters.dynamodb.ledger import dynamodb_client
from psephos.adapters.kafka import LogAdmin
from psephos_lab.servers import Backends


@pytest.fixture
def keyed(cluster: Cluster, namespace: str) -> str:
    """A namespace with the key of voter tokens."""
    add_token_key(cluster, namespace)
    return namespace


def test_strimzi_makes_the_topics_and_leaves_them_alone_from_closing_on(
    cluster: Cluster, backends: Backends, keyed: str, tmp_path: Path
) -> None:
    def topics() -> list[Manifest]:
        return cluster.admin.list("kafka.strimzi.io/v1beta2", "KafkaTopic", keyed)

    with Operator(cluster, backends, keyed, tmp_path, strimzi_cluster="main", strimzi_namespace=keyed) as operator:
        vote = Vote(cluster, keyed, deletionPolicy="Delete").create()
        vote.wait_("Progressing", "True", "TopicsPending")
        assert len(topics()) == 3
        assert vote.phase == "Pending"
        assert "epoch" not in vote.status
        LogAdmin(vote.settings(operator)).create_topics(2)  # what the Topic Operator does
        vote.wait_phase("Open")
        assert not any("annotations" in topic["metadata"] and _released(topic) for topic in topics())
        vote.annotate(voting="closed")
        vote.wait_phase("Closing")
        wait_until(lambda: all(_released(topic) for topic in topics()), "Strimzi is told to leave them")
        vote.delete()
        wait_until(lambda: vote.gone, "it is gone")
        assert topics() == []
        assert LogAdmin(vote.settings(operator)).describe_votes() is None


def _released(topic: Manifest) -> bool:
    return bool(topic["metadata"].get("annotations", {}).get("strimzi.io/managed") == "false")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_while_the_brokers_are_away_the_status_says_so_and_keeps_what_was_known(
    cluster: Cluster, keyed: str, tmp_path: Path
) -> None:
    with (
        Backends(tmp_path / "own", dynamodb_in_memory=True) as own,
        Operator(cluster, own, keyed, tmp_path) as operator,
        all_available(cluster.admin, keyed),
    ):
        vote = Vote(cluster, keyed).create()
        vote.wait_phase("Open")
        with tally(cluster.admin, vote, tmp_path):
            cast(operator, vote, 4)
            wait_until(lambda: vote.status.get("accepted") == 4, "all votes are counted")
            own.kafka.pause()
            vote.wait_("Degraded", "True", "BackendUnavailable")
            assert vote.status["accepted"] == 4
            cluster.admin.delete("v1", "Service", "lunch-votes", keyed)
            wait_until(lambda: "Service/lunch-votes" in vote.children(), "drift is corrected all the same")
            own.kafka.resume()
            vote.wait_("Degraded", "False")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_ledger_that_was_changed_is_disputed_and_final_after_its_repair(
    cluster: Cluster, backends: Backends, keyed: str, tmp_path: Path
) -> None:
    with Operator(cluster, backends, keyed, tmp_path) as operator:
        vote = Vote(cluster, keyed).create()
        vote.wait_phase("Open")
        with tally(cluster.admin, vote, tmp_path):
            cast(operator, vote, 20)
            wait_until(lambda: vote.status.get("accepted") == 20, "all votes are counted")
            vote.annotate(voting="closed")
            vote.wait_phase("Recounting")
        head = vote.ledger(operator).head(0)
        assert head is not None

        def overwrite(payload: bytes) -> None:
            """As nobody may."""
            settings = vote.settings(operator)
            key = {"pk": {"S": f"{vote.uid}#0"}, "sk": {"N": str(head.base)}}
            item: Any = {**key, "b": {"B": payload}}
            dynamodb_client(settings).put_item(TableName=settings.dynamodb_table, Item=item)

        overwrite(head.payload[:-1] + bytes([head.payload[-1] ^ 1]))
        with jobs_run(cluster.admin, keyed, tmp_path):
            vote.wait_phase("Disputed")
            assert vote.is_("Disputed")
            assert vote.status["leader"] == "sealed"
            assert "outcome" not in vote.status
            overwrite(head.payload)
            vote.annotate(recount="final-2")
            vote.wait_phase("Final")
    assert vote.status["outcome"]["totals"] == {"pizza": 15, "soup": 5}
    assert "Job/lunch-recount-final-2" in vote.children()


def test_a_recount_that_gave_up_is_begun_again(
    cluster: Cluster, backends: Backends, keyed: str, tmp_path: Path
) -> None:
    with Operator(cluster, backends, keyed, tmp_path):
        vote = Vote(cluster, keyed).create()
        vote.wait_phase("Open")
        vote.annotate(voting="closed")
        wait_until(lambda: "records to go" in vote.condition("Progressing")["message"], "nobody counts")
        with tally(cluster.admin, vote, tmp_path):
            vote.wait_phase("Recounting")
        wanted = ("batch/v1", "Job", "lunch-recount-final", keyed)
        wait_until(lambda: cluster.admin.find(*wanted), "the recount")
        first = cluster.admin.get(*wanted)
        set_failed(cluster.admin, first)
        wait_until(lambda: "RecountFailed" in vote.events(), "an event tells")

        def begun_again() -> bool:
            found = cluster.admin.find(*wanted)
            return found is not None and found["metadata"]["uid"] != first["metadata"]["uid"]

        wait_until(begun_again, "another Job of the same name")
