"""The pages and their files, read once at startup and served as they are, with the session's name inserted."""

import hashlib
import html
from importlib.resources import files
from typing import NamedTuple

from psephos.domain.session import Session

_TYPES = {
    "results.html": "text/html; charset=utf-8",
    "results.css": "text/css; charset=utf-8",
    "results.js": "text/javascript; charset=utf-8",
    "vote.html": "text/html; charset=utf-8",
    "vote.css": "text/css; charset=utf-8",
    "vote.js": "text/javascript; charset=utf-8",
    "ballots.js": "text/javascript; charset=utf-8",
    "shared.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Page(NamedTuple):
    """A file as it is served."""

    body: bytes
    content_type: str
    etag: str


def load_pages(session: Session) -> dict[str, Page]:
    """Loads all pages, by file name. `{{name}}` and `{{title}}` in HTML become the session's."""
    folder = files("psephos.roles.gateway") / "pages"
    return {name: _page((folder / name).read_bytes(), kind, session) for name, kind in _TYPES.items()}


def _page(body: bytes, kind: str, session: Session) -> Page:
    if kind.startswith("text/html"):
        for mark, value in (("{{name}}", session.name), ("{{title}}", session.title)):
            body = body.replace(mark.encode(), html.escape(value).encode())
    return Page(body, kind, hashlib.sha256(body).hexdigest()[:32])
