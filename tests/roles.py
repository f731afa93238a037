"""Roles as real processes of a test: forked from one process of each test process, which has imported them all.

A role that is executed spends 0.7 s of CPU on its imports before it does anything, and tests start some hundreds.
What `python -m psephos.<role>` and `psephos <role>` do beyond that is the same: `psephos.platform.forkserver`.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from psephos.platform.child_process import Child, ChildProcess
from psephos.platform.forkserver import ForkedProcess, ForkServer, can_fork
from psephos.roles.tally.crash import CRASH, STOP
from psephos.runtime.forked import IMPORTED

_READ_AT_START = {"PYTHONPATH", CRASH, STOP}  # by the interpreter, and by a module when it is imported

_roles = ForkServer([*IMPORTED, "psephos.roles.recount.main"])
_operators = ForkServer(["psephos_operator.main"])  # apart: to import a client of Kubernetes takes a second


def program(
    name: str,
    module: str,
    log: Path,
    env: Mapping[str, str],
    arguments: Sequence[str] = (),
    wrapper: Sequence[str] = (),
) -> Child:
    """`python -m module arguments`, not started; executed if a `wrapper` runs the command that follows it."""
    if wrapper or not _READ_AT_START.isdisjoint(env) or not can_fork():
        return ChildProcess(name, [*wrapper, sys.executable, "-m", module, *arguments], log, env=env)
    server = _operators if module == "psephos_operator" else _roles
    return ForkedProcess(server, name, module, arguments, log, env)


def end_fork_servers() -> None:
    """Ends the processes that roles were forked from, and every role that still runs."""
    for server in (_roles, _operators):
        server.close()
