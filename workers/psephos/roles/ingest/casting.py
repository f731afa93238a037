"""Handles one vote from its request to the answer: every check, in the order that clients see.

Nothing here waits, so it costs the event loop neither a task nor a turn: a call delivers the answer once the log
has acknowledged the vote. Votes acknowledged in one poll of the log share the signature of their receipts.
"""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

import msgspec

from psephos.platform.clock import now_ms
from psephos.platform.logs import get_logger
from psephos.roles.ingest import metrics
from psephos.roles.ingest.fairness import Fairness
from psephos.roles.ingest.gate import Gate, timestamp
from psephos.roles.ingest.intake import Intake, Record, Records
from psephos.roles.ingest.problems import Problem, invalid_token
from psephos.roles.ingest.replays import Replays
from psephos.roles.ingest.requests import bearer, require_media, require_size
from psephos.roles.ingest.tracing import Trace
from psephos.roles.ingest.verifier import Voter
from psephos.roles.ingest.votelog import VoteLog, unconfirmed

JSON: Final = "application/json"
SIGNED_TOGETHER: Final = (
    256  # at most: a receipt's path then has 8 nodes, and a signature's cost is a tenth of a µs
)
_encode = msgspec.json.Encoder().encode
log = get_logger()

Tell = Callable[[bytes | Problem], None]
"""Takes the answer to a vote: the body of its 202, or why there is none. It is called once, and must not fail."""


class _Vote:
    """A vote that has been handed to the log. replay: its name among the remembered answers, or None."""

    __slots__ = ("casting", "offset", "received_at", "record", "replay", "sent_at", "tell")

    def __init__(
        self, casting: "Casting", record: Record, received_at: int, replay: bytes | None, tell: Tell
    ) -> None:
        self.casting = casting
        self.record = record
        self.received_at = received_at
        self.replay = replay
        self.tell = tell
        self.sent_at = monotonic()
        self.offset: int | None = None

    def settled(self, offset: int | None) -> None:
        """Takes the vote's offset. What follows waits until all votes of this poll are settled."""
        self.offset = offset
        self.casting.reported.append(self)


class Casting:
    """Takes single votes. Lives in one event loop."""

    def __init__(self, *, gate: Gate, intake: Intake, fairness: Fairness, votelog: VoteLog) -> None:
        self._gate = gate
        self._intake = intake
        self._fairness = fairness
        self._votelog = votelog
        self._replays = Replays()
        self.reported: list[_Vote] = []
        votelog.when_polled(self._settle)

    def admit(self, headers: Mapping[str, str], remote: str | None, size: int) -> tuple[str, str | None]:
        """Returns (token, Idempotency-Key) of a request; `size`: of its body, actual or declared. Raises Problem.

        Everything cheap is checked before the body is read.
        """
        self.admit_now()
        self._fairness.admit_client(remote, headers)
        require_media(headers, JSON)
        require_size(size)
        key = self._intake.check_key(headers.get("Idempotency-Key"))
        token = bearer(headers)
        if token is None:
            raise invalid_token("send the voter token as `Authorization: Bearer <token>`")
        return token, key

    def admit_now(self) -> None:
        """Raises Problem unless a vote received now may count. Call it again after anything that took time."""
        self._gate.admit(wall_ms=now_ms(), mono=monotonic())

    def know(self, voter: Voter) -> tuple[bytes, Mapping[str, str]]:
        """Returns (pseudonym, header fields for the answer) of a voter who may vote now. Raises Problem."""
        pseudonym = self._intake.pseudonym(voter)
        return pseudonym, self._fairness.admit_voter(pseudonym)

    def cast(
        self, voter: Voter, pseudonym: bytes, body: bytes, key: str | None, trace: Trace | None, tell: Tell
    ) -> None:
        """Hands a vote admitted just now to the log. `tell` gets the answer later, or at once for a retry.

        Raises Problem.
        """
        if key is None:
            self._send(voter, pseudonym, body, None, trace, None, tell)
            return
        name = pseudonym + key.encode()
        answer = self._replays.begin(name, body)
        if answer is not None:
            metrics.count(metrics.REPLAYED)
            tell(answer)
            return
        try:
            self._send(voter, pseudonym, body, key, trace, name, tell)
        except BaseException:
            self._replays.forget(name)
            raise

    def _send(
        self,
        voter: Voter,
        pseudonym: bytes,
        body: bytes,
        key: str | None,
        trace: Trace | None,
        replay: bytes | None,
        tell: Tell,
    ) -> None:
        received_at = now_ms()
        record = self._intake.record_of(voter, self._intake.ballot(body), key, received_at, pseudonym)
        self._votelog.require_room()
        vote = _Vote(self, record, received_at, replay, tell)
        self._votelog.send_one(record, vote, trace)

    def _settle(self) -> None:
        """Answers all votes whose reports have arrived."""
        if not self.reported:
            return
        votes, self.reported = self.reported, []
        now = monotonic()
        metrics.observe_acks([now - vote.sent_at for vote in votes])
        for vote in votes:
            if vote.offset is None:
                self._refuse(vote)
        confirmed = [vote for vote in votes if vote.offset is not None]
        for together in range(0, len(confirmed), SIGNED_TOGETHER):
            self._hand_out(confirmed[together : together + SIGNED_TOGETHER])

    def _refuse(self, vote: _Vote) -> None:
        if vote.replay is not None:
            self._replays.forget(vote.replay)
        _tell(vote, unconfirmed())

    def _hand_out(self, votes: list[_Vote]) -> None:
        records = Records(*map(list, zip(*[vote.record for vote in votes], strict=True)))
        receipts = self._intake.receipts(records, [vote.offset or 0 for vote in votes])
        metrics.count(metrics.ACCEPTED, len(votes))
        now = monotonic()
        received = {at: timestamp(at) for at in {vote.received_at for vote in votes}}
        for vote, receipt in zip(votes, receipts, strict=True):
            answer = _encode(
                {
                    "receipt": receipt,
                    "partition": vote.record.partition,
                    "offset": vote.offset,
                    "receivedAt": received[vote.received_at],
                }
            )
            if vote.replay is not None:
                self._replays.end(vote.replay, answer, now)
            _tell(vote, answer)


def _tell(vote: _Vote, answer: bytes | Problem) -> None:
    """Delivers an answer: a fault in one client's connection must not cost the others their answers."""
    try:
        vote.tell(answer)
    except Exception:
        log.exception("an answer could not be told")
