"""What helm installed is whole, and meets the restricted standard because nothing else may run."""

import pytest

from e2e.deploy import NAMESPACE, RELEASE
from e2e.kube import Failed, apply, get, helm, items

PLAIN = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "one", "image": "nobody/nothing"}]}}


def test_helms_own_test_passes() -> None:
    assert "Phase:          Succeeded" in helm("test", RELEASE, "--namespace", NAMESPACE)


def test_a_pod_below_the_restricted_standard_is_refused(namespace: str) -> None:
    for where in (NAMESPACE, namespace):
        with pytest.raises(Failed, match=r'violates PodSecurity "restricted'):
            apply({**PLAIN, "metadata": {"name": "plain", "namespace": where}})


def test_two_operators_run_and_one_of_them_leads() -> None:
    pods = items("pods", NAMESPACE, "app.kubernetes.io/component=operator")
    names = {pod["metadata"]["name"] for pod in pods}
    leases = [lease["spec"]["holderIdentity"] for lease in items("leases", NAMESPACE)]
    assert len(names) == 2
    assert [holder for holder in leases if holder in names] != []


def test_a_session_that_makes_no_sense_is_refused_by_a_webhook_that_runs_in_a_pod(namespace: str) -> None:
    spec = {"ballot": {"type": "single", "options": [{"id": "a"}, {"id": "b"}]}, "recount": {"schedule": "often"}}
    whole = {
        "apiVersion": "psephos.dev/v1alpha1",
        "kind": "VotingSession",
        "spec": {**spec, "voters": {"eligibility": "open"}},
    }
    with pytest.raises(Failed, match=r"spec\.recount\.schedule: found 'often'"):
        apply({**whole, "metadata": {"name": "senseless", "namespace": namespace}})
    assert get("vs", "senseless", namespace) is None
