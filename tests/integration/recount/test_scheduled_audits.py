"""Audits by schedule, each a real process on real servers. The schedule here is faster than cron's minutes."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.prepared import Prepared
from tests.waiting import wait_until

from psephos.control import set_phase
from psephos.control.phases import current
from psephos.formats.blocks import decode_block, encode_block
from psephos.formats.control import Phase
from psephos.roles.serve import metrics
from psephos.roles.serve.auditing import Auditor
from psephos_lab.servers import Backends

WITHIN_S = 120.0  # an audit takes about two seconds on a quiet machine


def soon(now: datetime) -> datetime:
    """As good as at once."""
    return now + timedelta(milliseconds=200)


class Audits:
    """An auditor of a session that is open, and what it says."""

    def __init__(self, prepared: Prepared, folder: Path, **how: Any) -> None:
        self.news: list[str] = []
        self.log = folder / "audit.log"
        self.auditor = Auditor(
            prepared.settings,
            how.pop("due", soon),
            environment=prepared.environ,
            log_file=self.log,
            progress=self.news.append,
            **how,
        )

    def wait_for(self, words: str) -> None:
        """One more audit that says so."""
        seen = len(self.news)
        wait_until(lambda: any(words in news for news in self.news[seen:]), f"an audit says {words!r}", WITHIN_S)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [event for line in lines if line[:1] == "{" and (event := json.loads(line)).get("event") == name]


@pytest.fixture
def prepared(backends: Backends, unique: Callable[[str], str], tmp_path: Path) -> Prepared:
    """An open session with some votes that were counted right."""
    session = Prepared(backends, unique("a")[:60], tmp_path, closesAt=None)
    session.produce([session.vote(f"v-{number}") for number in range(200)])
    session.write_chains()
    return session


@pytest.fixture
def audits(prepared: Prepared, tmp_path: Path) -> Iterator[Audits]:
    running = Audits(prepared, tmp_path)
    yield running
    running.auditor.stop()


def test_a_ledger_that_is_tampered_with_is_found_by_the_next_audit_while_voting_goes_on(
    prepared: Prepared, audits: Audits
) -> None:
    audits.auditor.start()
    audits.wait_for("agree")
    assert metrics.REGISTRY.get_sample_value("psephos_audit_differs") == 0
    base, payload = next(prepared.ledger.blocks(1))
    block = decode_block(payload)
    accepted = list(block.accepted)
    accepted[3] = accepted[3]._replace(ballot=b"\x00\x01")
    block = block._replace(accepted=accepted)
    prepared.overwrite("1", base, encode_block(block))

    audits.wait_for("DIFFER")
    assert metrics.REGISTRY.get_sample_value("psephos_audit_differs") == 1
    found = audits.events("audit found differences")[-1]
    assert found["level"] == "error"
    assert f"1/{block.accepted[3].offset}: accepted-differs" in found["first"]
    assert current(prepared.settings).phase is Phase.OPEN

    set_phase(prepared.settings, Phase.PAUSED)
    prepared.overwrite("1", base, payload)
    audits.wait_for("agree")
    assert metrics.REGISTRY.get_sample_value("psephos_audit_differs") == 0
    runs = [event["run"] for name in ("audit agrees", "audit found differences") for event in audits.events(name)]
    assert len(runs) == len(set(runs)) >= 3, "each under a name of its own"


def test_audits_end_with_the_voting(prepared: Prepared, audits: Audits) -> None:
    audits.auditor.start()
    audits.wait_for("agree")
    set_phase(prepared.settings, Phase.CLOSING)
    wait_until(lambda: not audits.auditor.running, "no further audit", WITHIN_S)
    assert [news for news in audits.news if "agree" not in news] == []


def test_a_session_that_is_not_open_yet_is_not_audited_and_one_that_never_will_be_neither(
    backends: Backends, unique: Callable[[str], str], tmp_path: Path
) -> None:
    pending = Prepared(backends, unique("p")[:60], tmp_path, closesAt=None, opensAt="2100-01-01T00:00:00Z")
    asked: list[datetime] = []

    def due(now: datetime) -> datetime | None:
        asked.append(now)
        return soon(now) if len(asked) < 4 else None

    audits = Audits(pending, tmp_path, due=due)
    audits.auditor.start()
    wait_until(lambda: not audits.auditor.running, "its schedule has no further time", WITHIN_S)
    assert len(asked) == 4
    assert audits.news == []
    assert not audits.log.exists()


def test_an_audit_that_takes_too_long_is_ended_and_the_next_one_has_its_time(
    prepared: Prepared, tmp_path: Path
) -> None:
    audits = Audits(prepared, tmp_path, longest_s=0.05)
    audits.auditor.start()
    audits.wait_for("not done by then")
    audits.wait_for("not done by then")
    audits.auditor.stop()
    assert audits.events("audit agrees") == []


def test_never_two_at_once_and_none_is_left_behind(prepared: Prepared, audits: Audits) -> None:
    audits.auditor.start()
    most = 0

    def twice_done() -> bool:
        nonlocal most
        most = max(most, _audits_running(prepared))
        return len(audits.news) >= 2

    wait_until(twice_done, "two audits one after the other", WITHIN_S)
    assert most == 1
    wait_until(lambda: _audits_running(prepared), "a third one", WITHIN_S)
    audits.auditor.stop()
    assert _audits_running(prepared) == 0


def _audits_running(prepared: Prepared) -> int:
    """Processes that audit this session."""
    uid, found = f"PSEPHOS_SESSION_UID={prepared.settings.session_uid}".encode(), 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = b"--audit" in (process / "cmdline").read_bytes().split(b"\0")
            found += ours and uid in (process / "environ").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
    return found
