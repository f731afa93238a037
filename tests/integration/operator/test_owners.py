"""Who owns partitions, as Kafka tells the operator, when a tally worker dies or is cut off."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.harness import PARTITIONS, Role, Running
from tests.servers import Servers
from tests.waiting import READY_S, wait_until

from psephos.adapters.kafka import LogAdmin, LogUnavailable
from psephos.roles.tally.worker import SESSION_TIMEOUT_MS

LOOK_S = 5.0  # the coordinator's look at its members, and ours at it, on a busy machine


@pytest.mark.parametrize("end", [Role.kill, Role.pause], ids=["killed", "cut off"])
def test_a_worker_that_is_no_more_counts_for_its_session_time_out_and_no_longer(
    backends: Servers, unique: Callable[[str], str], tmp_path: Path, end: Callable[[Role], None]
) -> None:
    running = Running(backends, unique("owners"), tmp_path)  # type: ignore[arg-type]
    admin = LogAdmin(running.settings)

    def owned() -> int | None:
        try:
            return admin.count_owned()
        except LogUnavailable:
            return None

    try:
        running.open()
        worker = running.start_worker(0)
        wait_until(lambda: owned() == PARTITIONS, "the worker owns all", READY_S)
        end(worker)
        ended_at = time.monotonic()
        wait_until(lambda: owned() == 0, "nobody owns any", 60)
        assert time.monotonic() - ended_at < SESSION_TIMEOUT_MS / 1000 + LOOK_S
    finally:
        running.stop_workers()
