"""One history's world: real tally workers and the real closing protocol on simulated servers, and the oracle.

What runs is psephos.roles.tally (worker, partition, decide, store, publisher), psephos.adapters.dynamodb and the
control plane (state machine, executor, closing steps), as they are. Simulated are the libraries below them: the
Kafka client, boto3's client, LMDB, threads and the clock.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from functools import cache
from types import MappingProxyType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgspec
from tests.model import kafka, processes
from tests.model.disk import Claim, Environment, Folder, Lmdb, Machine, Shutil
from tests.model.dynamodb import Table
from tests.model.kafka import Cluster, Published, Record
from tests.model.processes import Clock, Process, point

from psephos.adapters.dynamodb import Ledger
from psephos.adapters.kafka import ControlRecord, LogUnavailable
from psephos.control import DesiredState, Executor, closing_steps, executor, observation, phases
from psephos.control.desired_state import commands_of
from psephos.domain.genesis import Genesis, encode_genesis
from psephos.domain.session import Session, parse_session, rules_hash
from psephos.formats.blocks import NOTHING, Block, RecordClass, State, block_hash, decode_block
from psephos.formats.control import Control, Phase
from psephos.formats.votes import (
    MARKER_KEY,
    NONCE_BYTES,
    decode_vote,
    encode_marker,
    encode_vote,
    partition_of,
    voter_key,
)
from psephos.platform.health import Health
from psephos.roles.ingest.gate import HEARD_SHARE
from psephos.roles.recount.compare import Chain, LogRecord, compare
from psephos.roles.recount.examine import RecordRules
from psephos.roles.tally import decide, partition, publisher, store, worker
from psephos.roles.tally.publisher import Fenced
from psephos.roles.tally.store import FORMAT, Meta
from psephos.runtime.bootstrap import Context

UID = "model"
PARTITIONS = 2
ORDINALS = 3
MAX_RECORDS = 4  # of a block: so that a lag is several blocks
FETCH_RECORDS = 8  # of a poll: more than a block, as it is in earnest
HEALING_STEPS = 1_500  # several times what any history needs to come to rest
KEY = b"k" * 32
GRACE_MS = 1_000
LEARNT_MS = int(HEARD_SHARE * GRACE_MS)  # within which ingest learns of an announcement, or acknowledges nothing
PASSING_MS = 2_000  # how far the time goes on where nothing is due


class Violation(AssertionError):
    """Something that must always hold does not."""


class Stage(IntEnum):
    """What ingest does: it takes votes, only confirms them, no longer confirms them; or markers are due."""

    OPEN = 0
    CLOSED = 1
    UNCONFIRMED = 2
    GRACE_OVER = 3


REVOTES: dict[str, dict[str, Any]] = {
    "first": {},
    "quota": {"votesPerVoter": 2},
    "last": {"revote": "last"},
}


@cache
def session_of(kind: str) -> Session:
    """A session by how often a voter may vote: first, quota or last."""
    options = [{"id": name, "label": name} for name in ("ada", "bob", "cyd")]
    spec = {
        "ballot": {"type": "single", "options": options},
        "voters": {"tokens": {"issuer": "i", "audience": "a"}, **REVOTES[kind]},
    }
    return parse_session(
        {"apiVersion": "psephos.dev/v1alpha1", "kind": "VotingSession", "metadata": {"name": "m"}, "spec": spec}
    )


@cache
def genesis_of(kind: str) -> Genesis:
    return Genesis(
        session=UID, name="m", partitions=PARTITIONS, topic_id="t", key_fingerprint="f",
        rules_hash=rules_hash(session_of(kind)).hex(), public_key="", receipt_key="", lot_commitment="",
    )  # fmt: skip


@cache
def voters_of(number: int) -> tuple[bytes, ...]:
    """16 voters of a partition."""
    keys = (voter_key(KEY, f"voter-{n}") for n in range(100))
    return tuple([key for key in keys if partition_of(key, PARTITIONS) == number][:16])


class World:
    """Everything outside of the workers, and the list of them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.session = session_of(kind)
        self.genesis = genesis_of(kind)
        self.clock = Clock()
        self.table = Table(self._written)
        self.cluster = Cluster(PARTITIONS, self.clock, self._published)
        self.machines = [Machine(str(ordinal)) for ordinal in range(ORDINALS)]
        self.workers: list[Process] = []
        self.closers: list[Process] = []
        self.now_ms = 0
        self.close_commanded = False
        self.controls = [ControlRecord(Control(phase=Phase.OPEN, number=1, grace_ms=GRACE_MS), 0)]
        self.announced_ms = 0
        self.journal: list[tuple[int, int]] = []  # partition and offset of each vote that got its 202
        self.in_flight: list[tuple[int, Record]] = []  # sent to a broker, not appended yet
        self.sealed_ends: tuple[int, ...] | None = None
        self.published = [-1] * PARTITIONS
        self.chains: list[list[Block]] = [[] for _ in range(PARTITIONS)]
        self.heads = [self.genesis.hash] * PARTITIONS
        self.seen: Counter[str] = self.cluster.counts
        self.trace: list[str] = []
        self.violation: str | None = None
        self._started = 0
        self.table.items[f"{UID}#genesis", 0] = encode_genesis(self.genesis)

    # what is checked as it happens

    def _written(self, key: str, base: int, payload: bytes) -> None:
        kind = key.partition("#")[2]
        if not kind.isdigit():
            return
        number, block = int(kind), decode_block(payload)
        chain = self.chains[number]
        end = chain[-1].end if chain else 0
        if (block.base, base, block.previous) != (end, end, self.heads[number]):
            self.violated(f"partition {number}: a block at {base} behind a chain that ends at {end}")
        if not 0 < block.end - block.base <= MAX_RECORDS or block.end > len(self.cluster.log[number]):
            self.violated(f"partition {number}: a block [{block.base}, {block.end}) that the log does not have")
        self.trace.append(f"  block {number}: [{block.base}, {block.end})")
        self.seen["block written"] += 1
        self.seen["late record"] += sum(code == RecordClass.LATE for _, code in block.others)
        chain.append(block)
        self.heads[number] = block_hash(payload)

    def _published(self, news: Published) -> None:
        tally = news.tally
        number, end = tally.partition, tally.end
        behind = next((block.state for block in self.chains[number] if block.end == end), None)
        expected = State.empty(len(tally.state.tallies)) if end == 0 else behind
        if tally.state != expected or news.offset != end:
            self.violated(f"partition {number}: tallies published up to {end} are not what the ledger holds")
        if news.owner is not None and news.owner != news.by:
            self.violated(f"partition {number}: {news.by} published, {news.owner} owns it in this generation")
        self.seen["tally published"] += 1
        self.published[number] = max(self.published[number], end)

    def report(self) -> str:
        """The violation, and what the workers said before it."""
        return "\n".join([self.violation or "all is well", *self.trace[-60:]])

    def violated(self, what: str) -> None:
        self.trace.append(f"  VIOLATION {what}")
        self.violation = self.violation or what

    # processes

    def start_worker(self, machine: Machine) -> Process:
        self._started += 1
        started = Process(f"worker {machine.name}.{self._started}", machine, self._work)
        self.workers.append(started)
        return started

    def _work(self, self_process: Process) -> None:
        settings: Any = SimpleNamespace(
            session_uid=UID,
            worker=self_process.machine.name,
            data_dir=Folder("data"),
            kafka_bootstrap="-",
            kafka_properties_file=None,
        )
        context = Context(settings, self.session, self.genesis, self.ledger())
        try:
            worker.Worker(context, Health(), lambda: self_process.stopping).run()
        except Fenced:
            self.seen["worker fenced"] += 1
        except Exception as error:
            self.violated(f"{self_process.name} ended with {type(error).__name__}: {error}")
            raise

    def start_closer(self) -> Process:
        self._started += 1
        started = Process(f"closer {self._started}", None, self._close)
        self.closers.append(started)
        return started

    def move(self, number: int) -> Machine:
        """Another machine takes over this ordinal, with an empty disk."""
        self.machines[number] = Machine(str(number))
        return self.machines[number]

    def closer(self, number: int) -> Process:
        """The operator (0) or its standby (1); started (again) if it does not run."""
        self.closers = [each for each in self.closers if each.alive]
        return self.closers[number] if number < len(self.closers) else self.start_closer()

    def hear(self, silent: Process) -> None:
        """The background thread of this worker's consumer goes on: it hears of what its group has done."""
        for consumer in self.cluster.consumers:
            if consumer.process is silent and silent.alive:
                consumer.heartbeat()

    def _close(self, _process: Process) -> None:
        """A controller: passes of the state machine until the session is Recounting."""
        settings: Any = None
        ledger = self.ledger()
        steps = Executor(settings, ledger, lambda: observation.observe(settings, ledger))
        while True:
            observed, step = steps.advance(_closing, steps.observe())
            if step.phase is Phase.RECOUNTING:
                self.sealed_ends = tuple(observed.sealed[number] for number in range(PARTITIONS))
                self.seen["session closed"] += 1
                return
            self.clock.sleep(1.0)

    @property
    def stage(self) -> Stage:
        """What ingest does now, if it learns of the closing time as late as it may."""
        control = self.controls[-1].control
        if control.closes_at is None or self.now_ms < max(control.closes_at, self.announced_ms + LEARNT_MS):
            return Stage.OPEN
        passed = self.now_ms - control.closes_at
        if passed < control.grace_ms // 2:
            return Stage.CLOSED
        return Stage.UNCONFIRMED if passed < control.grace_ms else Stage.GRACE_OVER

    def time_passes(self) -> None:
        """Until ingest or the controllers have something else to do, or for a while."""
        control = self.controls[-1].control
        due = [self.now_ms + PASSING_MS]
        if control.closes_at is not None:
            ends = control.closes_at + control.grace_ms
            due = [
                self.announced_ms + LEARNT_MS,
                control.closes_at,
                control.closes_at + control.grace_ms // 2,
                ends,
            ]
        self.now_ms = min((at for at in due if at > self.now_ms), default=self.now_ms + PASSING_MS)

    def write_control(self, control: Control) -> None:
        """A record of the control topic is appended."""
        if control.closes_at != self.controls[-1].control.closes_at:
            self.announced_ms = self.now_ms
        self.controls.append(ControlRecord(control, self.now_ms))
        self.seen[f"control record: {control.phase}"] += 1
        if control.phase is Phase.RECOUNTING and self.head_ends() != self.cluster.ends():
            self.violated(f"a recount begins at heads {self.head_ends()}, the log ends at {self.cluster.ends()}")

    def ledger(self) -> Ledger:
        return Ledger(self.table, "table", UID)  # type: ignore[arg-type]

    # voters and ingest

    def vote(self, byte: int, how: str) -> None:
        """What this byte says. `how`: acked, answer lost (in the log, but no 202) or in flight."""
        if self.stage is not Stage.OPEN:
            return
        number, record = vote_of(byte, self.kind)
        if how == "in flight":
            self.in_flight.append((number, record))
        else:
            self._append(number, record, confirmed=how == "acked")

    def land(self) -> None:
        """The oldest request on its way reaches its broker."""
        if self.in_flight:
            number, record = self.in_flight.pop(0)
            self._append(number, record, confirmed=self.may_confirm())

    def may_confirm(self) -> bool:
        """Whether ingest still answers 202: from half of the grace time on it does not."""
        return self.stage < Stage.UNCONFIRMED

    def _append(self, number: int, record: Record, *, confirmed: bool) -> None:
        offset = self.cluster.append(number, record)
        if offset is not None and confirmed:
            self.journal.append((number, offset))

    def late_put_arrives(self) -> None:
        """A put arrives that its caller had given up."""
        self.seen["late put arrived"] += self.table.deliver_late()

    # faults of a store that need to know what is in it

    def replace_store(self, machine: Machine, what: str) -> None:
        """By an old copy, none, a damaged one, or a foreign one: of an earlier session with the same uid."""
        self.seen[f"store replaced: {what}"] += 1
        if what == "old copy":
            machine.restore()
        elif what == "deleted":
            machine.files.clear()
        elif what == "damaged":
            for file in machine.files.values():
                file.damaged = True
        else:
            for number in range(PARTITIONS):
                path = f"data/tally-{machine.name}/partition-{number}"
                machine.files[path] = foreign_store(machine.boot_id, number)

    # the end of a history

    def settle(self) -> None:
        """Ends all faults, and runs until everything is at rest. Raises Violation if that does not come."""
        self._heal()
        for byte in (*range(32), *range(96, 128, 2)):  # everybody votes again, half of them with another nonce
            self.vote(byte, "acked")
        for step in range(HEALING_STEPS):
            if self.violation or self._at_rest():
                self.seen["rounds to come to rest"] = step
                return
            if step % 20 == 0:
                self._replace_the_dead()
                self.time_passes()
            for each in [*self.workers, *self.closers]:
                for _ in range(8):
                    each.step()
            self.land()
        self.violated(f"no rest: heads {self.head_ends()}, log {self.cluster.ends()}, published {self.published}")

    def head_ends(self) -> list[int]:
        return [chain[-1].end if chain else 0 for chain in self.chains]

    def _heal(self) -> None:
        self.table.outage, self.table.staleness = False, 0
        self.table.faults.clear()
        self.cluster.faults.clear()
        self.cluster.silent = False
        for machine in self.machines:
            machine.full = ""
        while self.table.late:
            self.late_put_arrives()

    def _replace_the_dead(self) -> None:
        for member in list(self.cluster.group.members.values()):
            if not member.consumer.process.alive:
                self.cluster.group.expel(member.consumer.instance)
        self.workers = [each for each in self.workers if each.alive]
        self.closers = [each for each in self.closers if each.alive]
        if not self.workers:
            self.start_worker(self.machines[0])
        if self.close_commanded and not self.closers and self.sealed_ends is None:
            self.start_closer()

    def _at_rest(self) -> bool:
        ends = self.cluster.ends()
        closed = not self.close_commanded or self.sealed_ends is not None
        behind = any(end > 0 and done < end for done, end in zip(self.published, ends, strict=True))
        return closed and not behind and not self.in_flight and self.head_ends() == ends

    def close(self) -> None:
        """Ends every process of this world."""
        for each in [*self.workers, *self.closers]:
            each.kill()

    # the oracle: docs/architecture.md, section 2

    def check(self) -> None:
        """Raises Violation unless everything that must hold at rest does."""
        if self.violation is None:
            self._check_sealed()
            for number in range(PARTITIONS):
                self._check_by_recount(number)
                self._check_by_plain_reader(number)
        if self.violation is not None:
            raise Violation(self.report())

    def _check_sealed(self) -> None:
        if self.sealed_ends is not None and list(self.sealed_ends) != self.cluster.ends():
            self.violated(f"closed at {self.sealed_ends}, the log ends at {self.cluster.ends()}")

    def _check_by_recount(self, number: int) -> None:
        """By the recount's own code."""
        rules = RecordRules.of(self.session, PARTITIONS)
        records = [LogRecord(offset, *record) for offset, record in enumerate(self.cluster.log[number])]
        blocks = list(self.ledger().blocks(number))
        chain = Chain(UID, number, self.genesis.hash)
        closed = self.sealed_ends is not None
        verdict = compare(rules, chain, records, blocks, len(records), closed=closed).verdict
        if verdict.differences:
            first = verdict.differences[0]
            self.violated(f"partition {number}: recount: {first.kind} at {first.offset}: {first.detail}")

    def _check_by_plain_reader(self, number: int) -> None:
        """By a reader of a few lines: lost and double as their definitions say."""
        classes: Counter[int] = Counter()
        counted: Counter[bytes] = Counter()
        for block in self.chains[number]:
            for vote in block.accepted:
                classes[vote.offset] += 1
                counted[vote.voter] += 1 if vote.supersedes == NOTHING else 0
            for offset, code in block.others:
                classes[offset] += 1
                if code == RecordClass.LATE and (number, offset) in self.journal:
                    self.violated(f"partition {number}: the 202 at {offset} is late")
        lost = [offset for at, offset in self.journal if at == number and classes[offset] != 1]
        if lost:
            self.violated(f"partition {number}: lost, or in more than one class: the 202s at {lost}")
        if list(classes) and (
            set(classes) != set(range(len(self.cluster.log[number]))) or max(classes.values()) > 1
        ):
            self.violated(f"partition {number}: not every record is in one block and one class")
        allowance = REVOTES[self.kind].get("votesPerVoter", 1)
        double = [voter.hex() for voter, votes in counted.items() if votes > allowance]
        if double:
            self.violated(f"partition {number}: counted more often than allowed: {double}")
        if self._plain_totals(number) != self._head_totals(number):
            self.violated(f"partition {number}: totals {self._head_totals(number)}, by a plain replay of the log "
                          f"{self._plain_totals(number)}")  # fmt: skip

    def _head_totals(self, number: int) -> list[int]:
        state = self.chains[number][-1].state if self.chains[number] else State.empty(3)
        return [total // 1_000_000 for total in state.tallies]

    def _plain_totals(self, number: int) -> list[int]:
        """Votes an option: each voter's ballots by nonce, in the order of the log, up to the marker."""
        ballots: dict[bytes, dict[bytes, int]] = {}
        allowance = {"first": 1, "quota": 2, "last": 100}[self.kind]
        for key, value in self.cluster.log[number]:
            if key == MARKER_KEY:
                break
            if key not in voters_of(number) or not value or value == b"poison":
                continue
            vote = decode_vote(value)
            mine = ballots.setdefault(key or b"", {})
            if vote.nonce not in mine and len(mine) < allowance:
                mine[vote.nonce] = int.from_bytes(vote.ballot, "big")
        totals = [0, 0, 0]
        for mine in ballots.values():
            for option in list(mine.values())[-1:] if self.kind == "last" else mine.values():
                totals[option] += 1
        return totals


def vote_of(byte: int, kind: str) -> tuple[int, Record]:
    """A vote in its partition, by one of 16 voters, for one of three options, with one of three nonces where the
    session wants one; one in eight is poison.
    """
    number, voter, what = byte % 2, byte // 2 % 16, byte // 32
    if what == 7:
        return number, (voters_of(number)[voter], b"poison")
    nonce = b"" if kind == "first" else bytes([what // 3 + 1]) * NONCE_BYTES
    return number, (voters_of(number)[voter], encode_vote((what % 3).to_bytes(2, "big"), 1_000, nonce=nonce))


def foreign_store(boot_id: str, number: int) -> Environment:
    """A store that fits by everything but its chain, and says to know voters who have not voted here."""
    meta = Meta(FORMAT, UID, number, b"o" * 32, 2, boot_id, False)
    known = dict.fromkeys(voters_of(number)[:2], (0).to_bytes(8, "big"))
    file = Environment()
    file.commit({b"voters": known, b"info": {b"meta": msgspec.msgpack.encode(meta)}})
    file.sync()
    return file


# --- The simulated libraries below the code under check


_current: World


class _Metrics:
    """Counts instead of the real metrics: the paths that a history has seen."""

    def __getattr__(self, name: str) -> "_Metric":
        return _Metric(name)


class _Metric:
    def __init__(self, name: str) -> None:
        self._name = name

    def labels(self, *labels: Any) -> "_Metric":
        return _Metric(f"{self._name} {labels[0]}") if self._name == "TRANSACTIONS" else self

    def inc(self, amount: int = 1) -> None:
        _current.seen[self._name] += amount

    def _nothing(self, *_: Any) -> None: ...

    set = observe = remove = _nothing


class _Log:
    """Collects what the workers say, for the report of a violation."""

    def __getattr__(self, level: str) -> Callable[..., None]:
        return self._say

    def _say(self, event: str, **fields: Any) -> None:
        processes.notice(event, fields)
        told = " ".join(f"{name}={value}" for name, value in fields.items())
        _current.trace.append(f"    {processes.process().name}: {event} {told}")


class _Admin:
    """Stands in for LogAdmin."""

    def __init__(self, _settings: object, *, isolated: bool = True) -> None: ...

    def seal_votes(self) -> None:
        point("seal on its way")
        _current.cluster.sealing = True
        point("seal answered")

    def describe_votes(self, _timeout_s: float) -> tuple[str, int]:
        point("topic described")
        if _current.cluster.silent:
            raise LogUnavailable("no broker answers")
        return _current.genesis.topic_id, PARTITIONS

    def end_offsets(self, _partitions: int) -> list[int]:
        point("ends on their way")
        ends = _current.cluster.ends()
        point("ends answered")
        return ends


def _mark_closed(_settings: object, partitions: int, closes_at: int) -> list[int]:
    behind: list[int] = []
    for number in range(partitions):
        point("marker on its way")
        offset = _current.cluster.append(number, (MARKER_KEY, encode_marker(closes_at)))
        behind.append(0 if offset is None else offset + 1)
    point("markers acknowledged")
    return behind


def _refusing(_settings: object, partitions: int) -> set[int]:
    """A probe of each leader. The seal comes to one leader after the other."""
    cluster = _current.cluster
    for number in range(partitions):
        point("probe on its way")
        cluster.append(number, (b"psephos.probe", b""))
    refused = {number for number in range(partitions) if cluster.sealed[number]}
    if cluster.sealing and False in cluster.sealed:
        cluster.sealed[cluster.sealed.index(False)] = True
    return refused


def _closing(control: Control | None) -> Any:
    """The command to close, as soon as possible."""
    assert control is not None
    return commands_of(control, DesiredState(close_at=0))


def _read_control_record(_settings: object) -> ControlRecord:
    point("control record on its way")
    return max(_current.controls, key=lambda record: record.control.number)


def _read_control(settings: object) -> Control:
    return _read_control_record(settings).control


def _write_control(_settings: object, control: Control) -> None:
    point("control record written")
    _current.write_control(control)
    point("control record acknowledged")


def _now_ms() -> int:
    return _current.now_ms


class _Time:
    """Stands in for the module `time`, by the clock of the current world."""

    def monotonic(self) -> float:
        return _current.clock.monotonic()

    def sleep(self, seconds: float) -> None:
        _current.clock.sleep(seconds)


def _wait(*arguments: Any, **named: Any) -> Any:
    return processes.wait_on(_current.clock)(*arguments, **named)


class _Middle:
    """Stands in for the module `random`."""

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) / 8


@contextlib.contextmanager
def simulated(instead: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
    """Puts the simulated libraries below the code under check; `instead` replaces parts of it by
    their names, as mutants do."""
    log, metrics, time = _Log(), _Metrics(), _Time()
    lmdb: Any = Lmdb()
    with contextlib.ExitStack() as stack:

        def put(module: Any, **names: Any) -> None:
            stack.enter_context(patch.multiple(module, **names))

        put(
            worker, Consumer=lambda config: kafka.Consumer(_current.cluster, config), log=log, metrics=metrics,
            ThreadPoolExecutor=processes.Pool, wait=_wait, time=time, random=_Middle(), crash_point=point,
            boot_id=lambda: processes.process().machine.boot_id, FETCH_RECORDS=FETCH_RECORDS, LogAdmin=_Admin,
            claim=Claim, _REBUILD_S=(0.1, 0.4),
        )  # fmt: skip
        put(publisher, Producer=lambda config: kafka.Producer(_current.cluster, config))
        put(publisher, log=log, metrics=metrics, crash_point=point, in_time=lambda call: call())
        put(store, lmdb=lmdb, shutil=Shutil())
        put(partition, log=log, metrics=metrics, MAX_RECORDS=MAX_RECORDS, _BLOCKS_A_STEP=2)
        put(decide, MAX_RECORDS=MAX_RECORDS)
        put(
            closing_steps, mark_closed=_mark_closed, LogAdmin=_Admin, refusing_partitions=_refusing, time=time,
            log=log, now_ms=_now_ms, broker_time_ms=lambda _settings: _now_ms(),
        )  # fmt: skip
        put(phases, read_control=_read_control, write_control=_write_control, log=log)
        put(observation, read_control_record=_read_control_record, log=log)
        put(executor, now_ms=_now_ms, log=log)
        for name, replacement in instead.items():
            target, _, attribute = name.rpartition(".")
            stack.enter_context(patch(f"{target}.{attribute}", replacement))
        yield


def enter(world: World) -> None:
    """From here on the simulated libraries belong to this world."""
    global _current
    _current = world
