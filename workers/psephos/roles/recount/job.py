"""The runs of a recount: the final one, a part of it, its sealing step, an audit. Calls block."""

import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from psephos.adapters.dynamodb import Ledger, LedgerMissing
from psephos.adapters.kafka import read_control
from psephos.control import sealed_ends
from psephos.domain.results import Document, decode_document, embargoed, verify_result
from psephos.formats.blocks import decode_block
from psephos.formats.control import Control, Phase
from psephos.formats.errors import Malformed
from psephos.platform.clock import now_ms
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings
from psephos.roles.recount.errors import RecountError
from psephos.roles.recount.examine import merge_patterns
from psephos.roles.recount.exporting import export
from psephos.roles.recount.partitions import (
    Part,
    Progress,
    Task,
    partitions_of,
    recount_partitions,
    recount_side_by_side,
)
from psephos.roles.recount.report import PARTIAL, RecountReport
from psephos.roles.recount.sealing import DECIDED, findings, publish, same_json, seal
from psephos.roles.recount.verdicts import Difference
from psephos.runtime.bootstrap import Context, start

FINAL_RUN = "final"
_WORTH_PROCESSES = 200_000  # records that one process reads before others have even started
_TOLD = 5  # differences in a log line; the report has more
_COUNTED = frozenset({Phase.RECOUNTING, Phase.FINAL, Phase.DISPUTED})
log = get_logger()


def quiet(_what: str) -> None:
    """A progress callback that reports nothing."""


def run_all(
    settings: Settings, *, run: str = FINAL_RUN, parallelism: int | None = None, progress: Progress = quiet
) -> RecountReport:
    """Runs the final recount: all partitions, then the sealing step. If run again, it reports what changed.

    `run` names the verdicts; after a repair (docs/runbooks/disputed.md) the name is a new one.

    Raises RecountError, SettingsError, GenesisMismatch, LogUnavailable or LedgerUnavailable.
    """
    context = _begin(settings)
    task = Task(run, _sealed(context), closed=True, with_patterns=True)
    parts = _recount(context, task, parallelism, progress)
    if any(part.conflicts for part in parts):
        return _report(context, Phase.DISPUTED, parts)
    return _seal(context, run, progress)


def run_index(
    settings: Settings, index: int, parallelism: int, *, run: str = FINAL_RUN, progress: Progress = quiet
) -> RecountReport:
    """Runs one index of an Indexed Job: every partition p with p % parallelism == index. Seals nothing."""
    context = _begin(settings)
    task = Task(run, _sealed(context), closed=True, with_patterns=True)
    partitions = partitions_of(index, parallelism, context.genesis.partitions)
    parts = recount_partitions(context, task, partitions, progress)
    return _report(context, PARTIAL, parts)


def seal_run(settings: Settings, *, run: str = FINAL_RUN, progress: Progress = quiet) -> RecountReport:
    """Runs only the sealing step, once all verdicts of this run exist."""
    context = _begin(settings)
    return _seal(context, run, progress)


def audit(settings: Settings, *, parallelism: int | None = None, progress: Progress = quiet) -> RecountReport:
    """Compares without sealing: while open up to the ledger's present heads, later up to the sealed ends and with
    the final result as well."""
    context = _begin(settings)
    phase = _control(settings).phase
    closed = phase in _COUNTED
    ends = _sealed(context) if closed else _head_ends(context)
    run = "audit-" + datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    payload = context.ledger.get("final")
    if payload is not None:
        phase = Phase.FINAL  # also if a repair made it final and the control topic does not say so
    task = Task(run, ends, closed, with_patterns=False, hidden=embargoed(context.session, phase))
    parts = _recount(context, task, parallelism, progress)
    final = None if payload is None else _readable(payload)
    extra = _against(context, parts, final) if payload is not None else ()
    state = phase if phase is not Phase.RECOUNTING else PARTIAL
    differs = bool(extra) or any(part.difference_count for part in parts)
    report = _report(context, Phase.DISPUTED if differs else state, parts, extra, final)
    _tell(run, report)
    return report


def _tell(run: str, report: RecountReport) -> None:
    if report.match:
        log.info("audit agrees", run=run, records=report.log_records)
        return
    first = [f"{each.partition}/{each.offset}: {each.kind}" for each in report.differences[:_TOLD]]
    log.error("audit found differences", run=run, differences=report.difference_count, first=first)


def _seal(context: Context, run: str, progress: Progress) -> RecountReport:
    begun, now = time.monotonic(), now_ms()
    progress("sealing the result")
    document, changed = seal(context, run, _control(context.settings), now)
    if changed:
        return _report_of(context, document, [Difference(None, None, "result-differs", name) for name in changed])
    publish(context.settings, document, now)  # first: exports may fail, and are then tried again
    place = export(context.settings, context.session, document)
    log.info("result exported", folder=place, seconds=round(time.monotonic() - begun, 3))
    return _report_of(context, document)


