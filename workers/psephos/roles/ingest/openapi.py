"""The write side as OpenAPI 3.1, served at `/v1/openapi.json`: its ballots, all answers, all problems."""

from typing import Any, Final

from psephos.domain.session import Session
from psephos.http.openapi import (
    COUNT,
    RECEIPT,
    TEXT,
    TIME,
    Schema,
    answer,
    document,
    object_of,
    path_parameter,
    problems,
)
from psephos.http.openapi import DESCRIPTION_PATH as DESCRIPTION_PATH
from psephos.roles.ingest.batch import LINE_LIMIT, MEDIA_TYPES
from psephos.roles.ingest.problems import KINDS

_ALWAYS: Final = ("not-found", "unknown-session", "method-not-allowed", "internal-error")
_PHASES: Final = ("session-not-open", "session-closed", "session-paused", "overloaded")
VOTE_PROBLEMS: Final = (
    *_ALWAYS, *_PHASES,
    "malformed-request", "idempotency-key-required", "invalid-token", "not-eligible", "request-timeout",
    "idempotency-key-in-use", "body-too-large", "unsupported-media-type", "invalid-ballot",
    "idempotency-key-reused", "rate-limited", "unconfirmed",
)  # fmt: skip
BATCH_PROBLEMS: Final = (*_ALWAYS, *_PHASES, "unauthorized", "unsupported-media-type", "rate-limited")
TOKEN_PROBLEMS: Final = (*_ALWAYS, *_PHASES, "rate-limited")
_RATE: Final = {"RateLimit": "what is left of this voter's limit", "RateLimit_Policy": "this voter's limit"}
_ABOUT: Final = (
    "The write side: votes come in here. A `202` means that the vote is in the log for good; its receipt says"
    " later, at the read side, what became of it. A vote may be sent again with the same `Idempotency-Key`."
)


def openapi(session: Session) -> Schema:
    """Returns the document of one session."""
    parameters = [path_parameter("session", {"const": session.name}, "the session's name")]
    base = "/v1/sessions/{session}"
    paths: dict[str, Any] = {
        f"{base}/votes": {"parameters": parameters, "post": _vote(session)},
        f"{base}/votes:batch": {"parameters": parameters, "post": _batch()},
        DESCRIPTION_PATH: {"get": _itself()},
    }
    if session.spec.voters.eligibility == "open":
        paths[f"{base}/tokens"] = {"parameters": parameters, "post": _token()}
    bearer = {"type": "http", "scheme": "bearer"}
    schemes = {
        "voter": {**bearer, "bearerFormat": "JWT", "description": "the voter's token"},
        "gateway": {**bearer, "description": "the session's gateway credential"},
    }
    return document(f"Psephos, write side: {session.title}", _ABOUT, paths, securitySchemes=schemes)


def ballot_schema(session: Session) -> Schema:
    """Returns the schema of a ballot as it is sent. Ingest checks the same rules with code of its own."""
    ballot = session.spec.ballot
    ids = list(session.option_ids)
    if ballot.type == "score":
        assert ballot.scale is not None
        score = {"type": "integer", "minimum": ballot.scale.min, "maximum": ballot.scale.max}
        limits = {"minProperties": ballot.min, "maxProperties": ballot.max}
        scores = {
            "type": "object",
            "properties": dict.fromkeys(ids, score),
            "additionalProperties": False,
            **limits,
        }
        return object_of(scores=scores)
    limits = {"minItems": ballot.min, "maxItems": ballot.max}
    return object_of(choices={"type": "array", "items": {"enum": ids}, "uniqueItems": True, **limits})


def _vote(session: Session) -> Schema:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": session.needs_idempotency_key,
        "schema": {"type": "string", "pattern": r"^[!#-\[\]-~]{1,128}$"},
        "description": "a new one with each new vote, the same one with each retry",
    }
    accepted = object_of(receipt=RECEIPT, partition=COUNT, offset=COUNT, receivedAt=TIME)
    return {
        "operationId": "castVote",
        "summary": "Cast a vote",
        "security": [{"voter": []}],
        "parameters": [key],
        "requestBody": {"required": True, "content": {"application/json": {"schema": ballot_schema(session)}}},
        "responses": {
            "202": answer("The vote is in the log; this is its receipt.", accepted, **_RATE),
            **problems(KINDS, VOTE_PROBLEMS),
        },
    }


def _batch() -> Schema:
    lines = {"type": "string", "description": "newline-delimited JSON, one answer for each line, in their order"}
    media = MEDIA_TYPES[0]
    return {
        "operationId": "castVotes",
        "summary": "Cast many votes, from a gateway that the session trusts",
        "description": "A line is a ballot with `token`, or with `subject` and, where the session has them,"
        " `weight` and `segment`; and an `idempotencyKey`, so that lines without an answer can be sent again. An"
        " answer line has `line` and `status`, and the members of a 202 or of a problem. A line has at most"
        f" {LINE_LIMIT} bytes. This door answers 404 unless the session has a gateway credential.",
        "security": [{"gateway": []}],
        "requestBody": {"required": True, "content": {media: {"schema": lines}}},
        "responses": {
            "200": answer("An answer for each line.", TEXT, media=media),
            **problems(KINDS, BATCH_PROBLEMS),
        },
    }


def _token() -> Schema:
    return {
        "operationId": "newToken",
        "summary": "Get this browser's own token, in a session that is open to all",
        "responses": {
            "201": answer("A token with a random subject.", object_of(token=TEXT, expiresAt=TIME)),
            **problems(KINDS, TOKEN_PROBLEMS),
        },
    }


def _itself() -> Schema:
    return {
        "operationId": "describe",
        "summary": "This description",
        "responses": {
            "200": answer("OpenAPI 3.1", {"type": "object"}),
            **problems(KINDS, ("method-not-allowed", "internal-error")),
        },
    }
