"""How long to wait before another try."""

from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Seconds to wait before the next start: twice the last pause, but `first_s` after a run of `steady_s`."""

    first_s: float = 0.25
    longest_s: float = 10.0
    steady_s: float = 20.0
    _pause_s: float = field(default=0.0, init=False)

    def after(self, ran_s: float) -> float:
        """The pause after a run of `ran_s` seconds, 0 if it could not even begin."""
        longer_s = self.first_s if ran_s >= self.steady_s else 2 * self._pause_s
        self._pause_s = min(max(self.first_s, longer_s), self.longest_s)
        return self._pause_s
