"""What stands in the way of servers and roles is said in one line."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.guards.leftovers import BOUND
from tests.integration.elections.playing import PSEPHOS, example, psephos
from tests.prepared import Prepared

from psephos_lab.keys import make_door_keys
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

ROLES = ("ingest", "tally", "projector", "gateway", "recount")


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = psephos(
            "dev", "up", example("burlington-2009-irv")[0], "--data-dir", tmp_path / "data", "--port", str(port)
        )
    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1, wanted for results, is taken by" in done.stderr
    assert "Traceback" not in done.stderr


def test_roles_without_kafka_say_so_in_one_line_and_end(
    backends: Backends, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """The session is there, and so is its ledger: nothing but the brokers is missing."""
    prepared = Prepared(backends, unique("session")[-40:], tmp_path)
    address = f"127.0.0.1:{free_port()}"
    environment = {
        **os.environ,
        **prepared.environ,
        "PSEPHOS_KAFKA_BOOTSTRAP": address,
        "PSEPHOS_TOKEN_KEY_FILE": str(make_door_keys(tmp_path / "keys").token),
        **dict.fromkeys(("PSEPHOS_ADMIN_PORT", "PSEPHOS_INGEST_PORT", "PSEPHOS_GATEWAY_PORT"), "0"),
        "PSEPHOS_LOG_LEVEL": "error",
    }
    running = {
        role: subprocess.Popen([*BOUND, *PSEPHOS, role], env=environment, stderr=subprocess.PIPE, text=True)
        for role in ROLES
    }
    for role, process in running.items():
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2, role
        (line,) = errors.splitlines()
        assert line.startswith(f"psephos: no Kafka broker answers at {address}"), role
