"""Requests to Linux by `prctl`, and changing a process's own command line."""

import ctypes
import os
import signal
from pathlib import Path

from psephos.platform.errors import PsephosError

_SET_PARENT_DEATH_SIGNAL, _SET_NAME = 1, 15  # linux/prctl.h
_ARGUMENTS_START = 45  # among the fields of /proc/PID/stat after the name: arg_start, arg_end (proc_pid_stat(5))
_libc = ctypes.CDLL(None, use_errno=True)


class ParentGone(PsephosError):
    """The parent had ended before its death signal was armed."""


def prctl(option: int, value: int) -> None:
    """Calls prctl(2) with a number. Raises OSError."""
    if _libc.prctl(option, int(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def end_with_parent(parent: int) -> None:
    """Lets the kernel kill this process when its parent, process `parent`, ends. Raises ParentGone, OSError."""
    prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        raise ParentGone


def set_title(title: str) -> None:
    """Sets what `ps` and `top` show for this process: its name (15 bytes of it) and its command line."""
    _libc.prctl(_SET_NAME, title.encode(), 0, 0, 0)
    _overwrite_arguments(title.encode())


def _overwrite_arguments(title: bytes) -> None:
    """Overwrites the command line, which the kernel reads where it once put it: at the top of the process's stack.

    A title longer than the original command line is cut off: the environment follows it.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(field) for field in fields[_ARGUMENTS_START : _ARGUMENTS_START + 2])
    if 0 < start < end:  # zeros where the kernel hides them
        ctypes.memmove(start, title[: end - start - 1].ljust(end - start, b"\0"), end - start)
