"""A session's role processes: forked from one that has imported their modules, where the system allows it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from psephos.platform.child_process import Child
from psephos.platform.forkserver import ForkServer, can_fork, python_program
from psephos.platform.forkserver.host import fork_server_above
from psephos.platform.supervisor import HANG_S, Supervised, Supervisor
from psephos.roles.serve.layout import RoleProcess
from psephos.runtime.forked import ALLOCATOR, COMMAND, IMPORTED


def supervise(
    roles: Sequence[RoleProcess],
    environment: Mapping[str, str],
    logs: Path | None,
    on_change: Callable[[Mapping[str, int]], None] = lambda _pids: None,
    hang_s: float = HANG_S,
) -> Supervisor:
    """Returns a supervisor of these roles. Each gets our environment, then `environment`, then its own variables.

    `logs`: a folder for one log file per role; None: our standard error. The other arguments are `Supervisor`'s.
    """
    fork_server = fork_server_above() or (ForkServer(IMPORTED, ALLOCATOR) if can_fork() else None)
    processes = [
        Supervised(role.name, _child(role, environment, logs, fork_server), role.admin_ports) for role in roles
    ]
    return Supervisor(processes, fork_server=fork_server, on_change=on_change, hang_s=hang_s)


def _child(
    role: RoleProcess, environment: Mapping[str, str], logs: Path | None, fork_server: ForkServer | None
) -> Child:
    log = None if logs is None else logs / f"{role.name}.log"
    own = {**environment, **role.environment}
    return python_program(fork_server, role.name, COMMAND, (role.role,), log, own)
