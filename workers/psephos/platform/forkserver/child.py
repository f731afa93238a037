"""From a fork to a program: what `python -m MODULE` has when it starts, and a forked process has not."""

import faulthandler
import os
import runpy
import signal
import sys
import time

from psephos.platform.forkserver.linux import set_title
from psephos.platform.forkserver.messages import Start

_OUTPUT, _ERRORS = 1, 2
_LOG_MODE = 0o666  # less the umask, as of every file that is opened for writing


def become(start: Start) -> None:
    """Runs the program as the main module. Its exceptions and its `SystemExit` pass through."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _redirect(start.log)
    _replace_environment(start.environment)
    set_title(start.name)
    sys.argv = [start.module, *start.arguments]
    runpy.run_module(start.module, run_name="__main__", alter_sys=True)


def _redirect(log: str | None) -> None:
    """Standard input is the fork server's, which is empty. So is its standard output the same as its errors."""
    if log is None:
        return
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _LOG_MODE)
    for descriptor in (_OUTPUT, _ERRORS):
        os.dup2(file, descriptor)
    os.close(file)


def _replace_environment(environment: dict[str, str]) -> None:
    """Also what the interpreter and the C library read of it at their start."""
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    if environment.get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
