"""`psephos dev up` audits by the session's schedule. Cron knows minutes, so this takes one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.elections.playing import Command
from tests.integration.elections.test_eligibility_on_this_machine import PORTS, SESSION
from tests.integration.readside.conftest import fetch

from psephos.roles.serve import own_admin_port

TWO_MINUTES_S = 180.0


@pytest.mark.long
def test_a_session_on_this_machine_is_audited_by_its_schedule(
    tmp_path: Path, started: Callable[..., Command]
) -> None:
    session = tmp_path / "lunch.yaml"
    session.write_text(SESSION + '  voters: {eligibility: open}\n  recount: {schedule: "* * * * *"}\n')
    stack = started("up", session, *PORTS)
    stack.wait_for_words("Ctrl-C")
    stack.wait_for_words("log and ledger agree", TWO_MINUTES_S)
    assert stack.log_events("audit", "audit agrees")
    admin = f"http://127.0.0.1:{own_admin_port(stack.settings)}"
    assert b'psephos_audits_total{outcome="agrees"} 1.0' in fetch(f"{admin}/metrics").body
    assert fetch(f"{admin}/readyz").status == 200
    assert stack.stop() == 0, stack.errors
