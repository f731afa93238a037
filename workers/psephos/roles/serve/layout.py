"""The processes that serve a session, their settings, and the order in which they stop. Pure."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from psephos.platform.settings import PREFIX, Settings, SettingsError


class RoleProcess(NamedTuple):
    """One process: its name (`tally-1`), its role, its own variables, and the ports that report its health.

    Several ingest processes have one parent, which is the process meant here, and one admin port each.
    """

    name: str
    role: str
    environment: Mapping[str, str]
    admin_ports: range


def layout(settings: Settings, workers: int = 1) -> tuple[RoleProcess, ...]:
    """Returns the processes of a session with `workers` tally workers, in the order in which they stop.

    Those that take votes stop first, those that count them last. Admin ports are consecutive, from
    PSEPHOS_ADMIN_PORT on. Raises SettingsError.
    """
    first, row = settings.admin_port, admin_ports(settings.ingest_processes, workers)
    if not 0 < first <= 65_536 - row:
        raise SettingsError(f"{PREFIX}ADMIN_PORT={first}: serve needs {row} ports in a row, from 1 to 65535")
    return tuple(_processes(settings, workers))


def admin_ports(ingest_processes: int, workers: int) -> int:
    """Returns how many admin ports a session takes, including that of `serve` itself."""
    return ingest_processes + len(("gateway", "projector")) + workers + 1


def own_admin_port(settings: Settings, workers: int = 1) -> int:
    """Returns the port on which `serve` itself, or the local stack, reports its health: after the roles' ports."""
    return settings.admin_port + admin_ports(settings.ingest_processes, workers) - 1


def _processes(settings: Settings, workers: int) -> Iterator[RoleProcess]:
    port = settings.admin_port
    yield _process("ingest", "ingest", port, settings.ingest_processes)
    port += settings.ingest_processes
    yield _process("gateway", "gateway", port)
    yield _process("projector", "projector", port + 1)
    for ordinal in range(workers):
        yield _process(f"tally-{ordinal}", "tally", port + 2 + ordinal, WORKER=str(ordinal))


def _process(name: str, role: str, port: int, ports: int = 1, **own: str) -> RoleProcess:
    values = {"ADMIN_PORT": str(port), **own}
    environment = {PREFIX + variable: value for variable, value in values.items()}
    return RoleProcess(name, role, environment, range(port, port + ports))
