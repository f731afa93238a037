"""All problems of the read side: one table, from which responses and documentation are generated."""

from collections.abc import Mapping
from typing import Final

from psephos.http import problems
from psephos.http.problems import Kind

KINDS: Final[Mapping[str, Kind]] = {
    "malformed-request": Kind(
        400,
        "The request can't be read",
        "A header or a parameter has the wrong form, or the request is no HTTP.",
        "Mend what the detail names. Do not repeat it as it is.",
    ),
    "invalid-receipt": Kind(
        400,
        "This is not a receipt of this session",
        "It is cut off, mistyped or forged: no vote is behind it.",
        "Copy the receipt again, all of it.",
    ),
    "unknown-session": Kind(
        404,
        "There is no such session here",
        "A gateway serves one session, by its name and its unique id.",
        "Ask the gateway of that session.",
    ),
    "foreign-receipt": Kind(
        404,
        "This receipt is of another session",
        "It is genuine in form, but another session has issued it.",
        "Ask the gateway of that session.",
    ),
    "not-found": Kind(
        404,
        "There is nothing here",
        "The path is none of this door's.",
        "See `/v1/openapi.json` for those that are.",
    ),
    "not-published": Kind(
        404,
        "There is no final result yet",
        "The recount has not sealed it.",
        "Follow the results until the phase is Final, then ask again.",
    ),
    "method-not-allowed": Kind(
        405,
        "This method is not allowed",
        "This door only reads.",
        "Use GET or HEAD; `Allow` names what is allowed.",
    ),
    "log-mismatch": Kind(
        409,
        "The ledger holds another record where this receipt points",
        "The log and the ledger differ: this must never happen.",
        "Keep the receipt and tell the election's staff.",
    ),
    "rate-limited": Kind(
        429,
        "Too many requests",
        "This address has asked for more receipts than it may.",
        "Wait for `Retry-After` seconds.",
    ),
    "internal-error": Kind(
        500, "Something went wrong here", "An error of ours; it is logged.", "Try again: nothing was changed."
    ),
    "overloaded": Kind(
        503,
        "Too busy",
        "There are as many viewers or look-ups as this process takes.",
        "Wait for `Retry-After` seconds.",
    ),
    "ledger-unavailable": Kind(
        503,
        "The ledger does not answer",
        "The database that holds the ledger is away or slow.",
        "Wait for `Retry-After` seconds.",
    ),
    "results-unavailable": Kind(
        503,
        "There are no results yet",
        "The session has just begun, or this gateway has.",
        "Wait for `Retry-After` seconds.",
    ),
}


class Problem(problems.Problem):
    """A refused request; the problem is its only response."""

    kinds = KINDS
