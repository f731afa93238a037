"""A role that lives but does nothing: its supervisor writes down where it stands, kills it and starts it again."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.prepared import Prepared
from tests.waiting import READY_S, wait_until

from psephos.client.http import NoAnswer, request
from psephos.platform.signals import STACKS
from psephos.roles.serve.layout import RoleProcess
from psephos.roles.serve.roles import supervise
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

HANG_S = READY_S  # so long that nothing that is only slow on a busy machine is taken for a hang
SILENT_S = 5.0  # for a role that does hang


def test_a_role_that_stands_still_is_killed_and_started_again(
    backends: Backends, unique: Callable[[str], str], tmp_path: Path
) -> None:
    prepared, port = Prepared(backends, unique("hangs"), tmp_path / "session"), free_port()
    own = {"PSEPHOS_ADMIN_PORT": str(port), "PSEPHOS_GATEWAY_PORT": "0"}
    gateway = RoleProcess("gateway", "gateway", own, range(port, port + 1))
    supervisor = supervise([gateway], prepared.environ, tmp_path, hang_s=HANG_S)
    supervisor.start()
    try:
        assert supervisor.wait_ready(READY_S)
        first = supervisor.pids["gateway"]
        os.kill(first, STACKS)
        wait_until(lambda: "Current thread" in (tmp_path / "gateway.log").read_text(), "its stacks are in its log")
        assert supervisor.pids["gateway"] == first, "it goes on"

        os.kill(first, signal.SIGSTOP)
        supervisor._hang_s = SILENT_S
        wait_until(
            lambda: supervisor.pids.get("gateway", first) != first, "it was killed and started again", READY_S
        )
        supervisor._hang_s = HANG_S
        wait_until(lambda: _lives(port), "and lives", READY_S)
        assert supervisor.restarts == 1
        supervisor.check()
    finally:
        supervisor.stop()


def _lives(port: int) -> bool:
    try:
        return request(f"http://127.0.0.1:{port}/livez").status == 200
    except NoAnswer:
        return False
