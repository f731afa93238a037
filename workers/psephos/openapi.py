"""The building blocks of the API's descriptions (OpenAPI 3.1, AsyncAPI 3). Pure.

Each door describes itself, from its own table of problems and the session's rules: see `psephos.ingest.openapi`
and `psephos.gateway.openapi`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from psephos.codec.frames import Frame
from psephos.session import Session

Schema = dict[str, Any]
API_VERSION: Final = "1"
DESCRIPTION_PATH: Final = "/v1/openapi.json"
PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
TEXT: Final[Schema] = {"type": "string"}
RECEIPT: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "description": "base64url"}
_HEADERS: Final = {
    "Retry-After": "seconds until another try makes sense",
    "WWW-Authenticate": "which credential is needed (RFC 6750)",
    "Allow": "the methods that are allowed",
    "RateLimit": "what is left of a limit (draft-ietf-httpapi-ratelimit-headers)",
    "RateLimit-Policy": "the limits that hold",
}


class Kind(Protocol):
    """A row of a door's table of problems."""

    @property
    def status(self) -> int: ...
    @property
    def title(self) -> str: ...
    @property
    def cause(self) -> str: ...
    @property
    def remedy(self) -> str: ...


def document(
    session: Session, title: str, description: str, paths: Mapping[str, Any], **components: Any
) -> Schema:
    """A whole OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{title}: {session.title}",
            "version": API_VERSION,
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": components,
    }


def object_of(*optional: str, **members: Schema) -> Schema:
    """An object with exactly these members; those in `optional` may be missing."""
    required = [name for name in members if name not in optional]
    return {"type": "object", "properties": members, "required": required, "additionalProperties": False}


def nullable(schema: Schema) -> Schema:
    return {"oneOf": [schema, {"type": "null"}]}


def answer(description: str, schema: Schema, *, media: str = "application/json", **headers: str) -> Schema:
    """A response with a body. Headers are given with underscores for hyphens."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return {
        "description": description,
        "headers": {name: {"description": text, "schema": TEXT} for name, text in named.items()},
        "content": {media: {"schema": schema}},
    }


def problems(kinds: Mapping[str, Kind], base: str, slugs: Sequence[str]) -> dict[str, Schema]:
    """Responses by status, for these problem types."""
    by_status: dict[int, list[str]] = {}
    for slug in slugs:
        by_status.setdefault(kinds[slug].status, []).append(slug)
    return {str(status): _problem(kinds, base, found) for status, found in sorted(by_status.items())}


def _problem(kinds: Mapping[str, Kind], base: str, slugs: Sequence[str]) -> Schema:
    told = "; ".join(f"`{slug}`: {kinds[slug].title}. {kinds[slug].remedy}" for slug in slugs)
    schema = {
        "type": "object",
        "properties": {
            "type": {"enum": [base + slug for slug in slugs]},
            "title": {"enum": [kinds[slug].title for slug in slugs]},
            "status": {"const": kinds[slugs[0]].status},
            "detail": TEXT,
        },
        "required": ["type", "title", "status", "detail"],
    }
    headers = {name: {"description": text, "schema": TEXT} for name, text in _HEADERS.items()}
    return {"description": told, "headers": headers, "content": {PROBLEM_MEDIA_TYPE: {"schema": schema}}}


def path_parameter(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def frame_schema(session: Session) -> Schema:
    """A result frame as the gateway serves it: what the projector wrote, and the gateway's own `stale`."""
    amounts = _by_name(session.option_ids, {"type": "number"})
    rejected = {"type": "object", "additionalProperties": COUNT}
    members = {
        "session": TEXT,
        "epoch": {"type": "string", "description": "another one means: forget what you have and start anew"},
        "version": {**COUNT, "description": "grows within an epoch; the greatest wins"},
        "phase": TEXT,
        "totals": nullable({**amounts, "description": "by option; null under embargo"}),
        "turnout": object_of(
            received=COUNT, accepted=COUNT, duplicate=COUNT, superseded=COUNT, rejected=rejected, voters=COUNT
        ),
        "asOf": {**COUNT, "description": "milliseconds since 1970"},
        "lagMs": {**COUNT, "description": "how long the oldest record that is not in it had been waiting"},
        "final": {"type": "boolean"},
        "segments": nullable(_by_name(session.segment_names, amounts)),
        "outcome": nullable(_outcome(amounts)),
        "closesAt": nullable({**COUNT, "description": "milliseconds since 1970"}),
        "stale": {"type": "boolean", "description": "the figures may be behind"},
    }
    missing = set(map(_camel, Frame.__struct_fields__)) ^ (set(members) - {"stale"})
    if missing:
        raise ValueError(f"the frame's description and the frame differ in {sorted(missing)}")
    return object_of(**members)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _by_name(names: Sequence[str], schema: Schema) -> Schema:
    return {"type": "object", "properties": dict.fromkeys(names, schema), "additionalProperties": False}


def _outcome(amounts: Schema) -> Schema:
    options = {"type": "array", "items": TEXT}
    turn = object_of(tally=amounts, eliminated=options, exhausted={"type": "number"})
    tie = object_of(round=COUNT, tied=options, chosen=TEXT, purpose=TEXT, rule=TEXT)
    return object_of(
        method=TEXT,
        winners=options,
        rounds={"type": "array", "items": turn},
        tieBreaks={"type": "array", "items": tie},
    )
