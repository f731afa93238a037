"""The public information on a session besides its results. Pure."""

from typing import Any

from psephos.domain.genesis import Genesis
from psephos.domain.session import Session
from psephos.formats.control import Control, Phase
from psephos.platform.clock import text_of


def session_info(
    session: Session, genesis: Genesis, control: Control | None, ingest_url: str = ""
) -> dict[str, Any]:
    """Returns title, options with labels, phase and times (RFC 3339, None if not set); `reason`: of the phase.

    `ingest_url`: where votes are taken, up to `/v1`; if empty, at the gateway's own address.
    """
    ballot, base = session.spec.ballot, f"/v1/sessions/{session.name}"
    return {
        "session": session.name,
        "uid": genesis.session,
        "title": session.title,
        "epoch": genesis.epoch,
        "phase": (Phase.PENDING if control is None else control.phase).value,
        "opensAt": None if control is None else _text(control.opens_at),
        "closesAt": None if control is None else _text(control.closes_at),
        "reason": None if control is None else control.reason or None,
        "ballot": {
            "type": ballot.type,
            "method": ballot.method,
            "min": ballot.min,
            "max": ballot.max,
            "scale": None if ballot.scale is None else {"min": ballot.scale.min, "max": ballot.scale.max},
            "options": [{"id": option, "label": label} for option, label in session.labels.items()],
        },
        "eligibility": session.spec.voters.eligibility,
        "segments": list(session.segment_names),
        "weighted": session.weighted,
        "revote": session.spec.voters.revote,
        "votesPerVoter": session.spec.voters.votes_per_voter,
        "visibility": session.spec.results.visibility,
        "publicKey": genesis.public_key,
        "receiptKey": genesis.receipt_key,
        "links": {
            "results": f"{base}/results",
            "live": f"{base}/live",
            "events": f"{base}/events",
            "receipts": f"{base}/receipts/{{receipt}}",
            "publication": f"{base}/publication",
            "page": f"/sessions/{session.name}",
            "vote": f"/sessions/{session.name}/vote",
            "votes": f"{ingest_url}{base}/votes",
            "tokens": f"{ingest_url}{base}/tokens" if session.spec.voters.eligibility == "open" else None,
        },
    }


def _text(moment_ms: int | None) -> str | None:
    return None if moment_ms is None else text_of(moment_ms)
