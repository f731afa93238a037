"""The JSON schema of a result frame, for the API's descriptions. Pure."""

from collections.abc import Sequence

from psephos.domain.session import Session
from psephos.formats.frames import Frame
from psephos.http.openapi import COUNT, TEXT, Schema, nullable, object_of


def frame_schema(session: Session) -> Schema:
    """Returns the schema of a frame as it is served: the projector's members and the gateway's own `stale`."""
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
