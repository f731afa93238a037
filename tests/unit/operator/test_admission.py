"""The webhook's judgement: what it refuses and why, what it lets pass, and what it is not asked."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from psephos_operator.admission.certificates import KEPT_AUTHORITIES, LIFE, RENEWED_BEFORE, Bundle, is_due, renewed
from psephos_operator.admission.review import NotAReview, answer

NOW = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)

SESSION: dict[str, Any] = {
    "apiVersion": "psephos.dev/v1alpha1",
    "kind": "VotingSession",
    "metadata": {"name": "final"},
    "spec": {
        "ballot": {"type": "single", "options": [{"id": "ada"}, {"id": "bob"}]},
        "voters": {"tokens": {"issuer": "i", "audience": "a"}},
    },
}


def session(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SESSION), "spec": {**copy.deepcopy(SESSION["spec"]), **changes}}


def review(new: Any, old: Any = None, kind: str = "VotingSession") -> dict[str, Any]:
    request = {
        "uid": "u-1",
        "kind": {"group": "psephos.dev", "version": "v1alpha1", "kind": kind},
        "operation": "CREATE" if old is None else "UPDATE",
        "object": new,
        "oldObject": old,
    }
    document = answer({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}, NOW)
    assert document["response"]["uid"] == "u-1"
    return dict(document["response"])


def test_a_good_session_is_allowed_without_a_word() -> None:
    assert review(session()) == {"uid": "u-1", "allowed": True}


def test_what_depends_on_two_fields_is_refused_with_each_field_and_its_reason() -> None:
    wrong = session(ballot={"type": "single", "options": [{"id": "ada"}], "scale": {"min": 0, "max": 5}})
    refused = review(wrong)
    assert not refused["allowed"]
    status = refused["status"]
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert [cause["field"] for cause in status["details"]["causes"]] == ["spec.ballot.scale"]
    assert status["message"].startswith("spec.ballot.scale: ")


def test_status_is_not_the_parsers_business() -> None:
    assert review({**session(), "status": {"phase": "Open"}})["allowed"]


def test_a_change_of_the_spec_is_judged_again() -> None:
    assert not review(session(recount={"schedule": "often"}), session())["allowed"]


def test_an_object_that_was_let_in_before_can_still_be_annotated_and_deleted() -> None:
    wrong = session(recount={"schedule": "often"})
    annotated = {**wrong, "metadata": {"name": "final", "annotations": {"a": "b"}}}
    assert review(annotated, wrong)["allowed"]
    changed = session(recount={"schedule": "seldom"})
    changed["metadata"]["deletionTimestamp"] = "2026-11-23T20:00:00Z"
    assert review(changed, wrong)["allowed"]


def test_a_closing_time_that_is_past_is_allowed_with_a_warning() -> None:
    warned = review(session(closesAt="2026-11-23T19:59:59Z"))
    assert warned["allowed"]
    assert "spec.closesAt" in warned["warnings"][0]


def test_open_eligibility_is_allowed_with_a_warning() -> None:
    (warning,) = review(session(voters={"eligibility": "open"}))["warnings"]
    assert "one vote a browser" in warning


def test_another_kind_is_never_allowed() -> None:
    refused = review(session(), kind="Deployment")
    assert not refused["allowed"]
    assert refused["status"]["code"] == 400


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"apiVersion": "admission.k8s.io/v1beta1"},
        {"apiVersion": "admission.k8s.io/v1", "request": {}},
    ],
)
def test_what_is_no_review_is_an_error_and_not_an_answer(document: object) -> None:
    with pytest.raises(NotAReview):
        answer(document, NOW)


def test_a_certificate_is_due_before_it_expires_or_when_a_host_is_missing() -> None:
    bundle = renewed(None, ["webhook.psephos.svc", "127.0.0.1"], NOW)
    assert bundle.hosts == {"webhook.psephos.svc", "127.0.0.1"}
    assert not is_due(bundle, ["webhook.psephos.svc"], NOW)
    assert not is_due(bundle, ["127.0.0.1"], NOW + LIFE - RENEWED_BEFORE - timedelta(minutes=1))
    assert is_due(bundle, ["127.0.0.1"], NOW + LIFE - RENEWED_BEFORE + timedelta(minutes=1))
    assert is_due(bundle, ["other.psephos.svc"], NOW)
    assert is_due(None, ["127.0.0.1"], NOW)
    assert is_due(Bundle(b"no certificate", b"", b""), ["127.0.0.1"], NOW)


def test_the_authorities_before_stay_trusted_until_they_expire_and_not_for_ever() -> None:
    bundles = [renewed(None, ["h"], NOW)]
    for day in range(1, KEPT_AUTHORITIES + 2):
        bundles.append(renewed(bundles[-1], ["h"], NOW + timedelta(days=day)))
    newest = bundles[-1].authorities.decode()
    assert newest.count("BEGIN CERTIFICATE") == KEPT_AUTHORITIES
    assert bundles[-2].authorities.decode().startswith(_first(newest, 1))
    assert renewed(bundles[-1], ["h"], NOW + LIFE * 2).authorities.count(b"BEGIN CERTIFICATE") == 1


def _first(pem: str, skipped: int) -> str:
    end = "-----END CERTIFICATE-----\n"
    return pem.split(end)[skipped] + end
