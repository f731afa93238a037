"""The projector's loop: receive tallies and phases, build a frame, write it; write it again each second."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from psephos.adapters.dynamodb import LedgerMissing, LedgerUnavailable
from psephos.adapters.kafka import ControlFollower, LogAdmin, LogUnavailable, read_control
from psephos.adapters.redis import AWAY, Projection, Vacant
from psephos.domain.results import cells_of, decode_document, final_frame
from psephos.formats.blocks import decode_block
from psephos.formats.control import Control, Phase
from psephos.formats.errors import Malformed
from psephos.formats.frames import Frame, encode_frame
from psephos.formats.tallies import TallyRecord
from psephos.platform.backoff import Backoff, spread
from psephos.platform.clock import now_ms
from psephos.platform.health import Health
from psephos.platform.logs import get_logger
from psephos.roles.projector import metrics
from psephos.roles.projector.follower import TalliesFollower
from psephos.roles.projector.frames import build_frame, version_of
from psephos.roles.projector.heads import Heads
from psephos.roles.projector.lag import Lag
from psephos.runtime.bootstrap import Context

COALESCE_S = 0.25  # at most four frames a second
BEAT_S = 1.0  # interval of beats and of writing the newest frame again: Redis may have been flushed
HIDDEN_S = 10.0  # a partition with records waiting but no tallies for this long is read from the ledger
CAUGHT_UP_S = 30.0
CONTROL_S = 5.0  # a control topic that takes longer is asked again
BACKOFF_S, MOST_BACKOFF_S = 0.25, 5.0
_News = TypeVar("_News")
log = get_logger()


class Projector:
    """One session's projector. `run` is its whole lifetime."""

    def __init__(self, context: Context, projection: Projection, health: Health) -> None:
        self._context = context
        self._projection = projection
        self._health = health
        self._heads = Heads(context.genesis.partitions, cells_of(context.session))
        self._lag = Lag(time.monotonic())
        self._heard = dict.fromkeys(range(context.genesis.partitions), 0.0)
        self._control: Control | None = None
        self._sealed: Frame | None = None
        self._vacancy = ""  # vacancy of Redis since which everything has been read
        self._vacancies: asyncio.Queue[str] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="projector")

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set."""
        settings = self._context.settings
        await self._read_heads(range(self._context.genesis.partitions))
        control = ControlFollower(settings, self._in_loop(self._take_control))
        tallies = TalliesFollower(settings, self._context.genesis.partitions, self._in_loop(self._take_tallies))
        try:
            await asyncio.to_thread(control.wait_caught_up, CAUGHT_UP_S)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each) for each in (self._project(), self._watch_log(), self._refill())]
                await stop.wait()
                for task in tasks:
                    task.cancel()
        finally:
            await asyncio.to_thread(control.close)
            await asyncio.to_thread(tallies.close)
            self._pool.shutdown(wait=False, cancel_futures=True)

    # input

    def _in_loop(self, take: Callable[[_News], None]) -> Callable[[_News], None]:
        """Wraps `take` for use from another thread: it is called in this loop, not in that thread."""
        loop = asyncio.get_running_loop()

        def hand_over(news: _News) -> None:
            loop.call_soon_threadsafe(take, news)

        return hand_over

    def _take_control(self, control: Control) -> None:
        if self._control is None or control.number > self._control.number:
            self._control = control
            self._changed.set()

    def _take_tallies(self, records: list[TallyRecord]) -> None:
        for record in records:
            self._heard[record.partition] = time.monotonic()
            if self._take(record) and record.received_at:
                metrics.AGE.observe(max(0.0, time.time() - record.received_at / 1000))

    def _take(self, news: TallyRecord) -> bool:
        try:
            newer = self._heads.take(news)
        except Malformed as error:
            metrics.TALLIES.labels("malformed").inc()
            log.warning("tally record ignored", why=str(error))
            return False
        metrics.TALLIES.labels("newer" if newer else "known").inc()
        if newer:
            self._changed.set()
        return newer

    async def _watch_log(self) -> None:
        """Samples the log's ends each second; reads from the ledger what the tallies topic hides."""
        admin = LogAdmin(self._context.settings)
        while True:
            began = time.monotonic()
            try:
                ends = await asyncio.to_thread(admin.end_offsets, self._context.genesis.partitions)
                self._lag.sample(ends, began)
                self._health.ready("log")
                await self._read_heads(self._hidden(ends, began))
            except (LogUnavailable, LedgerUnavailable, LedgerMissing) as error:
                self._health.not_ready("log", str(error))
                log.warning("log or ledger does not answer", why=str(error))
            await asyncio.sleep(max(0.0, BEAT_S - (time.monotonic() - began)))

    def _hidden(self, log_ends: list[int], now: float) -> list[int]:
        """Returns partitions with records waiting but no recent tallies: an open transaction may hide them."""
        hidden = [
            partition
            for partition, (have, end) in enumerate(zip(self._heads.ends(), log_ends, strict=True))
            if have < end and now - self._heard[partition] > HIDDEN_S
        ]
        for partition in hidden:
            self._heard[partition] = now
        return hidden

    async def _read_heads(self, partitions: Sequence[int]) -> None:
        """Reads these partitions' heads from the ledger. Raises LedgerUnavailable."""
        loop = asyncio.get_running_loop()
        known = self._heads.ends()
        stored = await asyncio.gather(
            *(loop.run_in_executor(self._pool, self._context.ledger.head, partition) for partition in partitions)
        )
        for partition, block in zip(partitions, stored, strict=True):
            metrics.LEDGER_READS.inc()
            if (
                block is not None
                and block.base >= known[partition]
                and self._heads.take(decode_block(block.payload))
            ):
                self._changed.set()

    # output

    async def _project(self) -> None:
        backoff = Backoff(BACKOFF_S, MOST_BACKOFF_S)
        while True:
            await self._change_or_beat()
            self._health.beat()
            try:
                await self._say()
            except AWAY as error:
                metrics.REDIS_ERRORS.inc()
                self._health.not_ready("redis", f"Redis does not answer: {error}")
                pause_s = backoff.next_s()
                log.warning("redis does not answer", why=str(error), retry_within_s=pause_s)
                self._changed.set()
                await asyncio.sleep(spread(pause_s, 1.0))
                continue
            backoff.reset()
            self._health.ready("redis")
            await asyncio.sleep(COALESCE_S)

    async def _change_or_beat(self) -> None:
        try:
            async with asyncio.timeout(BEAT_S - COALESCE_S):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    async def _say(self) -> None:
        """Writes the newest frame unless Redis holds it, and beats. Raises the exceptions in AWAY."""
        lag_s = self._lag.seconds(self._heads.ends(), time.monotonic())
        metrics.LAG.set(lag_s)
        frame = await self._frame(round(lag_s * 1000))
        if frame is not None:
            metrics.VERSION.set(frame.version)
            await self._write(frame)
        await self._projection.beat(round(lag_s * 1000))

    async def _write(self, frame: Frame) -> None:
        """Writes a frame, or reports that Redis is empty. Raises the exceptions in AWAY."""
        try:
            if await self._projection.write_live(frame.epoch, frame.version, encode_frame(frame), self._vacancy):
                metrics.FRAMES.inc()
        except Vacant as vacant:
            if self._vacancies.empty():
                self._vacancies.put_nowait(vacant.vacancy)
            return
        self._health.ready()

    async def _refill(self) -> None:
        """Whenever Redis is empty, reads all that another projector can have shown; then frames may fill Redis.

        After CAUGHT_UP_S it goes on without what does not answer, so that a Redis emptied while log or ledger is
        unavailable shows results again: a projector that can still read both has filled it by then.
        """
        while True:
            vacancy = await self._vacancies.get()
            if vacancy == self._vacancy:
                continue
            try:
                async with asyncio.timeout(CAUGHT_UP_S):
                    await self._read_everything()
            except TimeoutError:
                log.warning("redis is empty and gets what is known, though it may have shown more")
            self._vacancy = vacancy
            self._changed.set()

    async def _read_everything(self) -> None:
        """Reads ledger and control topic up to their present ends, or further; retries until they answer.

        No tally is published before its block is in the ledger. The tallies topic itself would not do: another
        projector may have read in the ledger what an open transaction hides in the topic.
        """
        while True:
            try:
                await self._read_heads(range(self._context.genesis.partitions))
                control = await asyncio.to_thread(read_control, self._context.settings, CONTROL_S)
            except (LogUnavailable, LedgerUnavailable, LedgerMissing) as error:
                log.warning("redis is empty, and log or ledger does not answer", why=str(error))
                await asyncio.sleep(BEAT_S)
                continue
            if control is not None:
                self._take_control(control)
            return

    async def _frame(self, lag_ms: int) -> Frame | None:
        """Returns the frame, None while none may be shown: before the phase is known or the result is sealed."""
        control, context = self._control, self._context
        if control is None:
            return None
        at_ms = now_ms()
        if control.phase is not Phase.FINAL:
            return build_frame(
                context.session, context.genesis, self._heads.by_partition, control, lag_ms=lag_ms, now_ms=at_ms
            )
        if self._sealed is None or self._sealed.version < version_of(self._heads.by_partition, control):
            self._sealed = await self._read_sealed(control, at_ms)
        return self._sealed

    async def _read_sealed(self, control: Control, at_ms: int) -> Frame | None:
        try:
            payload = await asyncio.get_running_loop().run_in_executor(
                self._pool, self._context.ledger.get, "final"
            )
            if payload is None:
                return None
            frame = final_frame(decode_document(payload), at_ms)
        except (LedgerUnavailable, LedgerMissing, ValueError, KeyError, TypeError) as error:
            log.error("sealed result can't be read", why=repr(error))
            return None
        version = max(frame.version, version_of(self._heads.by_partition, control))
        log.info("sealed result", state=frame.phase, version=version)
        return msgspec.structs.replace(frame, version=version, closes_at=control.closes_at)
