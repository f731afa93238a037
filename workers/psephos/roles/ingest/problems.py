"""All problems of the write side: one table, from which responses and documentation are generated."""

from collections.abc import Mapping
from typing import Final

from psephos.http import problems
from psephos.http.problems import Kind

KINDS: Final[Mapping[str, Kind]] = {
    "malformed-request": Kind(
        400,
        "The request can't be read",
        "The body is no JSON object, a member is there twice, or a header has the wrong form.",
        "Mend what the detail names. Do not repeat it as it is.",
    ),
    "idempotency-key-required": Kind(
        400,
        "An Idempotency-Key is required",
        "A voter of this session may have several votes, so a retry must be told from a new vote.",
        "Send a new `Idempotency-Key` with each new vote, and the same one with each retry.",
    ),
    "invalid-token": Kind(
        401,
        "The voter token is not valid",
        "It is missing, expired, not yet valid, not signed by the session's issuer, or meant for somebody else.",
        "Get a new token from the issuer.",
    ),
    "unauthorized": Kind(
        401,
        "The gateway credential is not valid",
        "The batch door takes the session's gateway credential only.",
        "Send the credential as a bearer token.",
    ),
    "not-eligible": Kind(
        403,
        "This voter may not vote",
        "The token is genuine, but it gives no vote here: its weight is 0, or the roll has no such voter.",
        "Ask those who keep the roll. Another try will not help.",
    ),
    "unknown-session": Kind(
        404,
        "There is no such session here",
        "This door serves one session: see the detail.",
        "Send the vote to the door of its session.",
    ),
    "not-found": Kind(
        404,
        "There is nothing here",
        "The path is none of this door's.",
        "See `/v1/openapi.json` for those that are.",
    ),
    "method-not-allowed": Kind(
        405, "This method is not allowed", "Votes are sent by POST.", "`Allow` names the methods that are allowed."
    ),
    "request-timeout": Kind(
        408, "The request did not arrive in time", "The body came too slowly. Nothing was recorded.", "Try again."
    ),
    "session-not-open": Kind(
        409,
        "Voting has not begun",
        "The session is not open so far. Nothing was recorded.",
        "Try again at `opensAt`, where that is known.",
    ),
    "session-closed": Kind(
        409, "Voting is over", "Nothing was recorded, and nothing more will be.", "There is nothing to do."
    ),
    "idempotency-key-in-use": Kind(
        409,
        "The same request is under way",
        "It came with this `Idempotency-Key` a moment ago and has no answer yet.",
        "Wait for its answer, or try again after `Retry-After` seconds.",
    ),
    "body-too-large": Kind(
        413,
        "The body is too large",
        "Nothing was read of it. `limit` is in bytes.",
        "Send one vote a request, or lines of at most that length.",
    ),
    "unsupported-media-type": Kind(
        415,
        "This media type is not supported",
        "One vote is application/json, a batch application/x-ndjson, both without Content-Encoding.",
        "Send the right `Content-Type`.",
    ),
    "invalid-ballot": Kind(
        422,
        "The ballot is not valid",
        "It breaks a rule of the session; `reason` is a stable code of the rule. Nothing was recorded.",
        "Change the ballot.",
    ),
    "idempotency-key-reused": Kind(
        422,
        "This Idempotency-Key belongs to another vote",
        "It came with another body before. Nothing was recorded of this one.",
        "A retry repeats the very same body; a new vote needs a new key.",
    ),
    "rate-limited": Kind(
        429,
        "Too many requests",
        "The voter or the address has used up its share for now. Nothing was recorded.",
        "Wait for `Retry-After` seconds; `RateLimit` names the limit that was reached.",
    ),
    "internal-error": Kind(
        500,
        "Something went wrong here",
        "An error of ours; it is logged. The vote may or may not count.",
        "Try again with the same `Idempotency-Key`: that is safe.",
    ),
    "session-paused": Kind(
        503,
        "Voting is paused",
        "Nothing was recorded. Voting goes on later.",
        "Wait for `Retry-After` seconds, and longer.",
    ),
    "overloaded": Kind(
        503,
        "Too busy to take this vote",
        "Refused before it was recorded: the queue is full, or the log is away.",
        "Wait for `Retry-After` seconds, then try again at a random time.",
    ),
    "unconfirmed": Kind(
        503,
        "The vote was sent to the log, but not confirmed in time",
        "It may count, or not.",
        "Try again with the same `Idempotency-Key`; where voters have one vote, any retry is safe.",
    ),
}


class Problem(problems.Problem):
    """The problem of a request, or of one line of a batch, that gets no 202."""

    kinds = KINDS


def invalid_token(detail: str) -> Problem:
    """Returns a 401 with the challenge of RFC 6750."""
    challenge = 'Bearer realm="psephos", error="invalid_token"'
    return Problem("invalid-token", detail, headers={"WWW-Authenticate": challenge})


def busy(slug: str, detail: str, retry_after_s: int = 1) -> Problem:
    """Returns a temporary problem, with `Retry-After` in whole seconds."""
    return Problem(slug, detail, retry_after_s=retry_after_s)
