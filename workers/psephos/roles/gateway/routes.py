"""The HTTP surface: each handler parses, queries, responds."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from aiohttp import ETag, web
from aiohttp.typedefs import Handler

from psephos.adapters.dynamodb import LedgerMissing, LedgerUnavailable
from psephos.formats.control import Control
from psephos.http.problems import MEDIA_TYPE
from psephos.http.rate_limit import Limit, LimitReached, client_of
from psephos.platform.logs import get_logger
from psephos.roles.gateway import metrics, openapi
from psephos.roles.gateway.fanout import Hub
from psephos.roles.gateway.info import session_info
from psephos.roles.gateway.pages import Page, load_pages
from psephos.roles.gateway.problems import Problem
from psephos.roles.gateway.receipts import Receipts
from psephos.roles.gateway.viewers import serve_events, serve_live
from psephos.runtime.bootstrap import Context

RESULTS_CACHE = "public, max-age=1, stale-while-revalidate=5"
PAGES_CACHE = "public, max-age=60"
PUBLICATION_CACHE = "public, max-age=60"
LEDGER_THREADS = 8
MOST_WAITING = 256  # calls to the ledger in the queue before 503
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src {}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_Answer = TypeVar("_Answer")
log = get_logger()


class Doors:
    """The handlers of one session."""

    def __init__(self, context: Context, hub: Hub) -> None:
        self._context = context
        self._hub = hub
        self._names = {context.session.name, context.settings.session_uid}
        self._pages = load_pages(context.session)
        self._ingest_url = (context.settings.ingest_url or "").rstrip("/")
        self._headers = {**SECURITY_HEADERS, "Content-Security-Policy": content_security_policy(self._ingest_url)}
        self._openapi = _described(openapi.openapi(context.session, context.settings.session_uid))
        self._asyncapi = _described(openapi.asyncapi(context.session))
        self._receipts = Receipts(
            context.ledger,
            context.genesis,
            revotes=context.session.spec.voters.revote == "last",
        )
        self._pool = ThreadPoolExecutor(LEDGER_THREADS, thread_name_prefix="ledger")
        self._waiting = 0
        settings = context.settings
        self._limit: Limit[str] = Limit("address", settings.gateway_receipt_rate, settings.gateway_receipt_burst)
        self._publication: bytes | None = None
        self.control: Control | None = None

    def application(self) -> web.Application:
        """Returns the application with all routes."""
        app = web.Application(middlewares=[_problems])
        app.on_response_prepare.append(self._secure)
        app.add_routes(
            [
                web.get("/", self.page),
                web.get("/sessions/{id}", self.page),
                web.get("/vote", self.vote),
                web.get("/sessions/{id}/vote", self.vote),
                web.get("/assets/{name}", self.asset),
                web.get(openapi.DESCRIPTION_PATH, self.openapi),
                web.get(openapi.ASYNCAPI_PATH, self.asyncapi),
                web.get("/v1/sessions/{id}", self.info),
                web.get("/v1/sessions/{id}/results", self.results),
                web.get("/v1/sessions/{id}/live", self.live, allow_head=False),
                web.get("/v1/sessions/{id}/events", self.events, allow_head=False),
                web.get("/v1/sessions/{id}/receipts/{receipt}", self.receipt),
                web.get("/v1/sessions/{id}/publication", self.publication),
            ]
        )
        return app

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def results(self, request: web.Request) -> web.StreamResponse:
        self._require_session(request)
        view = self._hub.newest
        if view is None:
            raise Problem("results-unavailable", "no result has been published so far", retry_after_s=2)
        return _cached(request, view.body, view.etag, "application/json", RESULTS_CACHE)

    async def live(self, request: web.Request) -> web.StreamResponse:
        self._require_session(request)
        return await serve_live(request, self._hub)

    async def events(self, request: web.Request) -> web.StreamResponse:
        self._require_session(request)
        return await serve_events(request, self._hub)

    async def info(self, request: web.Request) -> web.StreamResponse:
        self._require_session(request)
        info = session_info(self._context.session, self._context.genesis, self.control, self._ingest_url)
        body = msgspec.json.encode(info)
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": RESULTS_CACHE})

    async def receipt(self, request: web.Request) -> web.StreamResponse:
        self._require_session(request)
        self._require_allowance(request)
        try:
            found = await self._ask_ledger(self._receipts.find, request.match_info["receipt"])
        except Problem as problem:
            metrics.RECEIPTS.labels(problem.slug).inc()
            if problem.slug == "log-mismatch":
                metrics.MISMATCHES.inc()
                log.error("log mismatch", why=problem.detail)
            raise
        metrics.RECEIPTS.labels(found.status).inc()
        body = msgspec.json.encode(found.document())
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def publication(self, request: web.Request) -> web.StreamResponse:
        self._require_session(request)
        if self._publication is None:
            self._publication = await self._ask_ledger(self._context.ledger.get, "final")
        if self._publication is None:
            raise Problem("not-published", "the recount has not sealed a final result so far")
        return web.Response(
            body=self._publication, content_type="application/json", headers={"Cache-Control": PUBLICATION_CACHE}
        )

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        return _file(request, self._openapi, PAGES_CACHE)

    async def asyncapi(self, request: web.Request) -> web.StreamResponse:
        return _file(request, self._asyncapi, PAGES_CACHE)

    async def page(self, request: web.Request) -> web.StreamResponse:
        return self._page(request, "results.html")

    async def vote(self, request: web.Request) -> web.StreamResponse:
        return self._page(request, "vote.html")

    def _page(self, request: web.Request, name: str) -> web.StreamResponse:
        if "id" in request.match_info:
            self._require_session(request)
        return _file(request, self._pages[name], "no-cache")

    async def asset(self, request: web.Request) -> web.StreamResponse:
        page = self._pages.get(request.match_info["name"])
        if page is None:
            raise web.HTTPNotFound
        return _file(request, page, PAGES_CACHE)

    async def _secure(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._headers)
        if request.path.startswith("/v1/"):
            response.headers["Access-Control-Allow-Origin"] = "*"  # public, and never with credentials

    def _require_session(self, request: web.Request) -> None:
        if request.match_info["id"] not in self._names:
            raise Problem("unknown-session", f"this gateway serves the session {self._context.session.name}")

    def _require_allowance(self, request: web.Request) -> None:
        """Limits receipt lookups by rate, since they call the ledger; local clients such as proxies are exempt."""
        client = client_of(request.remote, request.headers, self._context.settings.trusted_proxies)
        if client is None:
            return
        try:
            self._limit.take(client, time.monotonic())
        except LimitReached as reached:
            metrics.RECEIPTS.labels("rate-limited").inc()
            raise Problem("rate-limited", str(reached), headers=reached.headers) from None

    async def _ask_ledger(self, call: Callable[..., _Answer], *arguments: object) -> _Answer:
        if self._waiting >= MOST_WAITING:
            raise Problem("overloaded", "too many look into the ledger at once", retry_after_s=1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)
        except (LedgerUnavailable, LedgerMissing) as error:
            log.warning("ledger does not answer", why=str(error))
            raise Problem("ledger-unavailable", "the ledger did not answer in time", retry_after_s=2) from None
        finally:
            self._waiting -= 1


def content_security_policy(ingest_url: str) -> str:
    """Returns what the pages may load and contact: their own origin, and the one where votes are taken."""
    origin = "/".join(ingest_url.split("/")[:3])
    return _CSP.format(f"'self' {origin}".rstrip())


def _described(document: dict[str, Any]) -> Page:
    body = msgspec.json.encode(document)
    return Page(body, "application/json", hashlib.sha256(body).hexdigest()[:32])


def _file(request: web.Request, page: Page, cache: str) -> web.StreamResponse:
    return _cached(request, page.body, page.etag, page.content_type, cache)


def _cached(request: web.Request, body: bytes, tag: str, kind: str, cache: str) -> web.Response:
    """Returns the body, or 304 if the client already has it. The ETag is strong: it covers every byte."""
    known = request.if_none_match or ()
    headers = {"ETag": f'"{tag}"', "Cache-Control": cache}
    if any(etag.value == tag or etag == ETag(value="*") for etag in known):
        metrics.NOT_MODIFIED.inc()
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers={**headers, "Content-Type": kind})


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await _answered(request, handler)
    except Problem as problem:
        headers = {"Cache-Control": "no-store", **problem.headers}
        return web.Response(status=problem.status, body=problem.encode(), content_type=MEDIA_TYPE, headers=headers)


async def _answered(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Returns the handler's response; any error but a ConnectionError becomes a Problem."""
    try:
        return await handler(request)
    except (Problem, ConnectionError):
        raise
    except web.HTTPMethodNotAllowed as error:
        allowed = {"Allow": ", ".join(sorted(error.allowed_methods))}
        raise Problem("method-not-allowed", f"{request.method} is not allowed here", headers=allowed) from None
    except web.HTTPNotFound:
        raise Problem("not-found", "there is nothing at this path; see /v1/sessions/{session}") from None
    except web.HTTPException as error:
        raise Problem("malformed-request", error.text or error.reason) from None
    except Exception:
        log.exception("request failed", path=request.path)
        raise Problem("internal-error", "this is logged; trying again is safe") from None
