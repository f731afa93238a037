"""For schemathesis: how a batch is written, and that each new vote has a new key."""

import re
import uuid
from typing import Any

import schemathesis

_KEY = re.compile(r"[!#-\[\]-~]{1,128}")


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context: schemathesis.SerializationContext, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@schemathesis.hook
def before_call(
    _context: schemathesis.HookContext, case: schemathesis.Case[Any], _arguments: dict[str, object]
) -> None:
    """A key that fits its schema is replaced: the examples share a few, and another body under one is refused."""
    key = case.headers.get("Idempotency-Key") if case.headers else None
    if isinstance(key, str) and _KEY.fullmatch(key):
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
