"""Trace context (W3C Trace Context, version 00): from the request into the record's headers.

A record's headers are in no digest and in no block: tally and recount never read them. `tracestate` and `baggage`
may say anything about a voter, so they end here. A trace id links a pseudonym in the log to whatever a tracing
system keeps of the request: to prevent that, send no `traceparent`, or strip it before ingest.
"""

import re
from collections.abc import Mapping
from typing import Final

HEADER: Final = "traceparent"
_VALID: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

Trace = list[tuple[str, str | bytes | None]]
"""Headers of a record, as the log's client takes them."""


def trace_of(headers: Mapping[str, str]) -> Trace | None:
    """Returns the headers of a request's records; None if it has no trace context, or an invalid one."""
    value = headers.get(HEADER)
    if value is None or not _VALID.fullmatch(value):
        return None
    return [(HEADER, value.encode())]


def trace_id(headers: Mapping[str, str]) -> str | None:
    """Returns the trace id for log lines."""
    return None if trace_of(headers) is None else headers[HEADER][3:35]
