"""A real browser for tests of pages, and what a page must never do."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from tests.waiting import PATIENCE_S

WITHIN_MS = PATIENCE_S * 1_000
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    program = shutil.which("chromium")
    assert program, "chromium is not installed; `make setup` installs what is missing"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield browser
        browser.close()


class Visit:
    """A page, and what it must never do: log an error, break its own policy, ask anybody else."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._said)
        page.goto(url)

    def _said(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def check(self, *others: str) -> None:
        """`others`: hosts with ports that it may ask besides its own."""
        assert self.errors == []
        allowed = {_host(self.url), *others}
        assert [url for url in self.requests if _host(url) not in allowed] == []


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]
