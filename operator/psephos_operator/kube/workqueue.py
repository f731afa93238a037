"""The work queue: keys that are due at once or at a later time, each handed to one worker at a time."""

import heapq
import threading
import time
from typing import Generic, TypeVar

K = TypeVar("K")


class WorkQueue(Generic[K]):
    """A key that is added while a worker has it comes up again when that worker is done; never twice at once."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0
        self._busy: set[K] = set()
        self._changed = threading.Condition()
        self._closed = False

    def add(self, key: K, delay_s: float = 0.0) -> None:
        """Makes the key due after a delay, or sooner if it is already due sooner."""
        with self._changed:
            at = time.monotonic() + max(0.0, delay_s)
            if self._due.get(key, float("inf")) <= at:
                return
            self._due[key] = at
            self._count += 1
            heapq.heappush(self._heap, (at, self._count, key))
            self._changed.notify()

    def get(self) -> K | None:
        """Waits for the next key that is due and that no worker has; returns None once the queue is closed."""
        with self._changed:
            while not self._closed:
                key, wait_s = self._next()
                if key is not None:
                    return key
                self._changed.wait(wait_s)
            return None

    def done(self, key: K) -> None:
        """Marks the key as no longer worked on."""
        with self._changed:
            self._busy.discard(key)
            if key in self._due:
                self._count += 1
                heapq.heappush(self._heap, (self._due[key], self._count, key))
            self._changed.notify()

    def forget(self, key: K) -> None:
        """Makes the key no longer due."""
        with self._changed:
            self._due.pop(key, None)

    def close(self) -> None:
        """Closes the queue: every waiting worker gets None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """The number of keys that are due now."""
        now = time.monotonic()
        with self._changed:
            return sum(at <= now for at in self._due.values())

    def _next(self) -> tuple[K | None, float | None]:
        """Returns a key, or the seconds to wait for one (None: until something changes)."""
        now = time.monotonic()
        while self._heap:
            at, _, key = self._heap[0]
            if self._due.get(key) != at or key in self._busy:  # moved, forgotten, or added again when done
                heapq.heappop(self._heap)
                continue
            if at > now:
                return None, at - now
            heapq.heappop(self._heap)
            del self._due[key]
            self._busy.add(key)
            return key, None
        return None, None
