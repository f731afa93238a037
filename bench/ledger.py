"""What is read back from the ledger: a store that is built again, and a recount of log and ledger together.

Both on a ledger that a real tally worker wrote, at growing numbers of votes: is the time linear, the memory flat?
A store is rebuilt by a worker that starts with an empty folder, until its partitions have recovered. A recount is
the audit, in one process, its start included. Write units are what the ledger itself answers to puts.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import plots
from bench.processes import Watch, cost
from bench.running import Figures, Size, say, servers, shown
from bench.tally import follow, ours, wait_until_left
from bench.votes import Session
from psephos.adapters.dynamodb import Ledger
from psephos.adapters.dynamodb.ledger import dynamodb_client
from psephos.adapters.kafka import tally_group
from psephos.formats.blocks import decode_block
from psephos.platform.child_process import ChildProcess
from psephos.platform.settings import Settings, load_settings
from psephos_lab.ports import free_port

VOTES: dict[Size, Sequence[int]] = {
    "smoke": (10_000, 20_000),
    "quick": (100_000, 300_000),
    "full": (1_000_000, 5_000_000, 20_000_000),
}
COUNTING = 2  # workers that write the ledger: that is not what is measured here
GIVE_UP_S = 1200.0
ONE_ITEM_UNITS = 1  # DynamoDB bills a write unit an item of up to a KB


def measure(size: Size) -> Iterator[Figures]:
    """One session that grows; each number of votes is measured when it is reached."""
    grown = []
    with servers() as backends, tempfile.TemporaryDirectory(prefix="psephos-bench-") as folder:
        session = Session(backends, Path(folder) / "session")
        environ = session.fresh_ledger()
        for votes in VOTES[size]:
            session.produce(votes - session.votes, seed=votes)
            _count(session, environ, Path(folder))
            figures = {"votes": votes, **_rebuild(session, environ), **_recount(session, environ)}
            grown.append({**figures, **_write_units(load_settings(environ), session)})
            say(f"  {shown(grown[-1])}")
            yield {"grown": grown}


def draw(figures: Figures, folder: Path) -> None:
    grown = figures["grown"]
    points = {
        name: [(each["votes"] / 1e6, each[key]) for each in grown]
        for name, key in (
            ("store rebuilt, voters/s", "rebuilt_voters_a_second"),
            ("recount, votes/s of a core", "recounted_votes_a_core_second"),
        )
    }
    plots.lines(folder / "ledger-speed.svg", "Read back from the ledger", "million votes", "a second", points)
    memory = {
        name: [(each["votes"] / 1e6, each[key]) for each in grown]
        for name, key in (("rebuild", "rebuild_peak_private_mb"), ("recount", "recount_peak_private_mb"))
    }
    plots.lines(folder / "ledger-memory.svg", "Private memory at its peak", "million votes", "MB", memory)


def _count(session: Session, environ: dict[str, str], folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as stores:
        run = ours(session, Path(stores), workers=COUNTING, environ=environ)
        follow(session, run, Path(stores), from_start=False)


def _rebuild(session: Session, environ: dict[str, str]) -> Figures:
    """From an empty folder until all partitions have recovered, by what the worker logs."""
    with tempfile.TemporaryDirectory(prefix="psephos-bench-") as folder:
        log = Path(folder) / "rebuild.log"
        told = {**environ, "PSEPHOS_DATA_DIR": folder, "PSEPHOS_ADMIN_PORT": str(free_port())}
        wait_until_left(session, tally_group(session.settings.session_uid))
        child = ChildProcess("rebuild", (sys.executable, "-m", "psephos.roles.tally"), log, told)
        child.start()
        assert child.pid is not None
        try:
            with Watch([child.pid]) as watch:
                _until(log, "partitions assigned", 1, child)
                began, before = time.monotonic(), cost([child.pid])
                _until(log, "partition recovered", session.partitions, child)
                seconds, after = time.monotonic() - began, cost([child.pid])
        finally:
            child.stop()
    voters = sum(decode_block(head).state.voters for head in _heads(load_settings(environ), session))
    cpu = after.cpu_s - before.cpu_s
    return {
        "rebuilt_voters_a_second": voters / seconds,
        "rebuilt_voters_a_cpu_second": voters / cpu,
        "rebuild_peak_private_mb": watch.peak.private / 1e6,
    }


def _recount(session: Session, environ: dict[str, str]) -> Figures:
    with tempfile.TemporaryDirectory(prefix="psephos-bench-") as folder:
        command = (sys.executable, "-m", "psephos.roles.recount", "--audit")
        child = ChildProcess(
            "recount", command, Path(folder) / "recount.log", {**environ, "PSEPHOS_DATA_DIR": folder}
        )
        began, before = time.monotonic(), _ended_children_s()
        child.start()
        assert child.pid is not None
        with Watch([child.pid]) as watch:
            code = child.wait(GIVE_UP_S)
        seconds, cpu = time.monotonic() - began, _ended_children_s() - before
        if code != 0:
            raise RuntimeError(f"the recount ended with {code}: {child.last_words()}")
    return {
        "recounted_votes_a_second": session.votes / seconds,
        "recounted_votes_a_core_second": session.votes / cpu,
        "recount_peak_private_mb": watch.peak.private / 1e6,
    }


def _ended_children_s() -> float:
    """CPU time of all children of this process that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _write_units(settings: Settings, session: Session) -> Figures:
    """What this ledger's blocks cost, put once more into another table; beside an item a vote."""
    client: Any = dynamodb_client(settings)
    table = f"{settings.dynamodb_table}-units"
    Ledger(client, table, settings.session_uid).create_table()
    units, count = 0.0, 0
    for partition in range(session.partitions):
        for block in Ledger.of(settings).blocks(partition):
            key = {"pk": {"S": f"{settings.session_uid}#{partition}"}, "sk": {"N": str(block.base)}}
            answer = client.put_item(
                TableName=table, Item={**key, "b": {"B": block.payload}}, ReturnConsumedCapacity="TOTAL"
            )
            units += answer["ConsumedCapacity"]["CapacityUnits"]
            count += 1
    client.delete_table(TableName=table)
    return {
        "blocks": count,
        "write_units_a_million_votes": units / session.votes * 1e6,
        "of_one_item_a_vote": units / (session.votes * ONE_ITEM_UNITS),
    }


def _heads(settings: Settings, session: Session) -> list[bytes]:
    ledger = Ledger.of(settings)
    heads = [ledger.head(partition) for partition in range(session.partitions)]
    return [head.payload for head in heads if head is not None]


def _until(log: Path, event: str, times: int, child: ChildProcess) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    said = f'"event":"{event}"'
    while log.read_text().replace('": "', '":"').count(said) < times:
        if not child.running:
            raise RuntimeError(f"{child.name} ended with exit code {child.exit_code}: {child.last_words()}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{child.name} did not say {event!r} {times} times in {GIVE_UP_S:.0f} s")
        time.sleep(0.02)
