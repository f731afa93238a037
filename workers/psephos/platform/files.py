"""Files that appear whole or not at all, however the writing process ends."""

import os
from pathlib import Path

_READABLE = 0o666  # minus the umask


def write_whole(path: Path, *parts: bytes, mode: int = _READABLE) -> None:
    """Replaces the file; returns when it is on disk. Several processes may do it: the last one's content stays.

    Raises OSError.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_names(path.parent)


def _sync_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
