"""Sessions that take votes from a browser: ingest, tally and gateway as real processes."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect
from tests.integration.browsing import WITHIN_MS, Visit, chromium
from tests.integration.readside.conftest import PARTITIONS, ReadSide, fetch, running
from tests.waiting import wait_until

from psephos.client.tokens import signer, token_template
from psephos.domain.ballots import BallotRules
from psephos.formats.blocks import RecordClass, decode_block
from psephos.formats.votes import WEIGHT_ONE, voter_key
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

TOKEN_KEY = b"k" * 32
NAMES = ["Ada", "Bob", "Cyd", "Dot"]
OPTIONS = [{"id": name.lower(), "label": name} for name in NAMES]
BALLOTS: dict[str, dict[str, Any]] = {
    "single": {"type": "single", "options": OPTIONS, "min": 0},
    "approval": {"type": "approval", "options": OPTIONS, "max": 2},
    "ranked": {"type": "ranked", "options": OPTIONS, "min": 2, "max": 3},
    "score": {"type": "score", "options": OPTIONS, "scale": {"min": 0, "max": 5}},
    "points": {"type": "score", "options": OPTIONS, "scale": {"min": -50, "max": 50}},
}


class Voting:
    """A session, its doors, and what its ledger holds."""

    def __init__(self, readside: ReadSide, *, tally: bool = True, **ingest: Any) -> None:
        self.readside = readside
        key, self.ingest_port = readside.folder / "token-key", free_port()
        key.write_bytes(TOKEN_KEY)
        self._own = {"ingest_port": self.ingest_port, "token_key_file": key, **ingest}
        self.ingest = readside.start("ingest", **self._own)
        if tally:
            readside.start("tally")
        self.gateway = readside.start("gateway", ingest_url=f"http://127.0.0.1:{self.ingest_port}")
        self._sign = signer("HS256", TOKEN_KEY)
        self._rules = BallotRules.of(readside.session)
        for role in readside.roles:
            role.wait_ready()
        wait_until(lambda: self.info()["phase"] == "Open", "the gateway has heard that the session is open")

    def info(self) -> Any:
        return fetch(self.gateway.v1()).json

    def restart_ingest(self) -> None:
        """Another process, which knows nothing of what the one before has answered."""
        self.ingest.kill()
        self.readside.roles.remove(self.ingest)
        self.ingest = self.readside.start("ingest", **self._own).wait_ready()

    def token(self, subject: str, *, expires_in_s: int = 600) -> str:
        claims = token_template(self.readside.session).claims(subject, int(time.time()))
        return self._sign({**claims, "exp": int(time.time()) + expires_in_s})

    def link(self, subject: str, **claims: Any) -> str:
        """A voter's personal link."""
        return f"{self.gateway.url}/vote#token={self.token(subject, **claims)}"

    def counted(self, subject: str) -> list[dict[str, object]]:
        """This voter's ballots in the ledger."""
        voter = voter_key(self.readside.keys.session, subject)
        return [
            self._rules.to_choices(vote.ballot)
            for block in self._blocks()
            for vote in block.accepted
            if vote.voter == voter
        ]

    def totals(self) -> dict[str, int]:
        """Counted votes by option, of a session with single ballots."""
        last = {block.partition: block.state.tallies for block in self._blocks()}
        sums = [sum(column) // WEIGHT_ONE for column in zip(*last.values(), strict=True)]
        ids = self.readside.session.option_ids
        return {option: votes for option, votes in zip(ids, sums, strict=True) if votes}

    def duplicates(self) -> int:
        return sum(code == RecordClass.DUPLICATE for block in self._blocks() for _, code in block.others)

    def _blocks(self) -> Iterator[Any]:
        for partition in range(PARTITIONS):
            for stored in self.readside.ledger.blocks(partition):
                yield decode_block(stored.payload)


Enter = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def voting(
    backends: Backends, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Voting]:
    """A session with the ballot that `request.param` names, shared by the tests of a module."""
    kind = request.param
    with running(backends, tmp_path_factory.mktemp(kind), {"ballot": BALLOTS[kind]}) as session:
        yield Voting(session)


@pytest.fixture
def lone(backends: Backends, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Voting]:
    """A session of a test's own; parametrize with members of its spec, and `settings` of ingest.

    It is counted where the spec is not the usual one.
    """
    own = dict(getattr(request, "param", {}))
    settings = own.pop("settings", {})
    with running(backends, tmp_path, {"ballot": BALLOTS["single"], **own}) as session:
        yield Voting(session, tally="voters" in own, **settings)


@pytest.fixture
def enter(browser: Browser) -> Iterator[Enter]:
    """Opens a voter's link; whatever the page did is checked at the end."""
    visits: list[tuple[Visit, Voting]] = []
    contexts: list[BrowserContext] = []

    def open_link(voting: Voting, subject: str, *, link: str = "", **context: Any) -> Visit:
        contexts.append(browser.new_context(**{"viewport": {"width": 800, "height": 800}, **context}))
        page = contexts[-1].new_page()
        page.set_default_timeout(WITHIN_MS)
        visits.append((Visit(page, link or voting.link(subject)), voting))
        return visits[-1][0]

    expect.set_options(timeout=WITHIN_MS)
    yield open_link
    for visit, voting in visits:
        visit.check(f"127.0.0.1:{voting.ingest_port}")
        assert not any("token=" in url for url in visit.requests), "a token stays out of addresses"
    for context in contexts:
        context.close()
