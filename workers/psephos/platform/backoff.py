"""Back-off: how long to wait before another try."""

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Seconds to wait: `first_s`, then twice the last pause, at most `longest_s`.

    `steady_s`: after a run of this length the next pause is the first one again.
    """

    first_s: float = 0.25
    longest_s: float = 10.0
    steady_s: float = 20.0
    _pause_s: float = field(default=0.0, init=False)

    def next_s(self) -> float:
        """The pause before the next try."""
        self._pause_s = min(max(self.first_s, 2 * self._pause_s), self.longest_s)
        return self._pause_s

    def after(self, ran_s: float) -> float:
        """The pause after a run of `ran_s` seconds (0 if it could not even begin)."""
        if ran_s >= self.steady_s:
            self.reset()
        return self.next_s()

    def reset(self) -> None:
        """Starts again from the first pause, after a successful try."""
        self._pause_s = 0.0


def spread(pause_s: float, share: float = 0.5) -> float:
    """The pause minus up to `share` of it, at random, so that many waiting callers do not return at once."""
    return random.uniform((1 - share) * pause_s, pause_s)  # noqa: S311 - jitter
