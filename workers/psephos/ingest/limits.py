"""The limits of `psephos.limits`, with the write side's answer for whoever has reached one. Pure."""

from psephos import limits
from psephos.ingest.problems import Problem
from psephos.limits import MAX_BUCKETS, Key, client_key, client_of

__all__ = ["MAX_BUCKETS", "Key", "Limit", "client_key", "client_of"]


class Limit(limits.Limit[Key]):
    """So many requests a second of each key, and so many at once."""

    def take(self, key: Key, now: float) -> str:
        """Takes one; the RateLimit field for the answer. Raises Problem rate-limited when there is none left."""
        try:
            return super().take(key, now)  # type: ignore[arg-type] # mypy takes super() for Limit[str | bytes]
        except limits.LimitReached as reached:
            raise Problem("rate-limited", str(reached), headers=reached.headers) from None
