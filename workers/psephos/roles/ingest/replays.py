"""A short memory of answers by voter and Idempotency-Key, so that a retried POST gets the answer it has missed.

A convenience of one process, no part of the guarantee: that a retry counts once is decided from the log, by the
nonces in the records. Bounded like the buckets of `psephos.http.rate_limit`: in two generations. Pure: time is an
argument.
"""

from typing import Final, NamedTuple

from psephos.roles.ingest.problems import Problem, busy

KEPT_S: Final = 60.0
MAX_ANSWERS: Final = 20_000  # a generation; about 10 MB


class _Entry(NamedTuple):
    """`body`: which request it was, a keyed hash; `answer`: None while it is under way."""

    body: int
    answer: bytes | None


class Replays:
    """Which requests have been answered a short while ago, and which are under way."""

    def __init__(self, max_answers: int = MAX_ANSWERS) -> None:
        self._max_answers = max_answers
        self._young: dict[bytes, _Entry] = {}
        self._old: dict[bytes, _Entry] = {}
        self._under_way: dict[bytes, _Entry] = {}
        self._began = float("-inf")

    def begin(self, name: bytes, body: bytes) -> bytes | None:
        """The answer that was given before; None for a request that is new, which is now under way.

        `name`: of voter and key. Raises Problem: idempotency-key-in-use, or idempotency-key-reused. Every
        beginning needs its `end` or `forget`.
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
        """The request got its answer; `now`: seconds by a monotonic clock."""
        body = self._under_way.pop(name).body
        if now - self._began > KEPT_S or len(self._young) >= self._max_answers:
            self._old, self._young, self._began = self._young, {}, now
        self._young[name] = _Entry(body, answer)

    def forget(self, name: bytes) -> None:
        """The request was refused or not confirmed: the same one may be tried again."""
        self._under_way.pop(name, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old) + len(self._under_way)
