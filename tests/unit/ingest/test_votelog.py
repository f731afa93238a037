"""Reports that come in one poll: each vote is judged by when its own record was appended."""

import time
from typing import NamedTuple

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME

from psephos.codec.control import Control, Phase
from psephos.ingest.gate import Gate
from psephos.ingest.votelog import VoteLog, now_ms
from psephos.settings import load_settings

GRACE_MS = 10_000
SETTINGS = load_settings(
    {"PSEPHOS_SESSION_FILE": "s", "PSEPHOS_SESSION_UID": "u", "PSEPHOS_KAFKA_BOOTSTRAP": "127.0.0.1:1"}
)


class Message(NamedTuple):
    """What a report says of a record."""

    kind: int
    appended_ms: int
    place: int

    def timestamp(self) -> tuple[int, int]:
        return self.kind, self.appended_ms

    def offset(self) -> int:
        return self.place


class Votes:
    """Waits for its records."""

    def __init__(self) -> None:
        self.received_at = now_ms()
        self.offsets: dict[int, int | None] = {}

    def settled(self, index: int, offset: int | None) -> None:
        self.offsets[index] = offset


def settled(votelog: VoteLog, *messages: Message | None) -> list[int | None]:
    votes = Votes()
    for index, message in enumerate(messages):
        votelog._report(votes, index, None if message else object(), message)  # type: ignore[arg-type]
    votelog.poll()
    return [votes.offsets[index] for index in range(len(messages))]


async def test_one_that_was_appended_too_late_costs_no_other_its_place() -> None:
    last = now_ms() + 1_000  # half a grace after the end
    gate = Gate()
    control = Control(phase=Phase.OPEN, number=1, opens_at=0, closes_at=last - GRACE_MS // 2, grace_ms=GRACE_MS)
    gate.learn(control, wall_ms=now_ms(), mono=time.monotonic())
    gate.heard(time.monotonic())
    votelog = VoteLog(SETTINGS, gate, GRACE_MS / 1000)

    def appended(ms: int, place: int) -> Message:
        return Message(TIMESTAMP_LOG_APPEND_TIME, ms, place)

    assert settled(votelog, appended(last - 5, 1), appended(last, 2)) == [1, 2]
    assert settled(votelog, appended(last - 5, 3), appended(last + 1, 4), None, appended(last, 5)) == [
        3,
        None,
        None,
        5,
    ]
    undated = Message(TIMESTAMP_CREATE_TIME, last + 60_000, 6)
    assert settled(votelog, undated, appended(last + 1, 7)) == [6, None]
    gate.learn(control, wall_ms=last + 1, mono=time.monotonic())  # the time is up here
    assert settled(votelog, appended(last - 5, 8), undated) == [None, None]


async def test_nothing_is_confirmed_while_the_sessions_state_is_not_known() -> None:
    votelog = VoteLog(SETTINGS, Gate(), GRACE_MS / 1000)
    assert settled(votelog, Message(TIMESTAMP_LOG_APPEND_TIME, now_ms(), 1), None) == [None, None]
