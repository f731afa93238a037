"""The validating webhook's decision: what the parser refuses is refused at `kubectl apply`, with field and reason.

The schema and its CEL rules see single fields; this sees the whole session, by the same `parse_session` that every
role and the reconcile pass use. So the webhook may be down or absent: what gets past it is refused a moment later,
in the session's status. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psephos.domain.session import API_VERSION, KIND, Problem, Session, SessionError, parse_session
from psephos.platform.errors import PsephosError

REVIEW_VERSION = "admission.k8s.io/v1"
REFUSED, NOT_OURS = 422, 400  # as the API server's own validation; a request that does not belong here


class NotAReview(PsephosError, ValueError):
    """The document is not an AdmissionReview of this version; the message is for a person."""


def answer(document: object, now: datetime) -> dict[str, Any]:
    """Returns the AdmissionReview that answers an AdmissionReview. Raises NotAReview if `document` is not one."""
    if not isinstance(document, Mapping) or document.get("apiVersion") != REVIEW_VERSION:
        raise NotAReview(f"this door takes an AdmissionReview of {REVIEW_VERSION}")
    request = document.get("request")
    if not isinstance(request, Mapping) or not isinstance(request.get("uid"), str):
        raise NotAReview("this AdmissionReview has no request with a uid")
    return {
        "apiVersion": REVIEW_VERSION,
        "kind": "AdmissionReview",
        "response": {"uid": request["uid"], **judge(request, now)},
    }


def judge(request: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Returns `allowed`, with `status` if that is false and `warnings` if people should think twice."""
    kind = request.get("kind") or {}
    if (f"{kind.get('group')}/{kind.get('version')}", kind.get("kind")) != (API_VERSION, KIND):
        return _refusal(NOT_OURS, "BadRequest", f"this webhook judges {KIND} of {API_VERSION} only", ())
    new, old = request.get("object") or {}, request.get("oldObject") or {}
    if _settled(new, old):
        return {"allowed": True}
    try:
        session = parse_session({name: value for name, value in new.items() if name != "status"})
    except SessionError as error:
        return _refusal(REFUSED, "Invalid", "; ".join(map(str, error.problems)), error.problems)
    warnings = list(_warnings(session, now))
    return {"allowed": True, **({"warnings": warnings} if warnings else {})}


def _settled(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Returns whether the object is being deleted or its spec is unchanged: its finalizers and annotations must
    stay changeable, even if an older version let something through."""
    deleted = (new.get("metadata") or {}).get("deletionTimestamp") is not None
    return deleted or (bool(old) and new.get("spec") == old.get("spec"))


def _refusal(code: int, reason: str, message: str, problems: tuple[Problem, ...]) -> dict[str, Any]:
    causes = [
        {"reason": "FieldValueInvalid", "field": problem.field, "message": problem.message} for problem in problems
    ]
    details = {"details": {"group": API_VERSION.split("/")[0], "kind": KIND, "causes": causes}} if causes else {}
    status = {"status": "Failure", "code": code, "reason": reason, "message": message, **details}
    return {"allowed": False, "status": status}


def _warnings(session: Session, now: datetime) -> list[str]:
    spec, found = session.spec, []
    if spec.closes_at is not None and spec.closes_at <= now:
        found.append("spec.closesAt: lies in the past, so the session closes as soon as it is there")
    if spec.voters.eligibility == "open":
        found.append("spec.voters.eligibility: open is worth one vote a browser, not one a person")
    return found
