"""The election of Burlington's mayor, 2009, from `kubectl apply` to `Final`, with all who take part outside.

`UPDATE_SCREENSHOTS=1 pytest e2e/test_election.py` writes the picture in docs/images anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from tests.integration.browsing import WITHIN_MS, Visit
from tests.waiting import wait_until

from e2e.burlington import BALLOTS, EXAMPLE, NAME, apply_example, ballots
from e2e.certificates import Authority
from e2e.kube import ROOT, Watch, get, items, kubectl
from e2e.outside import Traffic, Viewer, post, wait_published
from e2e.outside import get as ask
from e2e.report import Report
from e2e.sessions import NOTICE_S, Session, in_seconds, patiently
from psephos_lab.published import read_published

PICTURE = ROOT / "docs" / "images" / "results-through-the-ingress.png"


@dataclass
class Played:
    """What was seen from outside. closes_at: the end that was asked for; refused_at: the first vote behind it."""

    session: Session
    traffic: Traffic
    viewer: Viewer
    page: Visit
    closes_at: datetime
    refused_at: datetime
    document: dict[str, Any]


@pytest.fixture(scope="module")
def played(
    namespace: str,
    authority: Authority,
    browser: Browser,
    report: Report,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Played]:
    """The whole election. The page and the viewer are there from the first ballot to the result."""
    watch = Watch()
    session = apply_example(namespace)
    session.wait("Open")
    wait_published(authority, session)
    report.note("Burlington: from apply to Open", watch.seconds)
    context = browser.new_context(viewport={"width": 1000, "height": 900}, ignore_https_errors=True)
    expect.set_options(timeout=WITHIN_MS)
    page = Visit(context.new_page(), session.page)
    expect(page.page.locator("#phase")).to_have_text("Open")
    journal = tmp_path_factory.mktemp("burlington") / "journal"
    watch = Watch()
    with Viewer(authority, session) as viewer:
        with Traffic(authority, session, ballots(), journal) as traffic:
            expect(page.page.locator(".bar-votes").first).not_to_have_text("0")
            traffic.finish()
        report.note(f"Burlington: {BALLOTS:,} ballots by HTTPS, one a request", watch.seconds)
        watch = Watch()
        closes_at = in_seconds(NOTICE_S)
        session.extend(closes_at)
        refused_at = first_refusal(authority, session)
        session.wait("Final")
        report.note("Burlington: from the close to Final", watch.seconds - NOTICE_S)
        wait_until(viewer.saw(lambda frame: frame["final"]), "the viewer sees the final frame")
        expect(page.page.locator("#winner-name")).to_have_text("Bob Kiss")
        document = ask(authority, f"{session.url}/publication")
        assert document.status == 200, document
        end = datetime.fromisoformat(closes_at)
        yield Played(session, traffic, viewer, page, end, refused_at, dict(document.body))
    context.close()


def first_refusal(authority: Authority, session: Session) -> datetime:
    """When voting was over for somebody who tries on. Without a token: nothing is recorded."""

    def over() -> bool:
        return post(authority, f"{session.url}/votes", json={"choices": []}).problem == "session-closed"

    wait_until(over, "voting is over", NOTICE_S + 30)
    return datetime.now(UTC)


def test_the_published_rounds_are_what_was_counted(played: Played) -> None:
    published = read_published(EXAMPLE / "ballots.csv")
    assert published is not None
    assert published.differences(played.document) == []
    assert played.document["state"] == "Final"


def test_every_acknowledged_ballot_counts_once(played: Played) -> None:
    assert played.traffic.acknowledged == BALLOTS
    turnout = played.document["turnout"]
    assert (turnout["accepted"], turnout["voters"]) == (BALLOTS, BALLOTS)
    assert sum(turnout["rejected"].values()) == 0


def test_kubectl_shows_the_final_session_and_its_winner(played: Played) -> None:
    head, row = kubectl("get", "vs", NAME, "-n", played.session.namespace).splitlines()
    shown = dict(zip(head.split(), row.split(), strict=True))
    assert (shown["PHASE"], shown["ACCEPTED"], shown["LEADER"]) == ("Final", str(BALLOTS), "bob-kiss")


def test_voting_ended_in_its_second(played: Played) -> None:
    assert 0 <= (played.refused_at - played.closes_at).total_seconds() < 2


def test_recount_and_seal_were_jobs_that_complete(played: Played) -> None:
    """The seal's has still to publish when the result is Final."""

    def complete(step: str) -> bool:
        job = get("job", f"{NAME}-{step}-final", played.session.namespace)
        assert job is not None, f"the Job of the {step} stays, to be looked at"
        return bool(job["status"].get("succeeded") == job["spec"].get("completions", 1))

    for step in ("recount", "seal"):
        patiently(lambda step=step: complete(step), f"the {step} is complete", 60)


def test_anyone_can_verify_the_published_result(played: Played, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(played.document))
    key = ask(authority, played.session.url).body["publicKey"]
    command = [sys.executable, "-m", "psephos.cli", "verify", str(tmp_path / "result.json"), "--public-key", key]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_viewer_saw_the_count_grow_to_the_result(played: Played) -> None:
    counts = [frame["turnout"]["accepted"] for frame in played.viewer.frames]
    assert played.viewer.backwards == []
    assert counts == sorted(counts)
    assert len(set(counts)) > 5
    assert played.viewer.newest["totals"] == played.document["totals"]
    assert len(played.viewer.newest["outcome"]["rounds"]) == 3


def test_the_results_page_came_through_the_ingress(played: Played) -> None:
    page = played.page.page
    expect(page.locator("#phase")).to_have_text("Final")
    expect(page.locator("#counted")).to_have_text(f"{BALLOTS:,}")
    played.page.check()
    if os.environ.get("UPDATE_SCREENSHOTS"):
        page.screenshot(path=PICTURE, full_page=True)


def test_receipts_are_found_in_the_ledger(played: Played, authority: Authority) -> None:
    for receipt in played.traffic.receipts[:: BALLOTS // 20]:
        assert ask(authority, f"{played.session.url}/receipts/{receipt}").body["status"] == "counted"


def test_all_pods_met_the_restricted_standard(played: Played) -> None:
    """The namespace takes no others; nothing but warnings would tell of pods that could not be made."""
    pods = items("pods", played.session.namespace)
    assert pods != []
    refused = [
        event["message"]
        for event in items("events", played.session.namespace)
        if "PodSecurity" in event.get("message", "")
    ]
    assert refused == []
