"""Real tally workers count, a controller closes, the recount seals: prepare to Final without a reference chain."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.prepared import Prepared
from tests.roles import program
from tests.waiting import wait_until

from psephos.control import LocalController
from psephos.domain.results import verify_result
from psephos.formats.control import Phase
from psephos.roles.recount.job import audit, run_all
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends


@pytest.mark.parametrize("revote", ["first", "last"])
def test_what_a_real_tally_counted_is_recounted_and_final(
    backends: Backends, unique: Callable[[str], str], tmp_path: Path, revote: str
) -> None:
    voters = {"tokens": {"issuer": "i", "audience": "a"}, "revote": revote}
    prepared = Prepared(backends, unique("e")[:60], tmp_path, closesAt=None, voters=voters)
    admin = {"PSEPHOS_ADMIN_PORT": str(free_port())}
    worker = program("tally", "psephos.roles.tally", tmp_path / "tally.log", {**prepared.environ, **admin})
    controller = LocalController(prepared.settings, lambda: run_all(prepared.settings).phase)
    worker.start()
    controller.start()
    try:
        prepared.produce([prepared.vote(f"v-{n}", b"\x00\x00", "a") for n in range(3000)])
        prepared.produce([prepared.vote(f"v-{n}", b"\x00\x01", "b") for n in range(500)])
        prepared.produce([(None, b"poison"), (b"x" * 16, b"poison")], partition=0)
        wait_until(lambda: prepared.ledger.head(0), "the tally counts")
        assert audit(prepared.settings).differences == ()
        controller.close()
        ended = controller.wait(120)
        assert worker.running
    finally:
        controller.stop()
        worker.stop()
    assert ended is not None
    assert ended.phase is Phase.FINAL
    report = audit(prepared.settings)
    assert (report.state, report.differences, report.log_records) == ("Final", (), 3502)
    first, second = (3000, 0) if revote == "first" else (2500, 500)
    assert report.totals == {"ada": first, "bob": second, "cyd": 0}
    assert report.document is not None
    assert verify_result(report.document, prepared.genesis.public_key)
