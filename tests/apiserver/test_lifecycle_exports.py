"""Results in a bucket: the session is Final without them, they are tried again, and they go with the session."""

import base64
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.apiserver.api import Manifest
from tests.apiserver.cluster import Cluster
from tests.apiserver.kubelet import all_available
from tests.apiserver.operators import Operator, Vote, add_token_key, cast, jobs_run, tally
from tests.s3 import KEY_ID, REGION, S3, SECRET
from tests.waiting import wait_until

from psephos_lab.servers import Backends
from psephos_operator.reconcile.reconciler import last_words


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    folder = tmp_path_factory.mktemp("s3")
    server = S3(folder / "buckets", folder)
    server.start()
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def test_a_session_is_final_without_its_exports_which_are_tried_again_follow_their_url_and_go_with_it(
    cluster: Cluster, backends: Backends, s3: S3, namespace: str, tmp_path: Path
) -> None:
    add_token_key(cluster, namespace)
    own = {"s3_endpoint": s3.endpoint, "s3_region": REGION, "s3_access_key_id": KEY_ID}
    bucket = f"results-{uuid.uuid4().hex[:8]}"
    with Operator(cluster, backends, namespace, tmp_path, **own, s3_secret_access_key=SECRET) as operator:
        exports = {"url": f"s3://{bucket}/2026"}
        vote = Vote(cluster, namespace, exports=exports, deletionPolicy="Delete").create()
        vote.wait_phase("Open")
        with all_available(cluster.admin, namespace), jobs_run(cluster.admin, namespace, tmp_path):
            with tally(cluster.admin, vote, tmp_path):
                cast(operator, vote, 8)
                wait_until(lambda: vote.status.get("accepted") == 8, "all votes are counted")
                vote.annotate(voting="closed")
                vote.wait_phase("Final")
            why = f"s3://{bucket}/2026/lunch/{vote.uid}/"
            wait_until(lambda: _degraded(vote, "ExportFailed", why, "there is no such bucket"), "it says why")
            assert "exports" not in vote.status
            assert _stays_degraded(vote, 20), "also while it is tried again"
            assert vote.ledger(operator).get("final") is not None

            s3.bucket(bucket)
            place = f"2026/lunch/{vote.uid}"
            wait_until(lambda: vote.status.get("exports") == f"s3://{bucket}/{place}", "it is exported")
            assert s3.get(bucket, f"{place}/result.json") == vote.ledger(operator).get("final")
            vote.wait_("Degraded", "False")

            vote.change(exports={"url": f"s3://{bucket}/elsewhere"})
            moved = f"elsewhere/lunch/{vote.uid}"
            wait_until(lambda: vote.status.get("exports") == f"s3://{bucket}/{moved}", "it is exported anew")
            assert s3.get(bucket, f"{moved}/result.json") == s3.get(bucket, f"{place}/result.json")
        vote.delete()
        wait_until(lambda: vote.gone, "it is gone")
        assert s3.keys(bucket) == [f"{place}/result.csv", f"{place}/result.json"], "those of another URL stay"


def _stays_degraded(vote: Vote, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not _degraded(vote, "ExportFailed"):
            return False
        time.sleep(0.1)
    return True


def _degraded(vote: Vote, reason: str, *words: str) -> bool:
    """Asked once, so that reason and message are of one moment."""
    condition = vote.condition("Degraded")
    return condition.get("reason") == reason and all(word in condition["message"] for word in words)


def test_a_folder_of_one_machine_is_no_place_for_exports_of_a_cluster_and_stops_nobody(
    cluster: Cluster, backends: Backends, namespace: str, tmp_path: Path
) -> None:
    add_token_key(cluster, namespace)
    with Operator(cluster, backends, namespace, tmp_path), all_available(cluster.admin, namespace):
        vote = Vote(cluster, namespace, exports={"url": "file:///results"}).create()
        vote.wait_phase("Open")
        vote.wait_("Degraded", "True", "ExportFailed")
        assert "in a cluster: s3://bucket/folder" in vote.condition("Degraded")["message"]
        backends_secret = cluster.admin.get("v1", "Secret", "lunch-backends", namespace)
        assert base64.b64decode(backends_secret["data"]["redis-url"]).decode() == backends.redis_url


def ended(message: str | None, at: str, code: int = 2, reason: str = "Error") -> Manifest:
    terminated = {"exitCode": code, "finishedAt": at, "reason": reason}
    terminated |= {} if message is None else {"message": message}
    return {"status": {"containerStatuses": [{"state": {"terminated": terminated}}]}}


def test_the_last_words_of_a_pod_are_why_it_failed() -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"
    said = '{"event": "sealing"}\nthe result is sealed, but can\'t be exported: s3://a/b: access is denied\n'
    assert last_words([ended("other", early), ended(said, late)]).endswith("s3://a/b: access is denied")
    assert last_words([ended(said, early), ended(None, late, reason="OOMKilled")]) == "OOMKilled"
    assert last_words([ended("well", late, code=0)]) == ""
    assert last_words([{}, {"status": {"containerStatuses": [{"state": {"running": {}}}]}}]) == ""
