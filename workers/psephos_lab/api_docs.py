"""Makes docs/api.md from the endpoints' own descriptions: `python -m psephos_lab.api_docs` writes it."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from psephos.domain.session import parse_session
from psephos.http.problems import TYPE_BASE, Kind
from psephos.roles.gateway import openapi as read_side
from psephos.roles.gateway.problems import KINDS as READ_KINDS
from psephos.roles.ingest import openapi as write_side
from psephos.roles.ingest.problems import KINDS as WRITE_KINDS

_HEAD = """# The HTTP API

<!-- Made by `python -m psephos_lab.api_docs`: change the tables in the code, not this page. -->

Two doors, each with a description of its own that fits the session which it serves: `GET /v1/openapi.json`
(OpenAPI 3.1) at both, and `GET /v1/asyncapi.json` (AsyncAPI 3) at the gateway for what it streams. Everything is
JSON in UTF-8. Errors are `application/problem+json` (RFC 9457): `type` is `{base}` and a
name of the tables below, stable for ever; `title`, `status` and `detail` are for people.

A vote may be sent again at any time with the same `Idempotency-Key`: it counts once. Whoever gets no answer, or
`unconfirmed`, does not know whether the vote counts, and sends it again with the same key until there is an
answer.

"""
_EXAMPLE = {
    "apiVersion": "psephos.dev/v1alpha1",
    "kind": "VotingSession",
    "metadata": {"name": "lunch"},
    "spec": {
        "title": "Lunch",
        "ballot": {
            "type": "single",
            "options": [{"id": "pizza", "label": "Pizza"}, {"id": "soup", "label": "Soup"}],
        },
        "voters": {"eligibility": "open"},
    },
}
_VOTE = """
```
POST /v1/sessions/lunch/votes
Authorization: Bearer <the voter's token>
Idempotency-Key: 5f0c7b2e1d
Content-Type: application/json

{"choices": ["pizza"]}
```
`choices` has ids of options, in order of preference where the ballot is ranked; a score ballot has
`{"scores": {"ada": 3}}` instead. An empty one is a blank ballot, where the session allows it. The answer is `202`
and `{"receipt": ..., "partition": ..., "offset": ..., "receivedAt": ...}`.
"""


def api_markdown() -> str:
    """Returns the page."""
    session = parse_session(_EXAMPLE)
    write, read = write_side.openapi(session), read_side.openapi(session, "lunch-1")
    parts = [
        _HEAD.format(base=TYPE_BASE),
        "## The write side: ingest\n\n",
        *_operations(write),
        _VOTE,
        "\n### Problems of the write side\n\n",
        *_problems(WRITE_KINDS),
        "\n## The read side: gateway\n\n",
        *_operations(read),
        *_streams(read_side.asyncapi(session)),
        "\nAnswers are public: `Access-Control-Allow-Origin: *`, never with credentials. `{session}` is the\n"
        "session's name or its unique id.\n",
        "\n### Problems of the read side\n\n",
        *_problems(READ_KINDS),
    ]
    return "".join(parts)


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    yield "| request | what | answers |\n|---|---|---|\n"
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            answers = ", ".join(sorted(operation["responses"]))
            yield f"| `{method.upper()} {path}` | {operation['summary']} | {answers} |\n"


def _streams(document: Mapping[str, Any]) -> Iterator[str]:
    for channel in document["channels"].values():
        path = channel["address"].replace("/lunch/", "/{session}/")
        yield f"\n**`GET {path}`**: {channel['title']}. {channel['description']}\n"


def _problems(kinds: Mapping[str, Kind]) -> Iterator[str]:
    yield "| type | status | what | cause | what to do |\n|---|---|---|---|---|\n"
    for slug, kind in kinds.items():
        yield f"| `{slug}` | {kind.status} | {kind.title} | {kind.cause} | {kind.remedy} |\n"


def main(path: Path = Path("docs/api.md")) -> None:
    path.write_text(api_markdown())
    sys.stderr.write(f"{path} written\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
