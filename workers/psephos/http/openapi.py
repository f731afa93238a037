"""Building blocks of the API's descriptions (OpenAPI 3.1, AsyncAPI 3). Pure.

Each role describes itself, using its own table of problems and the session's rules: see
`psephos.roles.ingest.openapi` and `psephos.roles.gateway.openapi`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psephos.http.problems import MEDIA_TYPE, TYPE_BASE, Kind

Schema = dict[str, Any]
API_VERSION: Final = "1"
DESCRIPTION_PATH: Final = "/v1/openapi.json"
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


def document(title: str, description: str, paths: Mapping[str, Any], **components: Any) -> Schema:
    """A whole OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
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
    """A response with a body. Header names are given with underscores for hyphens."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return {
        "description": description,
        "headers": {name: {"description": text, "schema": TEXT} for name, text in named.items()},
        "content": {media: {"schema": schema}},
    }


def problems(kinds: Mapping[str, Kind], slugs: Sequence[str]) -> dict[str, Schema]:
    """Responses by status, for these problem types."""
    by_status: dict[int, list[str]] = {}
    for slug in slugs:
        by_status.setdefault(kinds[slug].status, []).append(slug)
    return {str(status): _problem(kinds, found) for status, found in sorted(by_status.items())}


def _problem(kinds: Mapping[str, Kind], slugs: Sequence[str]) -> Schema:
    told = "; ".join(f"`{slug}`: {kinds[slug].title}. {kinds[slug].remedy}" for slug in slugs)
    schema = {
        "type": "object",
        "properties": {
            "type": {"enum": [TYPE_BASE + slug for slug in slugs]},
            "title": {"enum": [kinds[slug].title for slug in slugs]},
            "status": {"const": kinds[slugs[0]].status},
            "detail": TEXT,
        },
        "required": ["type", "title", "status", "detail"],
    }
    headers = {name: {"description": text, "schema": TEXT} for name, text in _HEADERS.items()}
    return {"description": told, "headers": headers, "content": {MEDIA_TYPE: {"schema": schema}}}


def path_parameter(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}
