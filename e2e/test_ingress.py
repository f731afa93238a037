"""Through the ingress: hosts, paths, TLS, streams, a browser that votes, and whose address a request has."""

from __future__ import annotations

import json
import re
import socket
import ssl

import pytest
import yaml
from playwright.sync_api import Browser, expect
from tests.integration.browsing import WITHIN_MS, Visit
from tests.waiting import wait_until

from e2e.certificates import Authority
from e2e.deploy import HTTPS_PORT
from e2e.kube import ROOT, kubectl
from e2e.outside import events, get, post, wait_published
from e2e.reader import Reader
from e2e.sessions import SMALL, Session, session

OPEN_BURST = 60  # anonymous tokens for one address at once


@pytest.fixture(scope="module")
def lunch(namespace: str) -> Session:
    """The example that anyone may vote in."""
    document = yaml.safe_load((ROOT / "manifests/examples/sessions/single-choice.yaml").read_text())
    document["metadata"]["namespace"] = namespace
    kubectl("apply", "-f", "-", stdin=json.dumps(document))
    return Session("lunch", namespace)


@pytest.fixture(scope="module")
def both(lunch: Session, namespace: str, authority: Authority) -> tuple[Session, Session]:
    """Two sessions, each at a host of its own."""
    other = session("dinner", namespace, capacity=SMALL)
    lunch.wait("Open")
    other.wait("Open")
    for one in (lunch, other):
        wait_published(authority, one)
    return lunch, other


def test_each_host_is_its_own_session(both: tuple[Session, Session], authority: Authority) -> None:
    lunch, dinner = both
    assert get(authority, lunch.url).body["title"] == "Where do we eat?"
    assert get(authority, dinner.url).body["session"] == "dinner"
    elsewhere = dinner.url.replace("/sessions/dinner", "/sessions/lunch")
    assert get(authority, elsewhere).status == 404
    assert get(authority, dinner.url.replace("dinner.", "nobody.")).status == 404


def test_votes_and_results_are_told_apart_by_their_path(
    both: tuple[Session, Session], authority: Authority
) -> None:
    lunch, _ = both
    assert post(authority, f"{lunch.url}/votes").problem == "unsupported-media-type", "ingest answered"
    assert get(authority, f"{lunch.url}/results").body["session"] == "lunch", "the gateway answered"


def test_the_certificate_is_the_sessions_own(both: tuple[Session, Session], authority: Authority) -> None:
    lunch, _ = both
    with (
        socket.create_connection(("127.0.0.1", HTTPS_PORT), timeout=5) as raw,
        authority.context.wrap_socket(raw, server_hostname=lunch.host) as connection,
    ):
        assert connection.version() in ("TLSv1.2", "TLSv1.3")
    with (
        socket.create_connection(("127.0.0.1", HTTPS_PORT), timeout=5) as raw,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        authority.context.wrap_socket(raw, server_hostname="nobody.example")


def test_frames_stream_as_server_sent_events(both: tuple[Session, Session], authority: Authority) -> None:
    _, dinner = both
    (frame,) = events(authority, dinner, 1)
    assert frame["session"] == "dinner"
    token = {"Authorization": f"Bearer {dinner.token('somebody')}"}
    assert post(authority, f"{dinner.url}/votes", json={"choices": ["tea"]}, headers=token).status == 202
    wait_until(lambda: events(authority, dinner, 1)[0]["turnout"]["accepted"] == 1, "the vote is in a frame")


def test_a_browser_votes_and_holds_a_receipt(both: tuple[Session, Session], browser: Browser) -> None:
    lunch, _ = both
    context = browser.new_context(ignore_https_errors=True)
    expect.set_options(timeout=WITHIN_MS)
    visit = Visit(context.new_page(), f"{lunch.page}/vote")
    visit.page.get_by_role("radio", name="The soup place").check()
    visit.page.get_by_role("button", name="Cast my vote").click()
    expect(visit.page.locator("#receipt-title:visible")).to_have_text("Your vote is counted")
    expect(visit.page.locator("#receipt-text")).to_have_value(re.compile(r"^[\w-]{40,400}$"))
    visit.check()
    context.close()


def test_limits_are_by_the_address_of_the_client_and_not_by_what_it_claims(
    both: tuple[Session, Session], authority: Authority, reader: Reader
) -> None:
    lunch, _ = both
    answers = [post(authority, f"{lunch.url}/tokens").status for _ in range(OPEN_BURST + 40)]
    assert set(answers) == {201, 429}
    claims = [
        post(authority, f"{lunch.url}/tokens", headers={"X-Forwarded-For": f"192.0.2.{number}"}).status
        for number in range(10)
    ]
    assert claims.count(201) <= 2, "whoever writes another address into a header is still the same client"
    assert reader.run(_FROM_A_POD, host=lunch.host).strip() == "201", "another client has a share of its own"


_FROM_A_POD = """
import json, sys, urllib.request
host = json.load(sys.stdin)["host"]
address = "http://traefik.ingress.svc/v1/sessions/lunch/tokens"
request = urllib.request.Request(address, method="POST", headers={"Host": host})
print(urllib.request.urlopen(request, timeout=10).status)
"""
