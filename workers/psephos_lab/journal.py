"""The client's own journal: every acknowledged vote, on disk before it is relied on.

The log is checked against it at the end: an acknowledged vote that the log does not hold is a lost one.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self


class Acknowledged(NamedTuple):
    """A vote with its receipt. `kind`: batch | single | more | retry; `key`: its Idempotency-Key.

    `uncertain`: an earlier try was not confirmed, so the same vote may be in the log before this one.
    """

    subject: str
    kind: str
    receipt: str
    key: str
    body: Mapping[str, Any]
    uncertain: bool = False


class Journal:
    """Appends lines; `sync` writes them to disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0
        self._file = path.open("w", encoding="utf-8")

    def append(self, vote: Acknowledged) -> None:
        self._file.write(json.dumps(vote) + "\n")
        self.written += 1

    def sync(self) -> None:
        """Returns once all that was appended is on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.sync()
        self._file.close()


def read_journal(path: Path) -> Iterator[Acknowledged]:
    """Yields the acknowledged votes, in their order."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield Acknowledged(*json.loads(line))
