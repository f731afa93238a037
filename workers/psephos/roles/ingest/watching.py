"""Files that are replaced while a process runs: mounted ConfigMaps and Secrets, or a file on this machine.

They are polled, since a mounted volume changes by a symbolic link of a parent folder, which no watch on the file
would see.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

EVERY_S: Final = 2.0

Mark = tuple[int, int, int, int] | None
"""Identifies the content of a path: device, inode, time of change, size; None: not there."""


def mark(path: Path) -> Mark:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


async def changes(path: Path, since: Mark, *, every_s: float | None = None) -> AsyncIterator[Mark]:
    """Yields each time the file has changed since `since`, and has then been stable for `every_s`.

    So a file that is still being written is left alone, and a missing one is not a change.
    """
    known = before = since
    while True:
        await asyncio.sleep(every_s or EVERY_S)
        now = mark(path)
        if now is not None and now == before and now != known:
            known = now
            yield now
        before = now
