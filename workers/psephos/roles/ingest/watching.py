"""Files that are replaced while a process runs: mounted ConfigMaps and Secrets, or a file on this machine.

Polled, as a mounted volume changes by a symbolic link of a folder above, which no watch on the file would see.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

EVERY_S: Final = 2.0

Mark = tuple[int, int, int, int] | None
"""What tells one content of a path from another: device, inode, time of change, size; None: not there."""


def mark(path: Path) -> Mark:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


async def changes(path: Path, since: Mark, *, every_s: float | None = None) -> AsyncIterator[Mark]:
    """Yields each time the file has become another than it was at `since`, and has then stood for `every_s`.

    A file that is still being written is so left alone, and a missing one is no change.
    """
    known = before = since
    while True:
        await asyncio.sleep(every_s or EVERY_S)
        now = mark(path)
        if now is not None and now == before and now != known:
            known = now
            yield now
        before = now
