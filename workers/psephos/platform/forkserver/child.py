"""Turns a fork into a program: sets up what `python -m MODULE` has when it starts and a forked process lacks."""

import faulthandler
import os
import runpy
import signal
import sys
import time

from psephos.platform.forkserver.linux import set_title
from psephos.platform.forkserver.messages import Start

_OUTPUT, _ERRORS = 1, 2
_LOG_MODE = 0o666  # minus the umask, as for every file that is opened for writing


def become(start: Start) -> None:
    """Runs the program as the main module. Its exceptions and its `SystemExit` pass through."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _redirect(start.log)
    _replace_environment(start.environment)
    set_title(start.name)
    sys.argv = [start.module, *start.arguments]
    runpy.run_module(start.module, run_name="__main__", alter_sys=True)


def _redirect(log: str | None) -> None:
    """Redirects output to the log. The fork server's own input is empty, and its output the same as its errors."""
    if log is None:
        return
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _LOG_MODE)
    for descriptor in (_OUTPUT, _ERRORS):
        os.dup2(file, descriptor)
    os.close(file)


def _replace_environment(environment: dict[str, str]) -> None:
    """Replaces the environment, and applies what the interpreter and the C library read from it at their start."""
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    if environment.get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
