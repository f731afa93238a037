"""The folder that holds a stack's data and logs: its owner, and its free space."""

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

#: In bytes. A stack that runs out of disk space fails in the middle of voting; better not to start.
MIN_FREE_BYTES = 1 << 30

_LOCK_NAME = "lock"

#: In seconds. A later run removes the folders of killed runs once they are this old.
_ABANDONED_AFTER = 3_600.0


def cache_folder() -> Path:
    """Returns the folder of downloads and temporary stacks: ``$XDG_CACHE_HOME/psephos``, by default below
    ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "psephos"


def require_space(folder: Path, min_free_bytes: int = MIN_FREE_BYTES) -> None:
    """Makes the folder and checks the free space of its disk.

    Raises StackError if less than ``min_free_bytes`` are free, or the folder can't be made.
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
    """Locks the folder for this process alone. The kernel releases it when the process ends, however it ends.

    Raises StackError if another stack runs in it.
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
    """Makes a fresh folder for one run, and removes it afterwards. Also removes what killed runs left behind."""
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
