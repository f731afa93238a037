"""A short memory of answers by voter and Idempotency-Key, so that a retried POST gets the answer that it missed.

It is a convenience of one process, not part of the guarantee: that a retry counts once is decided from the log, by
the nonces in the records. Bounded like the buckets of `psephos.http.rate_limit`: in two generations. Pure: time is
an argument.
"""

from typing import Final, NamedTuple

from psephos.roles.ingest.problems import Problem, busy

KEPT_S: Final = 60.0
MAX_ANSWERS: Final = 20_000  # per generation; about 10 MB


class _Entry(NamedTuple):
    """A remembered request. `body`: identifies it, a keyed hash; `answer`: None while it is in progress."""

    body: int
    answer: bytes | None


class Replays:
    """The requests that were answered recently, and those in progress."""

    def __init__(self, max_answers: int = MAX_ANSWERS) -> None:
        self._max_answers = max_answers
        self._young: dict[bytes, _Entry] = {}
        self._old: dict[bytes, _Entry] = {}
        self._under_way: dict[bytes, _Entry] = {}
        self._began = float("-inf")

    def begin(self, name: bytes, body: bytes) -> bytes | None:
        """Returns the answer given earlier; None for a new request, which is now in progress.

        `name`: of voter and key. Raises Problem: idempotency-key-in-use or idempotency-key-reused. Every `begin`
        of a new request needs its `end` or `forget`.
        """
        digest = hash(body)
        entry = self._under_way.get(name) or self._young.get(name) or self._old.get(name)
        if entry is None:
            self._under_way[name] = _Entry(digest, None)
            return None
        if entry.body != digest:
            detail = "this Idempotency-Key came with another vote before: send a new key with each new vote"
            raise Problem("idempotency-key-reused", detail)
        if entry.answer is None:
            raise busy(
                "idempotency-key-in-use", "this very request is under way: wait for its answer, or try again"
            )
        return entry.answer

    def end(self, name: bytes, answer: bytes, now: float) -> None:
        """Remembers the answer to a request; `now`: seconds by a monotonic clock."""
        body = self._under_way.pop(name).body
        if now - self._began > KEPT_S or len(self._young) >= self._max_answers:
            self._old, self._young, self._began = self._young, {}, now
        self._young[name] = _Entry(body, answer)

    def forget(self, name: bytes) -> None:
        """Forgets a request that was refused or not confirmed: it may be tried again."""
        self._under_way.pop(name, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old) + len(self._under_way)
