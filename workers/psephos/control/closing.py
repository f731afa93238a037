"""Closing without losing a vote, step by step: docs/architecture.md, section 4.

1. The ledger item `closing` fixes the time; a process that comes second adopts it.
2. The control record has the time, so that ingest refuses from then on; at that time its phase becomes Closing.
3. When the grace period is over by this machine's clock and by the brokers', a close marker goes into every
   partition.
4. The topic is sealed, and every partition's leader is probed until it refuses.
5. Each partition's end offset becomes a ledger item.
6. When the tally has reached each sealed end, the session is Recounting.
"""

import time
from collections.abc import Callable

import msgspec

from psephos.adapters.dynamodb import Ledger
from psephos.adapters.kafka import LogAdmin, LogUnavailable, broker_time_ms, mark_closed, refusing_partitions
from psephos.control.errors import LifecycleError, Stopped
from psephos.control.orders import BEFORE_CLOSING, NOTICE_MS, obey
from psephos.control.phases import change, current, set_phase
from psephos.control.wishes import Wishes, objections, orders_of
from psephos.domain.genesis import decode_genesis
from psephos.formats.blocks import decode_block
from psephos.formats.control import Control, Phase
from psephos.formats.errors import Malformed
from psephos.platform.clock import now_ms, text_of
from psephos.platform.errors import FAILED, PsephosError
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings

DRAIN_TIMEOUT_S = 600.0
_SEAL_TIMEOUT_S = 60.0
_POLL_S = 0.2
_TELL_S = 1.0
Progress = Callable[[str], None]
log = get_logger()