def _begin(settings: Settings) -> Context:
    """Starts like any role, but does not wait for a session that does not exist."""
    try:
        known = Ledger.of(settings).get("genesis")
    except LedgerMissing:
        known = None
    if known is None:
        raise RecountError(
            f"the ledger table {settings.dynamodb_table!r} holds no session {settings.session_uid}; "
            "check PSEPHOS_SESSION_UID and PSEPHOS_DYNAMODB_TABLE"
        )
    return start(settings)


def _recount(context: Context, task: Task, parallelism: int | None, progress: Progress) -> list[Part]:
    partitions = context.genesis.partitions
    wanted = parallelism or min(context.session.spec.recount.parallelism, os.cpu_count() or 1)
    processes = min(wanted, partitions)
    if processes == 1 or (parallelism is None and task.records < _WORTH_PROCESSES):
        return recount_partitions(context, task, range(partitions), progress)
    return recount_side_by_side(context.settings, task, partitions, processes, progress)


def _control(settings: Settings) -> Control:
    control = read_control(settings)
    if control is None:
        raise RecountError(f"session {settings.session_uid} has no control record: prepare it first")
    return control


def _sealed(context: Context) -> tuple[int, ...]:
    known = sealed_ends(context.ledger)
    missing = [str(p) for p in range(context.genesis.partitions) if p not in known]
    if missing:
        raise RecountError(f"partitions {', '.join(missing)} are not sealed: close the session first, or audit it")
    return tuple(known[partition] for partition in range(context.genesis.partitions))


def _head_ends(context: Context) -> tuple[int, ...]:
    return tuple(_head_end(context, partition) for partition in range(context.genesis.partitions))


def _head_end(context: Context, partition: int) -> int:
    """Returns the present end of the chain. An unreadable head counts as the one record at its base."""
    head = context.ledger.head(partition)
    if head is None:
        return 0
    try:
        return decode_block(head.payload).end
    except Malformed:
        return head.base + 1


# --- An audit of a finished session


def _readable(payload: bytes) -> Document | None:
    try:
        return decode_document(payload)
    except ValueError:
        return None


def _against(context: Context, parts: Sequence[Part], final: Document | None) -> tuple[Difference, ...]:
    """Returns what is wrong with the final result; a changed chain head only if nothing else explains it."""
    if final is None or not verify_result(final, context.genesis.public_key):
        return (Difference(None, None, "signature-broken", "of the final result"),)
    seed = None if final["lotSeed"] is None else bytes.fromhex(final["lotSeed"])
    ours = findings(
        context, [part.verdict for part in parts], merge_patterns(part.patterns for part in parts), seed
    )
    changed = [name for name in DECIDED if not same_json(ours[name], final[name])]
    heads = zip(parts, final["chainHeads"], strict=True)
    return (
        *(Difference(None, None, "result-differs", name) for name in changed if not _explained(name, parts)),
        *(
            Difference(part.verdict.partition, part.verdict.end, "head-differs", "from the final result")
            for part, head in heads
            if part.verdict.head != head and not part.differences
        ),
    )


def _explained(name: str, parts: Sequence[Part]) -> bool:
    """Returns whether a changed chain explains it: the lot is mixed with the heads, so a tie's outcome changes."""
    return name == "outcome" and any(part.differences for part in parts)


# --- Reports


def _report(
    context: Context,
    state: str,
    parts: Sequence[Part],
    extra: Sequence[Difference] = (),
    document: Document | None = None,
) -> RecountReport:
    """Builds the report on partitions that this run recounted."""
    differences = [difference for part in parts for difference in part.differences]
    verdicts = [part.verdict for part in parts]
    whole = len(parts) == context.genesis.partitions
    figures: Mapping[str, Any] = {}
    if whole:
        figures = findings(context, verdicts, merge_patterns(part.patterns for part in parts), None)
    hidden = document is None and embargoed(context.session, Phase(state))
    return RecountReport(
        session=context.session.name,
        state=state,
        log_records=sum(verdict.log_records for verdict in verdicts),
        differences=(*differences, *extra),
        difference_count=sum(part.difference_count for part in parts) + len(extra),
        turnout=figures.get("turnout"),
        totals=None if hidden else figures.get("totals"),
        segments=None if hidden else figures.get("segments"),
        outcome=None if document is None else document["outcome"],
        document=document,
    )


def _report_of(context: Context, document: Document, changed: Sequence[Difference] = ()) -> RecountReport:
    """Builds the report on a result in the ledger, and on members for which this run found something else."""
    recount = document["recount"]
    return RecountReport(
        session=context.session.name,
        state=Phase.DISPUTED if changed else document["state"],
        log_records=recount["logRecords"],
        differences=(*(Difference(**difference) for difference in recount["differences"]), *changed),
        difference_count=recount["differenceCount"] + len(changed),
        turnout=document["turnout"],
        totals=document["totals"],
        segments=document["segments"],
        outcome=document["outcome"],
        document=document,
    )
