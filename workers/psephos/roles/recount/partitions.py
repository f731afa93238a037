"""The recount of single partitions on the real log and ledger; several in parallel processes."""

import gc
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from psephos.adapters.dynamodb import StoredBlock
from psephos.adapters.kafka import LogAdmin, read_batches, votes_topic
from psephos.platform.logs import configure_logs, get_logger
from psephos.platform.settings import Settings
from psephos.roles.recount.compare import Chain, LogRecord, compare
from psephos.roles.recount.errors import RecountError
from psephos.roles.recount.examine import RecordRules
from psephos.roles.recount.verdicts import (
    MAX_DIFFERENCES,
    Difference,
    Verdict,
    encode_verdict,
    pattern_chunks,
    patterns_hash,
    without_figures,
)
from psephos.runtime.bootstrap import Context, start

Progress = Callable[[str], None]
log = get_logger()


class Task(NamedTuple):
    """The parameters of a recount. run: name of its verdicts; ends: by partition; closed: they are sealed ends;
    with_patterns: the ballots are kept as well, for a sealing step elsewhere; hidden: the verdicts that are kept
    hold no figures per option."""

    run: str
    ends: tuple[int, ...]
    closed: bool
    with_patterns: bool
    hidden: bool = False

    @property
    def records(self) -> int:
        return sum(self.ends)


class Part(NamedTuple):
    """A recounted partition. conflicts: an earlier run under the same name had other findings."""

    verdict: Verdict
    patterns: dict[bytes, int]
    conflicts: bool

    @property
    def differences(self) -> tuple[Difference, ...]:
        """The verdict's differences; if it has none but conflicts with an earlier one, that is the difference."""
        if self.conflicts and not self.verdict.differences:
            detail = "an earlier recount under this name found otherwise"
            return (Difference(self.verdict.partition, None, "verdict-differs", detail),)
        return self.verdict.differences

    @property
    def difference_count(self) -> int:
        return max(self.verdict.difference_count, len(self.differences))


def recount_partitions(context: Context, task: Task, partitions: Sequence[int], progress: Progress) -> list[Part]:
    """Recounts these partitions one at a time and writes their verdicts."""
    admin = LogAdmin(context.settings)
    starts = admin.start_offsets(context.genesis.partitions)
    ends = admin.end_offsets(context.genesis.partitions)
    return [
        _recount(context, task, partition, starts[partition], ends[partition], progress)
        for partition in partitions
    ]


def recount_side_by_side(
    settings: Settings, task: Task, partitions: int, parallelism: int, progress: Progress
) -> list[Part]:
    """Recounts all partitions in `parallelism` processes, one per index, as an Indexed Job does."""
    spawn = multiprocessing.get_context("spawn")  # a fork would share sockets and librdkafka's dead threads
    parts: list[Part] = []
    with ProcessPoolExecutor(parallelism, spawn, _begin, (settings,)) as pool:
        jobs = [
            pool.submit(_recount_index, settings, task, partitions_of(index, parallelism, partitions))
            for index in range(parallelism)
        ]
        for job in as_completed(jobs):
            parts += job.result()
            progress(f"{len(parts)} of {partitions} partitions recounted")
    return sorted(parts, key=lambda part: part.verdict.partition)


def partitions_of(index: int, parallelism: int, partitions: int) -> range:
    """Returns the partitions of one index of a Job. Raises RecountError for an index out of range."""
    if not 0 <= index < parallelism:
        raise RecountError(
            f"index {index} of a recount with parallelism {parallelism}; allowed: 0 to {parallelism - 1}"
        )
    return range(index, partitions, parallelism)


def _recount_index(settings: Settings, task: Task, partitions: range) -> list[Part]:
    return recount_partitions(start(settings), task, partitions, lambda _what: None)


def _begin(settings: Settings) -> None:
    """Initialises a worker process: logs like the parent, and exits with it."""
    configure_logs(
        role="recount", level=settings.log_level, form=settings.log_format, session=settings.session_uid
    )
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _recount(
    context: Context, task: Task, partition: int, log_start: int, log_end: int, progress: Progress
) -> Part:
    begun = time.monotonic()
    genesis, end = context.genesis, task.ends[partition]
    with _collector_off():
        found = compare(
            RecordRules.of(context.session, genesis.partitions),
            Chain(genesis.session, partition, genesis.hash),
            _records(context.settings, partition, log_start, min(end, log_end)),
            _blocks(context, partition, None if task.closed else end),
            end,
            closed=task.closed,
        )
    verdict = found.verdict
    if task.closed:
        verdict = _with_log_end(verdict, log_end)
    chunks = list(pattern_chunks(found.patterns))
    verdict = msgspec.structs.replace(verdict, patterns=patterns_hash(chunks))
    conflicts = _keep(context, task, verdict, chunks)
    log.info(
        "partition recounted",
        partition=partition,
        records=verdict.records,
        differences=verdict.difference_count,
        seconds=round(time.monotonic() - begun, 3),
    )
    progress(f"partition {partition}: {verdict.records} records, {verdict.difference_count} differences")
    return Part(verdict, found.patterns, conflicts)


@contextmanager
def _collector_off() -> Iterator[None]:
    """Turns the collector off: a comparison creates no cycles, but millions of tuples that stay, and walking them
    again and again took 30% of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _with_log_end(verdict: Verdict, log_end: int) -> Verdict:
    """Adds the log's end, and a difference if there is anything after the sealed end."""
    beyond = log_end - verdict.end
    if beyond <= 0:
        return msgspec.structs.replace(verdict, log_end=log_end)
    told = Difference(verdict.partition, verdict.end, "log-beyond-seal", f"{beyond} records behind the sealed end")
    return msgspec.structs.replace(
        verdict,
        log_end=log_end,
        differences=(*verdict.differences[: MAX_DIFFERENCES - 1], told),
        difference_count=verdict.difference_count + 1,
    )


def _records(settings: Settings, partition: int, begin: int, end: int) -> Iterator[LogRecord]:
    """Yields the log from `begin`, its first offset (0 unless it was truncated), to `end`."""
    if begin >= end:
        return
    for batch in read_batches(settings, votes_topic(settings.session_uid), partition, begin, end):
        yield from [LogRecord(message.offset(), message.key(), message.value()) for message in batch]


def _blocks(context: Context, partition: int, limit: int | None) -> Iterator[StoredBlock]:
    """Yields all blocks, or those below `limit` if the tally is still writing more."""
    for block in context.ledger.blocks(partition):
        if limit is not None and block.base >= limit:
            return
        yield block


def _keep(context: Context, task: Task, verdict: Verdict, chunks: Sequence[bytes]) -> bool:
    """Writes the findings, patterns first; returns whether others are already stored there."""
    partition, put = verdict.partition, context.ledger.put_once
    stored: list[Any] = [
        put(f"patterns#{task.run}#{partition}", chunk, sort=number) == chunk
        for number, chunk in enumerate(chunks if task.with_patterns else ())
    ]
    own = encode_verdict(without_figures(verdict) if task.hidden else verdict)
    return put(f"verdict#{task.run}", own, sort=partition) != own or not all(stored)