class Closing(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The ledger item `closing`. Times in milliseconds since 1970 and milliseconds."""

    closes_at: int
    grace_ms: int

    @property
    def markers_at(self) -> int:
        """The time from which no acknowledged vote can still be on its way."""
        return self.closes_at + self.grace_ms


class SealedEnd(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The ledger item `sealed` of a partition."""

    end: int


class Drained(PsephosError):
    """The tally did not reach the sealed ends in time. `behind`: records missing, by partition."""

    exit_code = FAILED

    def __init__(self, behind: dict[int, int]) -> None:
        places = ", ".join(f"{partition}: {records}" for partition, records in behind.items())
        super().__init__(
            f"the tally is behind the sealed ends (partition: records): {places}; is a worker running?"
        )
        self.behind = behind


def close(
    settings: Settings,
    *,
    closes_at: int | None = None,
    drain_timeout_s: float = DRAIN_TIMEOUT_S,
    progress: Progress = lambda _what: None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[int, ...]:
    """Closes the session, from wherever the protocol stands to phase Recounting; returns the sealed ends.

    `closes_at` in ms; by default the control record's time, or now if it has none. The time used is never later
    than the control record's; if earlier, it is far enough ahead for ingest to learn of it. `closes_at` is ignored
    once a time is fixed.

    Raises LifecycleError, Stopped, Drained (the tally did not reach the end), LogUnavailable, LedgerUnavailable;
    call again to continue.
    """
    ledger = Ledger.of(settings)
    closing = fix_closing(settings, ledger, closes_at)
    announce(settings, closing, progress, stopped)
    wait_for_grace(settings, closing, progress, stopped)
    ends = seal(settings, ledger, closing, progress)
    wait_until_drained(ledger, ends, drain_timeout_s, progress, stopped)
    set_phase(settings, Phase.RECOUNTING)
    return ends


def closing_of(ledger: Ledger) -> Closing | None:
    """The ledger item that fixed the end of this session; None while it is still open."""
    payload = ledger.get("closing")
    return None if payload is None else msgspec.json.decode(payload, type=Closing)


def sealed_ends(ledger: Ledger) -> dict[int, int]:
    """The ends of the partitions sealed so far, by partition."""
    return {partition: msgspec.json.decode(item, type=SealedEnd).end for partition, item in ledger.items("sealed")}


def extend(settings: Settings, closes_at: int) -> Control:
    """Moves `closesAt` to a later time (ms since 1970), as long as closing has not begun.

    Raises LifecycleError if it may not be moved.
    """
    wish, closing = Wishes(closes_at=closes_at), closing_of(Ledger.of(settings)) is not None

    def later(control: Control) -> Control:
        at = now_ms()
        for why in objections(control, wish, now_ms=at, closing=closing):
            raise LifecycleError(why)
        return obey(control, orders_of(control, wish), at, closing=closing).control

    return change(settings, later)


# --- The steps


def fix_closing(settings: Settings, ledger: Ledger, closes_at: int | None = None) -> Closing:
    """Step 1: fixes the time. The first process to write decides; every other one adopts."""
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


def announce(
    settings: Settings,
    closing: Closing,
    progress: Progress = lambda _what: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Control:
    """Step 2: announces the time to ingest, waits for it, sets phase Closing. Leaves later phases as they are."""

    control = tell(settings, closing)
    if control.phase not in BEFORE_CLOSING:
        return control
    _wait_until(now_ms, closing.closes_at, "voting closes", progress, stopped)
    return set_phase(settings, Phase.CLOSING)


def tell(settings: Settings, closing: Closing) -> Control:
    """Step 2, first half: writes the time to the control record. Does not wait for it."""

    def timed(control: Control) -> Control:
        if control.phase not in BEFORE_CLOSING:
            return control
        return msgspec.structs.replace(control, closes_at=closing.closes_at, grace_ms=closing.grace_ms)

    return change(settings, timed)


def wait_for_grace(
    settings: Settings, closing: Closing, progress: Progress, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Step 3, first half: waits until the grace period is over by both clocks.

    So a fast clock here can never shorten the time that voters have; a slow one only makes everyone wait.
    """
    _wait_until(now_ms, closing.markers_at, "the grace time ends", progress, stopped)
    skew = abs(broker_time_ms(settings) - now_ms())
    if skew > closing.grace_ms // 4:
        log.warning("clocks differ", skew_ms=skew, grace_ms=closing.grace_ms)
    brokers = "the grace time ends by the brokers' clock"
    _wait_until(lambda: broker_time_ms(settings), closing.markers_at, brokers, progress, stopped)


def seal(
    settings: Settings, ledger: Ledger, closing: Closing, progress: Progress = lambda _what: None
) -> tuple[int, ...]:
    """Steps 3 to 5: markers, seal, probes, sealed ends. Skipped once every end is in the ledger.

    Further markers of an earlier attempt do no harm: the first one counts. A probe that got through lies after the
    marker and before the end, which is read only after all probes were refused.
    """
    partitions = decode_genesis(_require(ledger, "genesis")).partitions
    known = sealed_ends(ledger)
    if len(known) == partitions:
        return tuple(known[partition] for partition in range(partitions))
    progress("writing close markers")
    marked = mark_closed(settings, partitions, closing.closes_at)
    admin = LogAdmin(settings)
    admin.seal_votes()
    progress("sealing the votes topic")
    _probe(settings, partitions)
    ends = _ends(admin, marked)
    return tuple(_fix_end(ledger, partition, end) for partition, end in enumerate(ends))


def _ends(admin: LogAdmin, marked: list[int]) -> list[int]:
    """The end of each votes partition, after the markers. Raises LogUnavailable.

    NB: a stalled leader may report an old end until it learns that it was deposed.
    """
    deadline = time.monotonic() + _SEAL_TIMEOUT_S
    while True:
        ends = admin.end_offsets(len(marked))
        if all(end >= least for end, least in zip(ends, marked, strict=True)):
            return ends
        if time.monotonic() > deadline:
            raise LogUnavailable(f"the log's ends are told as {ends}, but markers stand up to {marked}")
        time.sleep(_POLL_S)


def wait_until_drained(
    ledger: Ledger,
    ends: tuple[int, ...],
    timeout_s: float,
    progress: Progress = lambda _what: None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Step 6: waits until the ledger's head of each partition ends at its sealed end. Raises Drained, Stopped.

    A head beyond it is no reason to wait: the recount reports what is wrong with it.
    """
    deadline, told = time.monotonic() + timeout_s, 0.0
    while behind := records_behind(ledger, ends):
        if time.monotonic() - told > _TELL_S:
            progress(f"the tally has {sum(behind.values())} records to go")
            told = time.monotonic()
        if stopped():
            raise Stopped("while the tally was catching up")
        if time.monotonic() > deadline:
            raise Drained(behind)
        time.sleep(_POLL_S)


def _wait_until(
    clock: Callable[[], int], moment: int, what: str, progress: Progress, stopped: Callable[[], bool]
) -> None:
    if clock() < moment:
        progress(f"{what} at {text_of(moment)}")
    while (left := moment - clock()) > 0:
        if stopped():
            raise Stopped(f"before {what}")
        time.sleep(min(left / 1000, _POLL_S))


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


def records_behind(ledger: Ledger, ends: tuple[int, ...]) -> dict[int, int]:
    """Records that the tally still has to judge up to the sealed ends, by partition; empty once it is done."""
    heads = [_head_end(ledger, partition) for partition in range(len(ends))]
    return {p: int(end - head) for p, (end, head) in enumerate(zip(ends, heads, strict=True)) if head < end}


def _head_end(ledger: Ledger, partition: int) -> float:
    """The end of the chain; infinity for an unreadable head, not worth waiting for: no tally can follow it."""
    head = ledger.head(partition)
    if head is None:
        return 0
    try:
        return decode_block(head.payload).end
    except Malformed as error:
        log.error("unreadable block", partition=partition, base=head.base, why=str(error))
        return float("inf")


def _require(ledger: Ledger, kind: str) -> bytes:
    payload = ledger.get(kind)
    if payload is None:
        raise LifecycleError(f"session {ledger.session_uid} has no {kind}: prepare it first")
    return payload
