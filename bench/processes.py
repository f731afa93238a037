"""What processes cost: CPU time and memory of a process and all of its descendants, by /proc. Linux only."""

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_SAMPLE_S = 0.2
# fields of /proc/PID/stat behind the name, counted from 0
_PARENT, _TIMES, _RESIDENT = 1, slice(11, 15), 21
_PAGE = os.sysconf("SC_PAGESIZE")


class Cost(NamedTuple):
    """cpu_s: user and system time so far, ended children included; resident and private: bytes now. Resident
    counts pages of mapped files that the kernel keeps in memory, private does not."""

    cpu_s: float
    resident: int
    private: int

    def __add__(self, other: object) -> "Cost":
        if not isinstance(other, Cost):
            return NotImplemented
        return Cost(self.cpu_s + other.cpu_s, self.resident + other.resident, self.private + other.private)


NOTHING = Cost(0.0, 0, 0)


class Memory(NamedTuple):
    """Bytes now, by the kernel's walk through a process's pages: for processes that share memory.

    Proportional (PSS) divides a page by the number of processes that have it, so that the sum over processes is
    what they take together. Private counts pages that were written to and that no other process has. Resident
    counts each page in full in each process.
    """

    proportional: int
    private: int
    resident: int

    def __add__(self, other: object) -> "Memory":
        if not isinstance(other, Memory):
            return NotImplemented
        return Memory(*(one + another for one, another in zip(self, other, strict=True)))


NO_MEMORY = Memory(0, 0, 0)


def cost(pids: Iterable[int]) -> Cost:
    """What these processes and their descendants have cost together."""
    return sum((_cost_of(pid) for pid in tree(pids)), NOTHING)


def memory(pids: Iterable[int]) -> Memory:
    """What these processes and their descendants hold together."""
    return sum((memory_of(pid) for pid in tree(pids)), NO_MEMORY)


def memory_of(pid: int) -> Memory:
    """Of this process alone; nothing if it has ended."""
    with suppress(OSError):
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
        found = {name: int(size) * 1024 for name, size, *_ in map(str.split, lines)}
        return Memory(found["Pss:"], found["Private_Dirty:"], found["Rss:"])
    return NO_MEMORY


def name_of(pid: int) -> str:
    """As `ps` shows it, empty for a process that has ended."""
    with suppress(OSError):
        return (_PROC / str(pid) / "comm").read_text().strip()
    return ""


def threads_of(pid: int) -> int:
    """How many threads a process has."""
    with suppress(OSError):
        return len(os.listdir(_PROC / str(pid) / "task"))
    return 0


def tree(pids: Iterable[int]) -> list[int]:
    """These processes and all of their descendants that live."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.append(pid)
            waiting += children.get(pid, [])
    return found


class Watch:
    """The greatest memory of processes over the time of a `with` block, sampled."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.peak = NOTHING
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            now = cost(self._pids)
            self.peak = Cost(
                max(self.peak.cpu_s, now.cpu_s),
                max(self.peak.resident, now.resident),
                max(self.peak.private, now.private),
            )
            if self._over.wait(_SAMPLE_S):
                return


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.listdir(_PROC):
        if entry.isdigit() and (fields := _stat(int(entry))) is not None:
            yield int(entry), int(fields[_PARENT])


def _cost_of(pid: int) -> Cost:
    fields = _stat(pid)
    if fields is None:
        return NOTHING
    return Cost(sum(map(int, fields[_TIMES])) / _TICKS, int(fields[_RESIDENT]) * _PAGE, _private(pid))


def _private(pid: int) -> int:
    with suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def _stat(pid: int) -> list[str] | None:
    """The fields behind the name, which may hold spaces; None for a process that has ended."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def wait_until_quiet(limit: float = 0.15, timeout_s: float = 10.0) -> None:
    """Waits until the machine's cores are idle but for `limit`, as far as that comes within the time-out."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        before = _busy()
        time.sleep(1.0)
        after = _busy()
        if (after[0] - before[0]) / max(1, after[1] - before[1]) <= limit:
            return


def _busy() -> tuple[int, int]:
    """Jiffies of all cores so far: busy, and in all."""
    numbers = [int(each) for each in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)
