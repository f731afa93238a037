"""Three brokers, Redis and DynamoDB Local for the suite, one drill a test, and the table at the end."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.faults import report
from tests.faults.client import Client, Journal
from tests.faults.dynamodb_proxy import DynamoProxy
from tests.faults.oracle import Audit, Session, audit, audit_ledger, published_ends
from tests.faults.rows import ROWS
from tests.harness import PARTITIONS, Running
from tests.waiting import PATIENCE_S, READY_S, pause_s

from psephos.roles.recount.job import audit as recount
from psephos_lab.servers import Backends

Seen = Callable[[], Mapping[str, float]]  # what proves that the path ran, asked when all is counted
_LAST_LINES = 80  # of a role's log, after a failure
_passed = pytest.StashKey[bool]()


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    """Servers that tests may kill, pause and start again; a test leaves them running."""
    running = Backends(tmp_path_factory.mktemp("cluster"), brokers=3)
    running.start(READY_S)
    try:
        yield running
    finally:
        running.stop()


class Drill:
    """One fault, from its session to its line in the table."""

    def __init__(self, request: pytest.FixtureRequest, cluster: Backends, folder: Path) -> None:
        marker = request.node.get_closest_marker("fault")
        assert marker is not None, "a test of the fault suite names its fault: @pytest.mark.fault(row, name)"
        self.row, self.name = marker.args
        assert self.row in ROWS, f"no row of the fault table is called {self.row!r}"
        self._properties: list[tuple[str, object]] = request.node.user_properties
        self.seed = str(request.config.getoption("--seed"))
        self.everything = bool(request.config.getoption("--all-faults"))
        self.chance = random.Random(f"{self.seed} {request.node.name}")
        self.cluster = cluster
        self.folder = folder
        self.concluded = False
        self._healed_at = time.monotonic()
        self._sessions: list[Running] = []
        self._proxies: list[DynamoProxy] = []

    def pick(self, selection: int, everything: int) -> int:
        """A size: of the selection inside `make test`, or of `make faults`."""
        return everything if self.everything else selection

    def proxy(self) -> DynamoProxy:
        proxy = DynamoProxy(self.cluster.dynamodb_endpoint)
        self._proxies.append(proxy)
        return proxy

    def session(self, *, proxy: DynamoProxy | None = None, replication: int = 3, **voters: Any) -> Running:
        folder = self.folder / f"session-{len(self._sessions)}"
        folder.mkdir()
        name = f"f{self.chance.getrandbits(32):08x}-{time.time_ns() % 10**9}"
        running = Running(
            self.cluster,
            name,
            folder,
            replication=replication,
            dynamodb_endpoint=proxy.endpoint if proxy else None,
            **voters,
        )
        self._sessions.append(running)
        running.open()
        return running

    def client(self, running: Running) -> Client:
        """A client whose journal the judge will read."""
        return Client(running, Journal(journal_of(running)))

    def healed(self) -> None:
        """The fault is over: the seconds to recover begin."""
        self._healed_at = time.monotonic()

    def wait_counted(self, running: Running, timeout: float = PATIENCE_S) -> None:
        """Waits until the ledger holds all that the log holds.

        NB: the log is asked again each time: a leader that was paused answers with its old end until it hears that
        it leads no more.
        """
        wait(lambda: running.head_ends() == running.ends(), "the ledger's heads at the log's ends", timeout)

    def wait_published(self, running: Running) -> None:
        """Waits until the tallies topic says what the ledger's heads say. Ends may not go backwards in it."""
        ends = running.head_ends()
        session = watched(running)
        wait(lambda: published_ends(session) == ends, f"tallies published up to {ends}")

    def conclude(self, running: Running, *, injected: int, path: Seen, published: bool = True) -> Audit:
        """Waits until all is counted, asks the judge, and writes the line. Fails if anything is amiss."""
        self.wait_counted(running)
        recovered_s = time.monotonic() - self._healed_at
        if published:
            self.wait_published(running)
        return self.judge(running, injected=injected, path=path, recovered_s=recovered_s)

    def judge(self, running: Running, *, injected: int, path: Seen, recovered_s: float | None = None) -> Audit:
        """As `conclude`, with everything counted already. The product's own recount is heard beside the judge."""
        found = audit(watched(running), journal_of(running))
        assert not found.faults, found.faults[:5]
        counted_again = recount(running.settings, parallelism=1)
        assert counted_again.match, counted_again.differences[:5]
        self.record(
            injected=injected,
            path=path,
            votes=found.records,
            lost=len(found.lost),
            double=len(found.double),
            recovered_s=time.monotonic() - self._healed_at if recovered_s is None else recovered_s,
        )
        assert not found.lost, found.lost[:5]
        assert not found.double, found.double[:5]
        return found

    def judge_ledger(self, running: Running, *, injected: int, path: Seen) -> None:
        """As `judge`, where the log itself was broken: by journal and ledger alone."""
        records, lost, double = audit_ledger(watched(running), journal_of(running))
        self.record(
            injected=injected,
            path=path,
            votes=records,
            lost=len(lost),
            double=len(double),
            recovered_s=time.monotonic() - self._healed_at,
        )
        assert not lost, lost[:5]
        assert not double, double[:5]

    def record(self, *, injected: int, path: Seen, votes: int, lost: int, double: int, recovered_s: float) -> None:
        self.concluded = True
        seen = path()
        outcome = report.Outcome(self.row, self.name, injected, seen, votes, lost, double, recovered_s, self.seed)
        self._properties.append((report.PROPERTY, asdict(outcome)))
        unseen = [what for what, number in seen.items() if number < 1]
        assert injected >= 1, "nothing was injected"
        assert seen, "no path was named"
        assert not unseen, f"never seen: {', '.join(unseen)}"

    def explain(self) -> None:
        """After a failure the report says where all roles stood: last lines, and the stacks of those alive."""
        for running in self._sessions:
            for role in running.workers:
                role.explain()
                print(
                    f"--- {role.log}", *role.log.read_text(errors="replace").splitlines()[-_LAST_LINES:], sep="\n"
                )

    def close(self) -> None:
        for running in self._sessions:
            running.stop_workers()
        for proxy in self._proxies:
            proxy.close()
        for running in self._sessions:
            running.admin.delete_topics()  # keeps brokers light


