"""What Linux does for a process that asks it by `prctl`, and how a process changes its own command line."""

import ctypes
import os
import signal
from pathlib import Path

from psephos.platform.errors import PsephosError

_SET_PARENT_DEATH_SIGNAL, _SET_NAME = 1, 15  # linux/prctl.h
_ARGUMENTS_START = 45  # of the fields of /proc/PID/stat after the name: arg_start, arg_end (proc_pid_stat(5))
_libc = ctypes.CDLL(None, use_errno=True)


class ParentGone(PsephosError):
    """The parent had ended before its death signal was armed."""


def prctl(option: int, value: int) -> None:
    """prctl(2) with a number. Raises OSError."""
    if _libc.prctl(option, int(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def end_with_parent(parent: int) -> None:
    """From now on this process is killed when its parent, process `parent`, ends. Raises ParentGone, OSError."""
    prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        raise ParentGone


def set_title(title: str) -> None:
    """What `ps` and `top` show of this process: its name (15 bytes of it) and its command line."""
    _libc.prctl(_SET_NAME, title.encode(), 0, 0, 0)
    _overwrite_arguments(title.encode())


def _overwrite_arguments(title: bytes) -> None:
    """The kernel reads a command line from where it once put it: at the top of the process's own stack.

    A title that is longer than the original command line is cut off: what follows it is the environment.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(field) for field in fields[_ARGUMENTS_START : _ARGUMENTS_START + 2])
    if 0 < start < end:  # zeros where the kernel hides them
        ctypes.memmove(start, title[: end - start - 1].ljust(end - start, b"\0"), end - start)
