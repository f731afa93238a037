"""The results page in a real browser, on real frames.

`UPDATE_SCREENSHOTS=1 pytest tests/integration/readside/test_page.py` writes the picture in docs/images anew.
"""

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from playwright.sync_api import Browser, expect
from tests.integration.browsing import WITHIN_MS, Visit, chromium
from tests.integration.readside.conftest import PARTITIONS, Option, ReadSide, Role

from psephos.control import set_phase
from psephos.control.phases import change
from psephos.formats.blocks import MAX_RECORDS, RecordClass
from psephos.formats.control import Phase

ROOT = Path(__file__).parents[3]
BURLINGTON = ROOT / "manifests/examples/burlington-2009-irv"
PICTURES = ROOT / "docs/images"
MOST_BYTES = 150_000
NO_WEBSOCKET = """
window.WebSocket = class { constructor() { setTimeout(() => this.onclose?.({ reason: "" })); } close() {} };
"""
NO_EVENTS = "window.EventSource = class { constructor() { setTimeout(() => this.onerror?.()); } close() {} };"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Watched(Visit):
    """The results page."""

    def bar(self, option: str) -> Any:
        return self.page.locator(f'.bar[data-option="{option}"]')

    def votes(self, option: str) -> Any:
        return self.bar(option).locator(".bar-votes")

    def length(self, option: str) -> float:
        """How much of its track a bar fills, by what is on the screen."""
        return float(
            self.bar(option).evaluate(
                "row => row.querySelector('.bar-fill').getBoundingClientRect().width"
                " / row.querySelector('.bar-track').getBoundingClientRect().width"
            )
        )

    def connection(self) -> Any:
        return self.page.locator("#connection")

    def order(self) -> list[str]:
        return [str(row.get_attribute("data-option")) for row in self.page.locator(".bar").all()]


