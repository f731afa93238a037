"""The read side as OpenAPI 3.1 and, for its streams, AsyncAPI 3: served at `/v1/openapi.json` and
`/v1/asyncapi.json`."""

from typing import Any, Final

from psephos.domain.session import Session
from psephos.formats.control import Phase
from psephos.http.openapi import (
    API_VERSION,
    COUNT,
    RECEIPT,
    TEXT,
    TIME,
    Schema,
    answer,
    document,
    nullable,
    object_of,
    path_parameter,
    problems,
)
from psephos.http.openapi import DESCRIPTION_PATH as DESCRIPTION_PATH
from psephos.roles.gateway.frame_schema import frame_schema
from psephos.roles.gateway.problems import KINDS

ASYNCAPI_PATH: Final = "/v1/asyncapi.json"
_ALWAYS: Final = ("malformed-request", "unknown-session", "not-found", "method-not-allowed", "internal-error")
_LEDGER: Final = ("overloaded", "ledger-unavailable")
PROBLEMS: Final = {
    "info": _ALWAYS,
    "results": (*_ALWAYS, "results-unavailable"),
    "receipt": (
        *_ALWAYS, *_LEDGER, "invalid-receipt", "foreign-receipt", "log-mismatch", "rate-limited",
    ),
    "publication": (*_ALWAYS, *_LEDGER, "not-published"),
    "itself": ("method-not-allowed", "internal-error"),
}  # fmt: skip
_ABOUT: Final = (
    "The read side: results, receipts and the final publication. `/live` (WebSocket) and `/events` (server-sent"
    f" events) are described by AsyncAPI at `{ASYNCAPI_PATH}`. All of it is public and only read."
)
_KEY: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_SINCE: Final = {
    "type": "string",
    "pattern": "^[0-9a-f]{1,64}:(0|[1-9][0-9]{0,18})$",
    "description": "`epoch:version` of the newest frame that you have: nothing older is sent",
}


def openapi(session: Session, uid: str) -> Schema:
    """Returns the OpenAPI document of one session; `uid`: its unique id, which addresses it as well."""
    parameters = [path_parameter("session", {"enum": [session.name, uid]}, "the session's name or unique id")]
    base = "/v1/sessions/{session}"
    cached = {"ETag": "changes with every byte", "Cache_Control": "how long it may be kept"}
    operations: dict[str, tuple[str, str, Schema]] = {
        "info": ("", "Title, options, phase and times", answer("The session.", _info(session))),
        "results": ("/results", "The newest results", answer("A frame.", frame_schema(session), **cached)),
        "receipt": ("/receipts/{receipt}", "What became of a vote", answer("The vote's class.", _found())),
        "publication": ("/publication", "The signed final result", answer("The document.", _publication())),
    }
    paths: dict[str, Any] = {}
    for name, (path, summary, answered) in operations.items():
        responses = {"200": answered, **problems(KINDS, PROBLEMS[name])}
        if name == "results":
            responses["304"] = {"description": "Nothing has changed since the ETag that was sent."}
        own = [path_parameter("receipt", RECEIPT, "a receipt")] if name == "receipt" else []
        get = {"operationId": name, "summary": summary, "responses": responses}
        paths[base + path] = {"parameters": [*parameters, *own], "get": get}
    for path, what in ((DESCRIPTION_PATH, "OpenAPI 3.1"), (ASYNCAPI_PATH, "AsyncAPI 3")):
        responses = {"200": answer(what, {"type": "object"}), **problems(KINDS, PROBLEMS["itself"])}
        paths[path] = {
            "get": {
                "operationId": what.split()[0].lower(),
                "summary": f"This API as {what}",
                "responses": responses,
            }
        }
    return document(f"Psephos, read side: {session.title}", _ABOUT, paths)


def asyncapi(session: Session) -> Schema:
    """Returns the AsyncAPI document: the two streams of result frames."""
    address = f"/v1/sessions/{session.name}"
    channels = {
        "live": {
            "address": f"{address}/live",
            "title": "WebSocket",
            "description": "Each message is a whole frame; the newest wins. The server pings. It closes with 1012"
            " (restart) or 1013 (try again later) and the reason `retry=<ms>`: when to come back. After any other"
            " loss come back at a random time below a limit that doubles.",
            "messages": {"frame": {"$ref": "#/components/messages/frame"}},
            "bindings": {
                "ws": {"method": "GET", "query": {"type": "object", "properties": {"since": _SINCE}}},
            },
        },
        "events": {
            "address": f"{address}/events",
            "title": "Server-sent events",
            "description": "`text/event-stream`; the id of an event is `epoch:version`, its data is a whole frame."
            " `Last-Event-ID` or `?since=` resumes. `204` answers whoever has the final frame: there is no more.",
            "messages": {"frame": {"$ref": "#/components/messages/frame"}},
        },
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"Psephos, live results: {session.title}",
            "version": API_VERSION,
            "description": "Result frames as they come. A frame is a full snapshot: (epoch, version) orders them.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            name: {
                "action": "send",
                "channel": {"$ref": f"#/channels/{name}"},
                "summary": "Sends the newest frame at once, and newer ones as they come",
                "messages": [{"$ref": f"#/channels/{name}/messages/frame"}],
            }
            for name in channels
        },
        "components": {
            "messages": {"frame": {"title": "Result frame", "payload": {"$ref": "#/components/schemas/frame"}}},
            "schemas": {"frame": frame_schema(session)},
        },
    }


def _info(session: Session) -> Schema:
    text, times = TEXT, nullable(TIME)
    scale = nullable(object_of(min={"type": "integer"}, max={"type": "integer"}))
    options = {"type": "array", "items": object_of(id=text, label=text)}
    ballot = object_of(
        type={"const": session.spec.ballot.type}, method=text, min=COUNT, max=COUNT, scale=scale, options=options
    )
    names = ("results", "live", "events", "receipts", "publication", "page", "vote", "votes")
    links = object_of(**dict.fromkeys(names, text), tokens=nullable(text))
    return object_of(
        session=text,
        uid=text,
        title=text,
        epoch=text,
        phase={"enum": [phase.value for phase in Phase]},
        opensAt=times,
        closesAt=times,
        reason={**nullable(text), "description": "Why the session is void, or paused"},
        ballot=ballot,
        eligibility=text,
        segments={"type": "array", "items": text},
        weighted={"type": "boolean"},
        revote=text,
        votesPerVoter=COUNT,
        visibility=text,
        publicKey={**_KEY, "description": "Ed25519, of the final result"},
        receiptKey={**_KEY, "description": "Ed25519, of the receipts"},
        links=links,
    )


def _found() -> Schema:
    status = {
        "enum": ["pending", "counted", "duplicate", "superseded", "rejected"],
        "description": "duplicate: an earlier vote of this voter counts, or this very vote, written down twice",
    }
    return object_of("reason", status=status, partition=COUNT, offset=COUNT, reason=TEXT)


def _publication() -> Schema:
    required = ["session", "name", "epoch", "version", "state", "turnout", "publicKey", "signature"]
    return {"type": "object", "properties": {"state": TEXT, "signature": TEXT}, "required": required}
