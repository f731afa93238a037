"""The voting page in a real browser, against real ingest, tally and gateway.

`UPDATE_SCREENSHOTS=1 pytest tests/integration/voting/test_voting_page.py` writes the picture in docs/images anew.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect
from tests.integration.browsing import WITHIN_MS
from tests.integration.voting.conftest import Enter, Voting

from psephos.control import set_phase
from psephos.formats.control import Phase

PICTURES = Path(__file__).parents[3] / "docs/images"
MOST_BYTES = 150_000
UNNAMED = """
[...document.querySelectorAll("input, button, textarea")]
    .filter(it => it.checkVisibility() && !it.labels?.length && !it.textContent && !it.ariaLabel).length
"""
PHASE_IS = "fetch('/v1/sessions/test').then(answer => answer.json()).then(info => info.phase === '{}')"

four_types = pytest.mark.parametrize("voting", ["single", "approval", "ranked", "score"], indirect=True)
single = pytest.mark.parametrize("voting", ["single"], indirect=True)


def kind(voting: Voting) -> str:
    return str(voting.readside.session.spec.ballot.type)


def cast(page: Page) -> None:
    page.get_by_role("button", name="Cast my vote").click()


def expect_counted(page: Page) -> None:
    expect(page.locator("#receipt-title:visible")).to_have_text("Your vote is counted")
    expect(page.locator("#receipt-text")).to_have_value(re.compile(r"^[\w-]{40,400}$"))


def fill(page: Page, kind: str) -> dict[str, Any]:
    """Fills a ballot in by mouse; what it should be in the ledger."""
    if kind == "single":
        page.get_by_role("radio", name="Bob").check()
        return {"choices": ["bob"]}
    if kind == "approval":
        page.get_by_role("checkbox", name="Cyd").check()
        page.get_by_role("checkbox", name="Ada").check()
        return {"choices": ["ada", "cyd"]}
    if kind == "ranked":
        for name in ("Dot", "Ada", "Bob"):
            page.get_by_role("button", name=f"Rank {name}").click()
        page.get_by_role("button", name="Move Bob up").click()
        page.get_by_role("button", name="Take Dot out").click()
        return {"choices": ["bob", "ada"]}
    page.get_by_role("group", name="Ada").get_by_role("radio", name="5", exact=True).check()
    page.get_by_role("group", name="Cyd").get_by_role("radio", name="0", exact=True).check()
    return {"scores": {"ada": 5, "cyd": 0}}


def fill_by_keyboard(page: Page, kind: str) -> dict[str, Any]:
    """The same with keys alone, from the top of the page."""
    press = page.keyboard.press
    expect(page.locator("#options")).to_be_visible()
    press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the ballot")
    press("Enter")
    press("Tab")
    if kind == "single":
        press("Space")
        press("ArrowDown")
        press("ArrowDown")
        return {"choices": ["cyd"]}
    if kind == "approval":
        press("Tab")
        press("Space")
        press("Tab")
        press("Tab")
        press("Space")
        press("Tab")
        return {"choices": ["bob", "dot"]}
    if kind == "ranked":
        press("Enter")  # Ada; the focus goes on to Bob
        press("Enter")  # Bob; on to Cyd
        expect(page.locator(":focus")).to_have_accessible_name("Rank Cyd")
        press("Enter")
        page.get_by_role("button", name="Move Cyd up").focus()
        press("Enter")
        expect(page.locator("#said")).to_have_text("Cyd: place 2 of 3.")
        press("Enter")
        press("Enter")
        expect(page.locator("#said")).to_have_text("Cyd is first already.")
        expect(page.locator(":focus")).to_have_accessible_name("Move Cyd up")
        return {"choices": ["cyd", "ada", "bob"]}
    for _ in range(3):
        press("ArrowRight")
    press("Tab")
    press("ArrowRight")
    return {"scores": {"ada": 2, "bob": 0}}


@four_types
def test_a_ballot_of_each_type_is_cast_counted_and_receipted(voting: Voting, enter: Enter) -> None:
    page = enter(voting, "ann").page
    expect(page.locator("#options")).to_be_visible()
    assert page.url == f"{voting.gateway.url}/vote", "the token is gone from the address bar"
    expected = fill(page, kind(voting))
    cast(page)
    expect_counted(page)
    assert voting.counted("ann") == [expected]
    expect(page.locator("#receipt-title")).to_be_focused()
    page.reload()
    expect_counted(page)


@four_types
def test_a_ballot_of_each_type_is_cast_with_the_keyboard_alone(voting: Voting, enter: Enter) -> None:
    page = enter(voting, "kay").page
    expected = fill_by_keyboard(page, kind(voting))
    page.locator("#choices :focus").press("Enter") if kind(voting) == "single" else cast_by_keyboard(page)
    expect_counted(page)
    assert voting.counted("kay") == [expected]


def cast_by_keyboard(page: Page) -> None:
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "cast":
            page.keyboard.press("Enter")
            return
    raise AssertionError("the button is not reached by Tab")


@four_types
def test_a_ballot_against_the_rules_is_explained_before_it_is_sent(voting: Voting, enter: Enter) -> None:
    visit = enter(voting, "rule")
    page, problem = visit.page, visit.page.locator("#problem")
    expect(page.locator("#options")).to_be_visible()
    cast(page)
    if kind(voting) == "single":
        expect(page.get_by_role("dialog")).to_contain_text("Cast a blank ballot?")
        page.keyboard.press("Escape")
    elif kind(voting) == "approval":
        expect(problem).to_have_text("Choose an option first.")
        for name in ("Ada", "Bob"):
            page.get_by_role("checkbox", name=name).check()
        page.get_by_role("checkbox", name="Cyd").click()
        expect(problem).to_have_text("You can choose at most 2. Take one back first.")
        expect(page.get_by_role("checkbox", name="Cyd")).not_to_be_checked()
    elif kind(voting) == "ranked":
        expect(problem).to_have_text("You have ranked 0 options. This ballot needs at least 2.")
        for name in ("Ada", "Bob", "Cyd", "Dot"):
            page.get_by_role("button", name=f"Rank {name}").click()
        expect(problem).to_have_text("You can rank at most 3. Take one out first.")
    else:
        expect(problem).to_have_text("Choose an option first.")
    assert not any(url.endswith("/votes") for url in visit.requests)


@four_types
def test_the_page_fits_narrow_screens_and_dark_rooms(voting: Voting, enter: Enter) -> None:
    page = enter(voting, "dan", color_scheme="dark").page
    fill(page, kind(voting))
    for width in (800, 320):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert page.evaluate(UNNAMED) == 0


@single
def test_a_blank_ballot_is_cast_only_when_it_is_confirmed(voting: Voting, enter: Enter) -> None:
    page = enter(voting, "blank").page
    expect(page.locator("#instruction")).to_contain_text("You may also leave the ballot blank.")
    cast(page)
    page.get_by_role("button", name="Go back").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert voting.counted("blank") == []
    cast(page)
    page.get_by_role("button", name="Cast a blank ballot").click()
    expect_counted(page)
    assert voting.counted("blank") == [{"choices": []}]


@single
def test_a_vote_whose_answer_is_lost_is_sent_again_and_counted_once(voting: Voting, enter: Enter) -> None:
    page = enter(voting, "lost").page
    sent = lose_answers(page, times=1)
    page.get_by_role("radio", name="Ada").check()
    cast(page)
    expect_counted(page)
    assert len(sent) == 2
    assert sent[0] == sent[1], "the same key and the same ballot"
    assert voting.counted("lost") == [{"choices": ["ada"]}]


@single
def test_a_reload_after_a_lost_answer_is_safe(voting: Voting, enter: Enter) -> None:
    page = enter(voting, "reload").page
    sent = lose_answers(page, times=1, then_block=True)
    page.get_by_role("radio", name="Dot").check()
    cast(page)
    expect(page.locator("#progress")).to_contain_text("No answer arrived. Trying again.")
    page.reload()
    expect(page.locator("#message")).to_contain_text("Your choices of before are kept in this tab.")
    page.unroute("**/votes")
    page.on("request", lambda request: sent.append(told(request)) if request.method == "POST" else None)
    page.goto(voting.link("reload"))
    expect(page.get_by_role("radio", name="Dot")).to_be_checked()
    expect(page.locator("#kept")).to_be_visible()
    assert "token" not in page.url
    voting.restart_ingest()
    before = voting.duplicates()
    cast(page)
    expect_counted(page)
    expect(page.locator("#standing")).to_contain_text("counted once: an earlier try had arrived")
    assert sent[-1] == sent[0]
    assert voting.duplicates() == before + 1
    assert voting.counted("reload") == [{"choices": ["dot"]}]


def told(request: Any) -> tuple[str, str]:
    return request.headers["idempotency-key"], request.post_data


def lose_answers(page: Page, *, times: int, then_block: bool = False) -> list[tuple[str, str]]:
    """The first `times` votes arrive, but their answers do not; answers what was sent."""
    sent: list[tuple[str, str]] = []

    def handle(route: Route) -> None:
        sent.append(told(route.request))
        if len(sent) <= times:
            assert route.fetch().status == 202
            route.abort()
        elif then_block:
            route.abort()
        else:
            route.continue_()

    page.route("**/votes", handle)
    return sent


@single
def test_the_next_voter_at_the_same_browser_sees_nothing_of_the_one_before(voting: Voting, enter: Enter) -> None:
    page = enter(voting, "first").page
    lose_answers(page, times=0, then_block=True)
    page.get_by_role("radio", name="Cyd").check()
    cast(page)
    expect(page.locator("#progress")).to_contain_text("Trying again")
    page.reload()
    page.goto(voting.link("second"))
    expect(page.locator("#options")).to_be_visible()
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    expect(page.locator("#kept")).to_be_hidden()


@single
def test_expired_and_missing_tokens_are_explained(voting: Voting, enter: Enter) -> None:
    page = enter(voting, "old", link=voting.link("old", expires_in_s=-3600)).page
    page.get_by_role("radio", name="Ada").check()
    cast(page)
    expect(page.locator("#problem")).to_contain_text("Your voting link is not valid, or it has expired.")
    expect(page.get_by_role("button", name="Cast my vote")).to_have_attribute("aria-disabled", "false")
    page = enter(voting, "", link=f"{voting.gateway.url}/sessions/test/vote").page
    expect(page.locator("#message")).to_contain_text("You need your voting link")
    assert voting.counted("old") == []


@single
def test_a_second_vote_of_a_voter_is_told_to_be_one(voting: Voting, enter: Enter) -> None:
    for choice in ("Ada", "Bob"):
        page = enter(voting, "twice").page
        page.get_by_role("radio", name=choice).check()
        cast(page)
        expect(page.locator("#standing")).not_to_have_attribute("data-state", "pending")
    expect(page.locator("#standing")).to_have_text(
        "An earlier vote of yours counts, this one does not. If you have voted once only, it is the same vote:"
        " it was written down twice and counts once."
    )
    assert voting.counted("twice") == [{"choices": ["ada"]}]


@pytest.mark.parametrize("voting", ["points"], indirect=True)
def test_scores_of_a_long_scale_are_typed_and_checked(voting: Voting, enter: Enter) -> None:
    page = enter(voting, "typist").page
    page.get_by_label("Ada").fill("51")
    cast(page)
    expect(page.locator("#problem")).to_have_text("The score of Ada must be a whole number from -50 to 50.")
    expect(page.get_by_label("Ada")).to_be_focused()
    page.get_by_label("Ada").fill("-50")
    page.get_by_label("Dot").fill("7")
    page.keyboard.press("Enter")
    expect_counted(page)
    assert voting.counted("typist") == [{"scores": {"ada": -50, "dot": 7}}]


def test_a_pause_and_the_end_are_told_and_nothing_is_recorded(lone: Voting, enter: Enter) -> None:
    page = enter(lone, "late").page
    page.get_by_role("radio", name="Ada").check()
    set_phase(lone.readside.settings, Phase.PAUSED)
    page.wait_for_function(PHASE_IS.format("Paused"))
    cast(page)
    expect(page.locator("#problem")).to_contain_text("Voting is paused.")
    expect(page.get_by_role("radio", name="Ada")).to_be_checked()
    set_phase(lone.readside.settings, Phase.OPEN)
    expect(page.get_by_role("button", name="Cast my vote")).to_have_attribute("aria-disabled", "false")
    expect(page.locator("#problem")).to_be_empty()
    set_phase(lone.readside.settings, Phase.CLOSING)
    page.wait_for_function(PHASE_IS.format("Closing"))
    cast(page)
    expect(page.locator("#message-title")).to_have_text("Voting is over")
    expect(page.locator("#message-title")).to_be_focused()
    page.get_by_role("link", name="Results").click()
    expect(page).to_have_title("A test of the read side · results")


@pytest.mark.parametrize("lone", [{"voters": {"eligibility": "open"}}], indirect=True)
def test_in_an_open_session_a_browser_has_one_token_and_one_vote(lone: Voting, enter: Enter) -> None:
    url = f"{lone.gateway.url}/vote"
    visit = enter(lone, "", link=url)
    page = visit.page
    page.get_by_role("radio", name="Ada").check()
    cast(page)
    expect_counted(page)
    second = page.context.new_page()
    second.goto(url)
    expect(second.locator("#receipt-title")).to_have_text("Your vote is counted")
    assert sum(url.endswith("/tokens") for url in visit.requests) == 1
    other = enter(lone, "", link=url).page
    other.get_by_role("radio", name="Ada").check()
    cast(other)
    expect_counted(other)
    assert lone.totals() == {"ada": 2}


@pytest.mark.parametrize(
    "lone",
    [
        {
            "voters": {"tokens": {"issuer": "i", "audience": "a"}, "revote": "last"},
            "settings": {"ingest_voter_rate": 0.05, "ingest_voter_burst": 1},
        }
    ],
    indirect=True,
)
def test_a_vote_is_changed_and_who_is_too_fast_sees_when_to_go_on(lone: Voting, enter: Enter) -> None:
    page = enter(lone, "hasty").page
    page.get_by_role("radio", name="Ada").check()
    cast(page)
    expect_counted(page)
    first = page.locator("#receipt-text").input_value()
    page.get_by_role("button", name="Change my vote").click()
    page.get_by_role("radio", name="Bob").check()
    cast(page)
    expect(page.locator("#problem")).to_contain_text("You can send it in 0:0")
    expect(page.get_by_role("button", name="Cast my vote")).to_have_attribute("aria-disabled", "true")
    expect(page.locator("#said")).to_have_text("You can send your vote now.", timeout=2 * WITHIN_MS)
    cast(page)
    expect_counted(page)
    assert lone.totals() == {"bob": 1}
    link = f"{lone.gateway.url}/vote#receipt={first}"
    expect(enter(lone, "", link=link).page.locator("#standing")).to_contain_text("A later vote of yours")


@pytest.mark.parametrize(
    "lone",
    [
        {
            "title": "Where should the new library stand?",
            "ballot": {
                "type": "ranked",
                "options": [
                    {"id": id_, "label": label}
                    for id_, label in (
                        ("harbour", "At the old harbour"),
                        ("market", "On the market square"),
                        ("park", "At the edge of the park"),
                        ("station", "Next to the station"),
                        ("school", "By the school"),
                    )
                ],
                "max": 3,
            },
        }
    ],
    indirect=True,
)
def test_the_voting_page_as_documented(lone: Voting, enter: Enter) -> None:
    page = enter(lone, "pic", viewport={"width": 760, "height": 600}).page
    for name in ("At the edge of the park", "At the old harbour"):
        page.get_by_role("button", name=f"Rank {name}").click()
    expect(page.locator(".ranked .rank")).to_have_count(2)
    picture = page.screenshot(full_page=True)
    assert len(picture) < MOST_BYTES
    if os.environ.get("UPDATE_SCREENSHOTS"):
        (PICTURES / "voting-page.png").write_bytes(picture)