Look = Callable[..., Watched]


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Opens a page of a gateway; whatever it did is checked at the end."""
    opened: list[Watched] = []
    contexts = []

    def open_page(gateway: Role, script: str = "", **context: Any) -> Watched:
        contexts.append(browser.new_context(viewport={"width": 1000, "height": 800}, **context))
        page = contexts[-1].new_page()
        page.set_default_timeout(WITHIN_MS)
        if script:
            page.add_init_script(script)
        opened.append(Watched(page, gateway.url + "/"))
        return opened[-1]

    expect.set_options(timeout=WITHIN_MS)
    yield open_page
    for watched in opened:
        watched.check()
    for context in contexts:
        context.close()


def test_bars_move_while_people_vote(readside: ReadSide, look: Look) -> None:
    readside.append(0, [0, 0, 0, 1])
    watched = look(readside.serve())
    expect(watched.page).to_have_title("A test of the read side · results")
    expect(watched.page.locator("#phase")).to_have_text("Open")
    expect(watched.connection()).to_have_text("Live")
    expect(watched.votes("ada")).to_have_text("3")
    expect(watched.bar("ada").locator(".bar-share")).to_have_text("75.0%")
    assert watched.order() == ["ada", "bob"]
    expect(watched.bar("bob").locator(".bar-fill")).to_have_css("transform", "matrix(0.25, 0, 0, 1, 0, 0)")
    before = watched.length("bob")
    readside.append(1, [1] * 5, [RecordClass.DUPLICATE, RecordClass.DUPLICATE, RecordClass.QUOTA])
    expect(watched.votes("bob")).to_have_text("6")
    assert watched.order() == ["bob", "ada"], "sorted by votes"
    expect(watched.bar("bob").locator(".bar-fill")).to_have_css("transform", "matrix(0.666667, 0, 0, 1, 0, 0)")
    assert watched.length("bob") > before
    figures = {
        name: watched.page.locator(f"#{name}").inner_text() for name in ("counted", "duplicate", "rejected")
    }
    assert figures == {"counted": "9", "duplicate": "2", "rejected": "1"}
    expect(watched.page.locator("#rejected-detail")).to_have_text("Rejected: 1 above the allowance")


def test_the_stale_mark_comes_and_goes_with_redis(readside: ReadSide, look: Look) -> None:
    readside.append(0, [0, 0, 1])
    watched = look(readside.serve())
    expect(watched.connection()).to_have_text("Live")
    readside.redis.kill()
    expect(watched.connection()).to_contain_text("Delayed · as of ")
    expect(watched.page.locator("body")).to_have_class("stale")
    expect(watched.votes("ada")).to_have_text("2")
    readside.append(1, [0])
    readside.redis.start()
    expect(watched.connection()).to_have_text("Live")
    expect(watched.votes("ada")).to_have_text("3")


def test_a_page_survives_its_gateway(readside: ReadSide, look: Look) -> None:
    readside.append(0, [0])
    gateway = readside.serve()
    watched = look(gateway)
    expect(watched.connection()).to_have_text("Live")
    gateway.kill()
    expect(watched.connection()).to_contain_text("Reconnecting · as of ")
    readside.append(0, [0, 1])
    readside.start("gateway", gateway_port=gateway.port).wait_ready()
    expect(watched.connection()).to_have_text("Live")
    expect(watched.votes("ada")).to_have_text("2")
    watched.errors = [error for error in watched.errors if "WebSocket connection" not in error]


def test_a_browser_without_websockets_follows_by_other_ways(readside: ReadSide, look: Look) -> None:
    readside.append(0, [0])
    gateway = readside.serve()
    streaming, polling = look(gateway, NO_WEBSOCKET), look(gateway, NO_WEBSOCKET + NO_EVENTS)
    for watched in (streaming, polling):
        expect(watched.connection()).to_have_text("Live")
    readside.append(0, [1, 1])
    for watched in (streaming, polling):
        expect(watched.votes("bob")).to_have_text("2")
    sent = [gateway.metric(f'psephos_gateway_frames_sent_total{{kind="{kind}"}}') for kind in ("websocket", "sse")]
    assert sent[0] == 0
    assert sent[1] >= 2
    assert [url.rpartition("/")[2].partition("?")[0] for url in polling.requests][-1] == "results"


def test_a_page_that_is_there_before_the_first_result_waits(readside: ReadSide, look: Look) -> None:
    watched = look(readside.start("gateway").wait_ready())
    expect(watched.page.locator("#waiting")).to_be_visible()
    expect(watched.connection()).to_have_text("Waiting for results")
    readside.append(0, [0])
    readside.start("projector")
    expect(watched.votes("ada")).to_have_text("1")
    expect(watched.page.locator("#waiting")).to_be_hidden()


@pytest.mark.parametrize("readside", [{"results": {"visibility": "afterClose"}}], indirect=True)
def test_under_embargo_the_page_shows_turnout_and_says_why(readside: ReadSide, look: Look) -> None:
    readside.append(0, [0, 0, 1])
    watched = look(readside.serve())
    expect(watched.page.locator("#sealed")).to_contain_text("Results are sealed until the count is final.")
    expect(watched.page.locator("#counted")).to_have_text("3")
    expect(watched.page.locator(".bar")).to_have_count(0)
    readside.finish()
    expect(watched.page.locator("#winner-name")).to_have_text("Ada")
    expect(watched.votes("ada")).to_have_text("2")
    expect(watched.page.locator("#sealed")).to_be_hidden()


def test_a_countdown_runs_to_the_close(readside: ReadSide, look: Look) -> None:
    from psephos.platform.clock import now_ms

    watched = look(readside.serve())
    expect(watched.connection()).to_have_text("Live")
    expect(watched.page.locator("#countdown")).to_be_hidden()
    end = now_ms() + 3_725_000
    change(readside.settings, lambda control: msgspec.structs.replace(control, closes_at=end))
    expect(watched.page.locator("#countdown")).to_contain_text("closes in 1:0")
    set_phase(readside.settings, Phase.PAUSED)
    expect(watched.page.locator("#phase")).to_have_text("Paused")
    expect(watched.page.locator("#notice")).to_have_text("Voting is paused and goes on later.")


def test_a_void_session_says_why(readside: ReadSide, look: Look) -> None:
    watched = look(readside.serve())
    expect(watched.connection()).to_have_text("Live")
    set_phase(readside.settings, Phase.VOID, reason="the <list> of options was wrong")
    expect(watched.page.locator("#phase")).to_have_text("Void")
    notice = "This vote was declared void: the <list> of options was wrong"
    expect(watched.page.locator("#notice")).to_have_text(notice)


def burlington() -> dict[str, Any]:
    spec = yaml.safe_load((BURLINGTON / "session.yaml").read_text())["spec"]
    return {**spec, "capacity": {"partitions": PARTITIONS}}


def burlington_ballots(options: tuple[str, ...]) -> list[Option]:
    with (BURLINGTON / "ballots.csv").open(newline="") as file:
        rows = [(int(row["count"]), row["choices"]) for row in csv.DictReader(file)]
    return [
        tuple(options.index(name) for name in choices.split(">") if name)
        for count, choices in rows
        for _ in range(count)
    ]


@pytest.mark.parametrize("readside", [burlington()], indirect=True, ids=["burlington"])
def test_a_real_election_ends_with_every_round_on_the_page(readside: ReadSide, look: Look) -> None:
    """Mayor of Burlington, 2009: the rounds as they were published."""
    ballots = burlington_ballots(readside.session.option_ids)
    for at in range(0, len(ballots), MAX_RECORDS // 2):
        readside.append(at % PARTITIONS, ballots[at : at + MAX_RECORDS // 2])
    watched = look(readside.serve())
    page = watched.page
    expect(watched.votes("kurt-wright")).to_have_text("2,951")
    readside.finish()
    expect(page.locator("#phase")).to_have_text("Final")
    expect(watched.connection()).to_have_text("Final result")
    expect(page.locator("#winner-name")).to_have_text("Bob Kiss")
    expect(page.locator("#winner-detail")).to_have_text(
        "4,313 votes after 3 rounds, ahead of Kurt Wright with 4,061"
    )
    table = [
        [cell.inner_text() for cell in row.locator("th, td").all()] for row in page.locator("#rounds tr").all()
    ]
    order = ["Bob Kiss", "Kurt Wright", "Andy Montroll", "Dan Smith", "Write-in", "James Simpson"]
    assert [row[0] for row in table] == ["", *order, "No further choice"]
    assert [cell.split("\n")[0] for cell in table[1][1:]] == ["2,585", "2,981", "4,313"]
    assert [cell.split("\n")[0] for cell in table[2][1:]] == ["2,951", "3,294", "4,061"]
    assert [cell.split("\n")[-1] for cell in table[4][1:]] == ["eliminated", "–", "–"]
    assert table[-1][1:] == ["8", "155", "610"]
    expect(page.locator("#summary")).to_contain_text("Final result: Bob Kiss won.")
    expect(page.get_by_role("link", name="The signed result")).to_be_visible()
    page.evaluate("Promise.all(document.getAnimations().map(move => move.finished.catch(() => {})))")
    picture = page.screenshot(full_page=True)
    assert len(picture) < MOST_BYTES
    if os.environ.get("UPDATE_SCREENSHOTS"):
        (PICTURES / "results-page.png").write_bytes(picture)


@pytest.mark.parametrize("readside", [burlington()], indirect=True, ids=["burlington"])
def test_the_page_fits_narrow_screens_dark_rooms_and_keyboards(readside: ReadSide, look: Look) -> None:
    readside.append(0, [(1, 2), (2, 1, 0), (3,)])
    readside.finish()
    page = look(readside.serve(), color_scheme="dark", reduced_motion="reduce").page
    expect(page.locator("#winner-name")).to_be_visible()
    for width in (1000, 320):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the results")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_attribute("role", "region")
    assert page.evaluate("document.querySelectorAll('h1').length") == 1
