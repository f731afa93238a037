"""The local store is a cache: whatever becomes of it, the ledger's blocks make it again."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest
from tests.faults.client import ballots
from tests.faults.conftest import Drill, wait
from tests.harness import Record, Role, Running

from psephos.roles.tally.store import Identity, Store, boot_id

ROW = "store"
WIPED = "store wiped, rebuilding from the ledger"
TMPFS_BYTES = 2 << 20
WIPES = 5  # of four stores: at least one could not be built again


def store_of(running: Running, partition: int) -> Path:
    return running.folder / "tally-0" / f"partition-{partition}"


def wiped(worker: Role, why: str) -> set[int]:
    """Partitions whose store was wiped for this reason."""
    return {event["partition"] for event in worker.events(WIPED) if why in event["why"]}


def recovered(worker: Role, partition: int) -> int:
    """Blocks applied to this partition's store."""
    return sum(e["blocks"] for e in worker.events("partition recovered") if e["partition"] == partition)


@pytest.mark.fault(ROW, "store deleted, truncated, an old copy, of another session")
def test_a_store_that_is_gone_damaged_old_or_foreign_is_brought_to_the_ledgers_head(drill: Drill) -> None:
    running = drill.session()
    client = drill.client(running)
    records = ballots(running, 4_000, drill.chance)
    worker = running.start_worker(0)
    client.send(records[:1_000])
    drill.wait_counted(running)
    worker.stop()
    shutil.copytree(store_of(running, 2), drill.folder / "old")
    worker = running.start_worker(0)
    client.send(records[1_000:2_000])
    drill.wait_counted(running)
    worker.kill()
    deleted, truncated, old, foreign = (store_of(running, number) for number in range(4))
    shutil.rmtree(deleted)
    data = truncated / "data.mdb"
    os.truncate(data, data.stat().st_size // 2)
    shutil.rmtree(old)
    shutil.copytree(drill.folder / "old", old)
    shutil.rmtree(foreign)
    Store(foreign, Identity("another-session", 3, boot_id()), b"?" * 32).close()
    client.send(records[2_000:])
    drill.healed()
    worker = running.start_worker(0)
    drill.conclude(
        running,
        injected=4,
        path=lambda: {
            "deleted: blocks recovered": recovered(worker, 0),
            "truncated: rebuilt": len(wiped(worker, "") & {1}),
            "old: blocks recovered": recovered(worker, 2),
            "foreign: rebuilt": len(wiped(worker, "another-session")),
        },
    )


@pytest.mark.fault(ROW, "power loss: another boot, pages that never reached the disk")
def test_a_store_that_was_open_when_the_power_went_is_not_trusted(drill: Drill) -> None:
    running = drill.session()
    client = drill.client(running)
    records = ballots(running, 12_000, drill.chance)
    worker = running.start_worker(0)
    client.send(records[:8_000])
    drill.wait_counted(running)
    worker.kill()
    for partition in range(4):
        _tear(store_of(running, partition) / "data.mdb")
    client.send(records[8_000:])
    drill.healed()
    worker = running.start_worker(0, PSEPHOS_TEST_BOOT_ID="the machine started again")
    drill.wait_counted(running)
    torn = wiped(worker, "not closed in order")
    worker.stop()
    again = running.start_worker(0, PSEPHOS_TEST_BOOT_ID="and once more, after an orderly end")
    drill.conclude(running, injected=4, path=lambda: {"stores rebuilt": len(torn)})
    assert not again.events(WIPED), "a store that was closed in order is trusted after a boot"


def _tear(data: Path) -> None:
    """Pages in the middle hold what was there before they were written: nothing."""
    size = data.stat().st_size
    with data.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(bytes(size // 4 // 4096 * 4096))


@pytest.mark.fault(ROW, "disk full at commit after the put (ENOSPC)")
def test_a_disk_that_is_full_when_the_store_commits_loses_nothing_and_is_named(drill: Drill) -> None:
    running = drill.session()
    client = drill.client(running)
    records = ballots(running, 12_000, drill.chance)
    worker = running.start_worker(0, wrapper=small_disk(running.folder / "tally-0"))
    client.send(records[:2_000])
    drill.wait_counted(running)
    ballast = Path(f"/proc/{worker.process.pid}/root{running.folder}/tally-0/ballast")
    fill(ballast)
    heads = running.head_ends()
    client.send(records[2_000:9_000])
    wait(lambda: wiped(worker, "No space left"), "a commit that found the disk full")
    rest = _pieces(records[9_000:], 100)
    wait(lambda: _stays_full(worker, ballast, lambda: client.send(next(rest, []))), "stays full, and says so")
    for some in rest:
        client.send(some)
    assert sum(running.head_ends()) > sum(heads), "the block was put before the commit failed"
    assert worker.process.running
    ballast.unlink()
    drill.healed()
    drill.conclude(
        running,
        injected=1,
        path=lambda: {
            "commits that found it full": len(worker.events(WIPED)),
            "blocks recovered": worker.metric("psephos_tally_blocks_recovered_total"),
        },
    )
    assert worker.process.running
    wait(lambda: not worker.reasons(), "ready again")


def _pieces(records: Sequence[Record], size: int) -> Iterator[list[Record]]:
    remaining = iter(records)
    while piece := list(islice(remaining, size)):
        yield piece


def _stays_full(worker: Role, ballast: Path, send: Callable[[], None]) -> bool:
    """Takes what a wiped store left free while votes come in; true once one was wiped again, and is not ready."""
    fill(ballast)
    send()
    return len(worker.events(WIPED)) >= WIPES and "store-" in str(worker.reasons())


def small_disk(folder: Path) -> list[str]:
    """Runs the command behind it with a small file system of its own at `folder`, gone with the process."""
    folder.mkdir()
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    allowed = subprocess.run([*unshare, "true"], capture_output=True, text=True)
    assert allowed.returncode == 0, (
        f"this test mounts a small tmpfs in a namespace of its own, which needs root or user namespaces "
        f"(sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0): "
        f"{allowed.stderr.strip()}"
    )
    mount = f'mount -t tmpfs -o size={TMPFS_BYTES} tmpfs "$0" && exec "$@"'
    return [*unshare, "sh", "-c", mount, str(folder)]


def fill(ballast: Path) -> None:
    """Writes until the file system takes no more."""
    with ballast.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
