"""The gateway's HTTP surface: what the public may know, how it says no, and what browsers are told."""

import re
from collections.abc import Iterator

import pytest
from tests.integration.readside.conftest import ReadSide, Role, fetch, running
from tests.waiting import PATIENCE_S, wait_until

from psephos_lab.servers import Backends


@pytest.fixture(scope="module")
def readside(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadSide]:
    """One session for all tests here: they change nothing."""
    with running(backends, tmp_path_factory.mktemp("doors"), {}) as session:
        yield session


@pytest.fixture(scope="module")
def gateway(readside: ReadSide) -> Role:
    return readside.start("gateway").wait_ready()


async def test_the_session_says_what_is_voted_on(readside: ReadSide, gateway: Role) -> None:
    wait_until(lambda: fetch(gateway.v1()).json["phase"] == "Open", "the control topic is followed")
    info = fetch(gateway.v1()).json
    assert (info["session"], info["title"]) == ("test", "A test of the read side")
    assert info["ballot"]["options"] == [{"id": "ada", "label": "Ada"}, {"id": "bob", "label": "Bob"}]
    assert (info["ballot"]["type"], info["visibility"], info["closesAt"]) == ("single", "live", None)
    assert info["epoch"] == readside.genesis.epoch
    assert info["publicKey"] == readside.keys.public_key
    assert fetch(gateway.url + info["links"]["page"]).status == 200
    by_uid = fetch(f"{gateway.url}/v1/sessions/{readside.settings.session_uid}")
    assert by_uid.json == info


async def test_what_is_not_there_is_a_problem_with_a_stable_type(gateway: Role) -> None:
    for path, status, slug in (
        ("/v1/sessions/other/results", 404, "unknown-session"),
        ("/v1/sessions/other", 404, "unknown-session"),
        ("/sessions/other", 404, "unknown-session"),
        ("/nowhere", 404, "not-found"),
        ("/assets/..%2f__init__.py", 404, "not-found"),
        ("/v1/sessions/test/publication", 404, "not-published"),
        ("/v1/sessions/test/events?since=nonsense", 400, "malformed-request"),
        ("/v1/sessions/test/live?since=1", 400, "malformed-request"),
    ):
        answer = fetch(gateway.url + path)
        assert (answer.status, answer.json["type"]) == (status, f"https://psephos.dev/problems/{slug}"), path
        assert answer.headers["content-type"] == "application/problem+json"


async def test_browsers_are_told_to_run_nothing_but_the_pages_own_files(gateway: Role) -> None:
    page = fetch(gateway.url + "/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "style-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    text = page.body.decode()
    assert "A test of the read side" in text
    inline = re.search(
        r"<script(?! type=\"module\" src=\"/assets/[a-z.]+\"></script>)|<style|\sstyle=|\son\w+=", text
    )
    assert inline is None
    assert "://" not in text, "nothing of anybody else's"
    for path in ("/", "/v1/sessions/test", "/assets/results.js", "/nowhere"):
        assert fetch(gateway.url + path).headers["x-content-type-options"] == "nosniff"


async def test_the_pages_files_are_cached_by_etag(gateway: Role) -> None:
    for path in ("/", "/assets/results.js", "/assets/results.css", "/assets/icon.svg"):
        etag = fetch(gateway.url + path).headers["etag"]
        assert fetch(gateway.url + path, If_None_Match=etag).status == 304


async def test_a_taken_port_stops_the_gateway_with_one_readable_line(readside: ReadSide, gateway: Role) -> None:
    second = readside.start("gateway", gateway_port=gateway.port)
    assert second.process.wait(PATIENCE_S) == 2
    lines = [line for line in second.log.read_text().splitlines() if not line.startswith("{")]
    assert len(lines) == 1
    assert lines[0].startswith(f"psephos gateway: PSEPHOS_GATEWAY_PORT={gateway.port}: ")


@pytest.mark.parametrize(
    ("role", "variables", "named"),
    [
        ("gateway", {"gateway_viewers": "0"}, "PSEPHOS_GATEWAY_VIEWERS="),
        ("projector", {"redis_url": "http://x"}, "PSEPHOS_REDIS_URL="),
        ("projector", {"session_file": "/nowhere.yaml"}, "PSEPHOS_SESSION_FILE: /nowhere.yaml"),
    ],
)
async def test_a_bad_setting_stops_a_role_with_one_readable_line(
    readside: ReadSide, role: str, variables: dict[str, str], named: str
) -> None:
    started = readside.start(role, **variables)
    assert started.process.wait(PATIENCE_S) == 2
    lines = [line for line in started.log.read_text().splitlines() if not line.startswith("{")]
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"psephos {role}: {named}")


async def test_a_gateway_needs_no_secret(readside: ReadSide) -> None:
    gateway = readside.start("gateway", session_key_file="", signing_key_file="", lot_seed_file="").wait_ready()
    receipt = readside.receipt(readside.append(0, [0])[0])
    assert fetch(gateway.v1(f"/receipts/{receipt}")).json["status"] == "counted"
