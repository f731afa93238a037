"""The folder that holds a stack's data and logs: whose it is, and whether it has room."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from psephos_lab.errors import StackError

#: A stack that runs out of disk breaks in the middle of a vote; better not to start. In bytes.
MIN_FREE_BYTES = 1 << 30

_LOCK_NAME = "lock"

#: Folders of runs that were killed are removed by a later run, once they are this old. In seconds.
_ABANDONED_AFTER = 3_600.0


def cache_folder() -> Path:
    """Where downloads and temporary stacks live: ``$XDG_CACHE_HOME/psephos``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "psephos"


def require_space(folder: Path, min_free_bytes: int = MIN_FREE_BYTES) -> None:
    """Make the folder and see that its disk has room.

    Raises:
        StackError: less than ``min_free_bytes`` are free, or the folder can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StackError(f"{folder} can't be used as data folder: {error.strerror}") from error
    if free < min_free_bytes:
        raise StackError(
            f"the disk below {folder} is nearly full: {free / 1e9:.1f} GB free, {min_free_bytes / 1e9:.1f} GB"
            " needed; make room or choose another data folder"
        )


@contextmanager
def owned(folder: Path) -> Iterator[Path]:
    """Hold the folder for this process alone. The kernel lets go of it when the process ends, however it ends.

    Raises:
        StackError: another stack runs in it.
    """
    with (folder / _LOCK_NAME).open("a+") as lock:
        if not _take(lock):
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise StackError(
                f"another stack (process {holder}) runs in {folder}: stop it or choose another data folder"
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield folder


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A fresh folder for one run, removed afterwards. What killed runs left behind is removed as well."""
    runs = cache_folder() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(runs)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=runs))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(runs: Path) -> None:
    for folder in runs.glob("run-*"):
        with suppress(OSError, StackError):
            if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER:
                with owned(folder):
                    shutil.rmtree(folder)


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
