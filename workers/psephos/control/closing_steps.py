"""Closing without losing a vote: what each of its steps does. Their order is `state_machine`'s.

docs/architecture.md, section 4, has the protocol and the reasons.
"""

import time

import msgspec

from psephos.adapters.dynamodb import Ledger
from psephos.adapters.kafka import LogAdmin, LogUnavailable, broker_time_ms, mark_closed, refusing_partitions
from psephos.control.commands import BEFORE_CLOSING, NOTICE_MS
from psephos.control.errors import LifecycleError
from psephos.control.observation import SealedEnd, closing_of, sealed_ends
from psephos.control.observed import Closing
from psephos.control.phases import change, current
from psephos.domain.genesis import decode_genesis
from psephos.formats.control import Control
from psephos.platform.clock import now_ms
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings

_SEAL_TIMEOUT_S = 60.0
_POLL_S = 0.2
log = get_logger()


def fix_closing_time(settings: Settings, ledger: Ledger, closes_at: int | None = None) -> Closing:
    """Writes the ledger item `closing`. The first controller to write decides; every other one adopts.

    `closes_at` in ms: without it the control record's time, else now. It is never later than the control record's,
    and where it is earlier, far enough ahead for ingest to learn of it. It is ignored once a time is fixed.
    """
    known = closing_of(ledger)
    if known is not None:
        return known
    control = current(settings)
    if closes_at is None:
        closes_at = control.closes_at
    if closes_at is None or closes_at != control.closes_at:
        closes_at = max(closes_at or 0, now_ms() + NOTICE_MS)
        closes_at = closes_at if control.closes_at is None else min(closes_at, control.closes_at)
    own = Closing(closes_at, control.grace_ms)
    return msgspec.json.decode(ledger.put_once("closing", msgspec.json.encode(own)), type=Closing)


def announce_closing_time(settings: Settings, closing: Closing) -> Control:
    """Writes the fixed time into the control record, by which ingest learns of it. Does not wait for that time."""

    def timed(control: Control) -> Control:
        if control.phase not in BEFORE_CLOSING:
            return control
        return msgspec.structs.replace(control, closes_at=closing.closes_at, grace_ms=closing.grace_ms)

    return change(settings, timed)


def ms_by_brokers(settings: Settings, markers_at: int, grace_ms: int) -> int:
    """Milliseconds until `markers_at` by the brokers' clock; 0 or less: it has come.

    Both clocks decide: one here that runs ahead can't shorten the time that voters have, and one that runs behind
    only makes everyone wait. Raises LogUnavailable.
    """
    brokers = broker_time_ms(settings)
    skew = abs(brokers - now_ms())
    if skew > grace_ms // 4:
        log.warning("clocks differ", skew_ms=skew, grace_ms=grace_ms)
    return markers_at - brokers


def seal(settings: Settings, ledger: Ledger, closing: Closing) -> tuple[int, ...]:
    """Close markers, seal, probes, sealed ends. Skipped once every end is in the ledger.

    Further markers of an earlier attempt do no harm, the first one counts. A probe that got through stands
    after the marker, before the end that is read only after all of them were refused.
    """
    partitions = decode_genesis(_require(ledger, "genesis")).partitions
    known = sealed_ends(ledger)
    if len(known) == partitions:
        return tuple(known[partition] for partition in range(partitions))
    marked = mark_closed(settings, partitions, closing.closes_at)
    admin = LogAdmin(settings)
    admin.seal_votes()
    _probe(settings, partitions)
    ends = _ends(admin, marked)
    return tuple(_fix_end(ledger, partition, end) for partition, end in enumerate(ends))


def _ends(admin: LogAdmin, marked: list[int]) -> list[int]:
    """The end of each votes partition, after the markers. Raises LogUnavailable.

    NB: a stalled leader reports an old end until it learns that it was deposed.
    """
    deadline = time.monotonic() + _SEAL_TIMEOUT_S
    while True:
        ends = admin.end_offsets(len(marked))
        if all(end >= least for end, least in zip(ends, marked, strict=True)):
            return ends
        if time.monotonic() > deadline:
            raise LogUnavailable(f"the log's ends are told as {ends}, but markers stand up to {marked}")
        time.sleep(_POLL_S)


def _probe(settings: Settings, partitions: int) -> None:
    deadline = time.monotonic() + _SEAL_TIMEOUT_S
    while len(refused := refusing_partitions(settings, partitions)) < partitions:
        if time.monotonic() > deadline:
            missing = sorted(set(range(partitions)) - refused)
            raise LogUnavailable(f"the votes topic is not sealed: partitions {missing} do not refuse records")
        time.sleep(_POLL_S)


def _fix_end(ledger: Ledger, partition: int, end: int) -> int:
    stored = ledger.put_once("sealed", msgspec.json.encode(SealedEnd(end)), sort=partition)
    fixed = msgspec.json.decode(stored, type=SealedEnd).end
    if fixed != end:
        log.error("log has moved behind its seal", partition=partition, sealed_end=fixed, end=end)
    return fixed


def _require(ledger: Ledger, kind: str) -> bytes:
    payload = ledger.get(kind)
    if payload is None:
        raise LifecycleError(f"session {ledger.session_uid} has no {kind}: prepare it first")
    return payload
