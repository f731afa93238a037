"""Estimates how long records have waited to be counted, from samples of the log's ends. Pure: time is an argument.

The age of the newest counted vote would not do: in a quiet session it grows although nothing waits.
"""

from collections import deque
from collections.abc import Sequence

_MOST = 512  # samples kept; one per second, thinned out when there are more
_SILENT_S = 5.0  # a log whose ends have been unknown for this long hides what waits


class Lag:
    """Lag from samples: records in the log at a sample's time and still not counted have waited since then."""

    def __init__(self, now: float) -> None:
        self._waiting: deque[tuple[float, tuple[int, ...]]] = deque()
        self._heard = now

    def sample(self, log_ends: Sequence[int], now: float) -> None:
        """Notes where the log ended at `now` (seconds of a monotonic clock)."""
        self._heard = now
        if len(self._waiting) >= _MOST:
            self._waiting = deque(list(self._waiting)[::2])
        self._waiting.append((now, tuple(log_ends)))

    def seconds(self, counted: Sequence[int], now: float) -> float:
        """Returns the lag if these ends are counted: 0 if nothing is known to wait."""
        while self._waiting and all(have >= end for have, end in zip(counted, self._waiting[0][1], strict=True)):
            self._waiting.popleft()
        since = self._waiting[0][0] if self._waiting else now
        silent = now - self._heard
        return max(now - since, silent if silent > _SILENT_S else 0.0)