def journal_of(running: Running) -> Path:
    return running.folder / "journal"


def watched(running: Running) -> Session:
    settings = running.settings
    return Session(
        kafka=settings.kafka_bootstrap,
        dynamodb=str(settings.dynamodb_endpoint),
        table=settings.dynamodb_table,
        uid=settings.session_uid,
        partitions=PARTITIONS,
        genesis_hash=running.genesis.hash,
        last=running.session.spec.voters.revote == "last",
    )


def wait(happened: Any, what: str, timeout: float = PATIENCE_S, every: float = 0.1) -> Any:
    """The first true value of `happened()`, asked seldom: the machine is busy with the fault itself."""
    began = time.monotonic()
    while not (value := happened()):
        passed = time.monotonic() - began
        assert passed < timeout, f"not within {timeout:.0f} s: {what}"
        time.sleep(max(every, pause_s(passed)))
    return value


async def until(happened: Callable[[], Any], what: str) -> None:
    """`wait`, beside what runs in the same loop."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        await asyncio.sleep(0.01)


@pytest.fixture
def drill(request: pytest.FixtureRequest, cluster: Backends, tmp_path: Path) -> Iterator[Drill]:
    """Fails a test that never came to its line in the table."""
    running = Drill(request, cluster, tmp_path)
    try:
        yield running
        if request.node.stash.get(_passed, False):
            assert running.concluded, "this fault was not judged"
        else:
            running.explain()
    finally:
        running.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    made = yield
    if made.when == "call":
        item.stash[_passed] = made.passed
    return made


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(row, name): a fault and its row in the table of the architecture")
