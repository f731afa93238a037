"""HTTP: one vote per request. `batch` has the other endpoint.

It uses aiohttp's low-level server without an application: two paths need no router, and that saves a tenth of the
work per request.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec
from aiohttp import StreamReader, web

from psephos.http.problems import MEDIA_TYPE
from psephos.platform.clock import now_ms
from psephos.platform.logs import get_logger
from psephos.roles.ingest import metrics, openapi
from psephos.roles.ingest.anonymous import SUBJECT_BYTES, AnonymousTokens
from psephos.roles.ingest.answers import fields, written
from psephos.roles.ingest.batch import BatchDoor
from psephos.roles.ingest.casting import JSON, Casting
from psephos.roles.ingest.eligibility import Eligibility
from psephos.roles.ingest.fairness import Fairness
from psephos.roles.ingest.gate import Gate, timestamp
from psephos.roles.ingest.intake import Intake
from psephos.roles.ingest.keys import UnknownKey
from psephos.roles.ingest.problems import Problem
from psephos.roles.ingest.requests import read_body
from psephos.roles.ingest.tracing import trace_id, trace_of
from psephos.roles.ingest.votelog import VoteLog

_ANY_ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}  # no cookies: the token is all that counts
_EXPOSED: Final = {
    **_ANY_ORIGIN,
    "Access-Control-Expose-Headers": "Retry-After, WWW-Authenticate, RateLimit, RateLimit-Policy",
}
_PREFLIGHT: Final = {
    **_ANY_ORIGIN,
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key",
    "Access-Control-Max-Age": "86400",
}
_EXPOSED_FIELDS: Final = fields(_EXPOSED)
_encode = msgspec.json.Encoder().encode
log = get_logger()

Answer = Callable[[bytes], None]
"""Takes a whole answer: head and body."""


class Doors:
    """Answers every request on this port. `draining`: each answer ends its connection from now on."""

    def __init__(
        self,
        name: str,
        *,
        description: dict[str, Any],
        gate: Gate,
        intake: Intake,
        eligibility: Eligibility,
        fairness: Fairness,
        votelog: VoteLog,
        batch: BatchDoor | None,
        anonymous: AnonymousTokens | None,
    ) -> None:
        self.draining = False
        self.votes_path = f"/v1/sessions/{name}/votes"
        self._batch_path = f"/v1/sessions/{name}/votes:batch"
        self._tokens_path = f"/v1/sessions/{name}/tokens"
        self._name = name
        self._description = _encode(description)
        self._gate = gate
        self._eligibility = eligibility
        self._fairness = fairness
        self._casting = Casting(gate=gate, intake=intake, fairness=fairness, votelog=votelog)
        self._batch = batch
        self._anonymous = anonymous

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self._answer(request)
        except Problem as problem:
            metrics.count(problem.slug)
            response = _problem_response(problem)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            bug = _bug(error, request.headers)
            metrics.count(bug.slug)
            response = _problem_response(bug)
        if self.draining:
            response.force_close()
        return response

    def drain(self) -> None:
        """Makes every answer end its connection from now on; batches take no more lines."""
        self.draining = True
        if self._batch is not None:
            self._batch.draining = True

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path
        if path != self.votes_path:
            path = request.path
        if path == self.votes_path:
            if request.method == "POST":
                return await self._vote(request)
            if request.method == "OPTIONS":
                return web.Response(status=204, headers=_PREFLIGHT)
            raise Problem("method-not-allowed", "votes are sent by POST", headers={"Allow": "POST, OPTIONS"})
        if path == self._batch_path and self._batch is not None:
            if request.method == "POST":
                return await self._batch.answer(request)
            raise Problem("method-not-allowed", "batches are sent by POST", headers={"Allow": "POST"})
        if path == self._tokens_path and self._anonymous is not None:
            if request.method == "POST":
                return self._token(request, self._anonymous)
            if request.method == "OPTIONS":
                return web.Response(status=204, headers=_PREFLIGHT)
            raise Problem("method-not-allowed", "tokens are got by POST", headers={"Allow": "POST, OPTIONS"})
        if path == openapi.DESCRIPTION_PATH:
            return self._describe(request)
        raise self._nothing_here(path)

    async def _vote(self, request: web.BaseRequest) -> web.Response:
        """Handles a vote from request to receipt. Everything cheap is checked before the body is read."""
        token, key = self._casting.admit(request.headers, request.remote, request.content_length or 0)
        voter = await self._eligibility.voter(token)
        pseudonym, own = self._casting.know(voter)
        body, trace = await read_body(request), trace_of(request.headers)
        self._casting.admit_now()
        told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._casting.cast(voter, pseudonym, body, key, trace, partial(_resolve, told))
        return web.Response(body=await told, status=202, headers={**_EXPOSED, **own}, content_type=JSON)

    def vote_at_once(
        self, headers: Mapping[str, str], remote: str | None, content: StreamReader, answer: Answer
    ) -> bool:
        """As `_vote`, if all of the request has arrived and there is nothing to wait for but the log.

        `answer` takes the answer, now or later. Returns False if the token's key has to be fetched first: then
        take the other way; nothing of `content` has been read.
        """
        try:
            token, key = self._casting.admit(headers, remote, content.total_bytes)
            voter = self._eligibility.verifier.verify(token, time.time())
            pseudonym, own = self._casting.know(voter)
            tell, body = partial(self._tell, answer, own), content.read_nowait()
            self._casting.cast(voter, pseudonym, body, key, trace_of(headers), tell)
        except UnknownKey as problem:
            if self._eligibility.issuer is not None:
                return False
            answer(self._refusal(problem))
        except Problem as problem:
            answer(self._refusal(problem))
        except Exception as error:
            answer(self._refusal(_bug(error, headers)))
        return True

    def _tell(self, answer: Answer, own: Mapping[str, str], told: bytes | Problem) -> None:
        if isinstance(told, Problem):
            answer(self._refusal(told))
        else:
            answer(written(202, f"{_EXPOSED_FIELDS}{fields(own)}{self._farewell}", told, JSON))

    def _refusal(self, problem: Problem) -> bytes:
        metrics.count(problem.slug)
        head = f"{_EXPOSED_FIELDS}{fields(problem.headers)}{self._farewell}"
        return written(problem.status, head, problem.encode(), MEDIA_TYPE)

    @property
    def _farewell(self) -> str:
        return "Connection: close\r\n" if self.draining else ""

    def _token(self, request: web.BaseRequest, anonymous: AnonymousTokens) -> web.Response:
        """Returns a browser's own token, in a session that is open to all."""
        self._gate.admit(wall_ms=now_ms(), mono=time.monotonic())
        self._fairness.admit_newcomer(request)
        closes_at = self._gate.closes_at
        closes_at_s = None if closes_at is None else -(-closes_at // 1000)
        token, expires_s = anonymous.mint(os.urandom(SUBJECT_BYTES), int(time.time()), closes_at_s)
        metrics.count_token()
        body = {"token": token, "expiresAt": timestamp(expires_s * 1000)}
        headers = {**_EXPOSED, "Cache-Control": "no-store"}
        return web.Response(body=_encode(body), status=201, headers=headers, content_type=JSON)

    def _describe(self, request: web.BaseRequest) -> web.Response:
        if request.method not in ("GET", "HEAD"):
            raise Problem("method-not-allowed", "the description is only read", headers={"Allow": "GET, HEAD"})
        return web.Response(body=self._description, headers=_ANY_ORIGIN, content_type=JSON)

    def _nothing_here(self, path: str) -> Problem:
        sessions, _, rest = path.removeprefix("/v1/sessions/").partition("/")
        if (
            path.startswith("/v1/sessions/")
            and sessions != self._name
            and rest in ("votes", "votes:batch", "tokens")
        ):
            return Problem("unknown-session", f"this door serves the session {self._name!r} only")
        return Problem("not-found", f"votes go to {self.votes_path}")


def _resolve(told: "asyncio.Future[bytes]", answer: bytes | Problem) -> None:
    """Resolves a waiting request, unless its client has gone."""
    if told.done():
        return
    if isinstance(answer, Problem):
        told.set_exception(answer)
    else:
        told.set_result(answer)


def _bug(error: Exception, headers: Mapping[str, str]) -> Problem:
    log.exception("request failed", kind=type(error).__name__, trace=trace_id(headers))
    return Problem("internal-error", "an error of ours; it has been logged")


def _problem_response(problem: Problem) -> web.Response:
    headers = {**_EXPOSED, **problem.headers}
    return web.Response(body=problem.encode(), status=problem.status, headers=headers, content_type=MEDIA_TYPE)
