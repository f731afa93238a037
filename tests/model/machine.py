"""The explorer: hypothesis chooses who goes on, who dies and what breaks, and shrinks what it finds."""

from collections import Counter, deque
from collections.abc import Callable
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.model.processes import Process
from tests.model.world import ORDINALS, REVOTES, Violation, World, enter

from psephos.roles.tally.crash import STEPS

COMING = 80  # points in which a worker mostly comes to the step that it is wanted at
IDLE = 3  # polls one after the other with nothing between: there is nothing to do
CATCHING_UP = 60  # points in which others mostly take over what a silent worker had

BETWEEN = ("fetched", "fetched", "decided", "committed")  # steps at which a first process waits for long

who = st.integers(0, ORDINALS - 1)
how_far = st.sampled_from([1, 2, 3, 5, 8, 13, 21, 34, 55])
votes = st.binary(min_size=1, max_size=9)  # a byte a vote, which is drawn faster than four numbers


class Histories(RuleBasedStateMachine):
    """Each rule is something that may happen. At the end all faults are over and everything must come to rest."""

    explored: ClassVar[int] = 0
    seen: ClassVar[Counter[str]] = Counter()

    @initialize(
        kind=st.sampled_from(sorted(REVOTES)),
        workers=st.integers(1, ORDINALS),
        of=votes,
        full=st.sampled_from(["", "", "commit", "spill"]),
        more=votes,
    )
    def begin(self, kind: str, workers: int, of: bytes, full: str, more: bytes) -> None:
        """`full`: how the first worker's disk fills behind its first block, while the chain is short."""
        type(self).explored += 1
        self.world = World(kind)
        enter(self.world)
        for number in range(workers):
            self._worker(number)
        if full:
            self.disk_fills(of, 0, full, True, "committed", more)
        else:
            self._vote(of, "acked")

    # work goes on

    @rule(of=votes, how=st.sampled_from(["acked", "acked", "answer lost", "in flight"]), rounds=how_far)
    def voters_vote(self, of: bytes, how: str, rounds: int) -> None:
        self._vote(of, how)
        self._all(rounds)

    @rule(number=who, steps=how_far, pick=st.sampled_from([0, 0, 1, -1]))
    def worker_goes_on(self, number: int, steps: int, pick: int) -> None:
        """`pick`: 1 lets the second put in flight go before the first, -1 lets puts wait."""
        self._run(self._worker(number), steps, pick)

    @rule(of=votes, number=who, step=st.sampled_from(STEPS))
    def worker_comes_to(self, of: bytes, number: int, step: str) -> None:
        self._to(of, number, step)

    @rule(rounds=how_far)
    def all_go_on(self, rounds: int) -> None:
        self._all(rounds)

    @rule(number=who)
    def worker_stops_in_order(self, number: int) -> None:
        stopping = self._worker(number)
        stopping.stopping = True
        self._run(stopping, COMING, 0)

    # workers die, or are taken for dead

    @rule(number=who, steps=how_far)
    def worker_is_killed(self, number: int, steps: int) -> None:
        self._run(self._worker(number), steps, 0)
        self._worker(number).kill()

    @rule(of=votes, number=who, step=st.sampled_from(STEPS))
    def worker_is_killed_at(self, of: bytes, number: int, step: str) -> None:
        self._to(of, number, step).kill()

    @rule(of=votes, number=who, step=st.sampled_from(STEPS), more=votes, hears=st.booleans())
    def worker_is_silent_at(self, of: bytes, number: int, step: str, more: bytes, hears: bool) -> None:
        """It stops there until its session is over, and others take its partitions; it may go on later.

        `hears`: its background thread goes on first.
        """
        silent = self._to(of, number, step)
        self._vote(more, "acked")
        self.world.cluster.group.expel(f"tally-{number}")
        others = [each for each in self.world.workers if each is not silent and each.alive]
        others = others or [self._worker((number + 1) % ORDINALS)]
        for _ in range(CATCHING_UP):
            for each in others:
                each.step()
        if hears:
            self.world.hear(silent)
        self._judge()

    @rule(of=votes, number=who, other=st.integers(1, ORDINALS - 1), waits=how_far)
    def put_takes_long_while_another_joins(self, of: bytes, number: int, other: int, waits: int) -> None:
        """So long that its owner polls meanwhile, and loses the partition."""
        slow = self._to(of, number, "decided")
        joining = self._worker((number + other) % ORDINALS)
        self._run(joining, 8, 0)
        self._run(slow, waits, -1)
        self._run(joining, CATCHING_UP, 0)
        self._run(slow, CATCHING_UP, 0)

    @rule(of=votes, number=who, step=st.sampled_from(BETWEEN), more=votes, elsewhere=st.booleans())
    def second_process_starts(self, of: bytes, number: int, step: str, more: bytes, elsewhere: bool) -> None:
        """Of an ordinal whose first process was taken for dead, but only waits; on its disk or on another."""
        self._to(of, number, step)
        self._vote(more, "acked")
        first = self._worker(number)
        machine = self.world.move(number) if elsewhere else self.world.machines[number]
        self._run(self.world.start_worker(machine), 2 * CATCHING_UP, 0)
        self._run(first, CATCHING_UP, 0)

    # the ledger

    @rule(of=votes, number=who, more=votes, killed=st.booleans())
    def old_put_arrives(self, of: bytes, number: int, more: bytes, killed: bool) -> None:
        """A put arrives when its worker is dead or silent and the next owner has decided on another block."""
        old = self._to(of, number, "decided")
        self.world.table.faults.setdefault(old.name, deque()).append("late")
        self._run(old, 6, 0, lambda: bool(self.world.table.late))
        self._vote(more, "acked")
        if killed:
            old.kill()
        else:
            self.world.cluster.group.expel(f"tally-{number}")
        self._to(b"", number if killed else (number + 1) % ORDINALS, "decided")
        self.world.late_put_arrives()
        self._judge()

    @rule(number=who, faults=st.lists(st.sampled_from(["refused", "lost", "late"]), min_size=1, max_size=3))
    def ledger_fails(self, number: int, faults: list[str]) -> None:
        name = self._worker(number).name
        self.world.table.faults.setdefault(name, deque()).extend(faults)

    @rule(rounds=how_far)
    def late_put_arrives(self, rounds: int) -> None:
        self._all(rounds)
        self.world.late_put_arrives()
        self._judge()

    @rule(rounds=how_far)
    def ledger_outage(self, rounds: int) -> None:
        self.world.table.outage = True
        self._all(rounds)
        self.world.table.outage = False

    @rule(items=st.integers(0, 3))
    def ledger_reads_stale(self, items: int) -> None:
        self.world.table.staleness = items

    # Kafka

    @rule(
        number=who,
        faults=st.lists(
            st.sampled_from(["offsets", "commit", "answer", "abort", "stuck"]), min_size=1, max_size=6
        ),
    )
    def coordinator_is_silent(self, number: int, faults: list[str]) -> None:
        self._coordinator_faults(number).extend(faults)

    @rule(number=who)
    def aborts_come_to_no_end(self, number: int) -> None:
        self._coordinator_faults(number).insert(0, "endless")

    @rule(of=votes, number=who)
    def transaction_times_out(self, of: bytes, number: int) -> None:
        if self._to(of, number, "in-transaction").at == "in-transaction":
            self.world.cluster.expired.add(f"psephos.model.tally.{number}")

    @rule(rounds=how_far)
    def brokers_are_silent(self, rounds: int) -> None:
        self.world.cluster.silent = True
        self._all(rounds)
        self.world.cluster.silent = False

    @rule(number=who, records=st.integers(1, 2))
    def fetch_skips(self, number: int, records: int) -> None:
        member = self.world.cluster.group.members.get(f"tally-{number}")
        if member is not None:
            member.consumer.skip(records)

    # disks

    @rule(
        of=votes,
        number=who,
        full=st.sampled_from(["commit", "spill"]),
        of_stores=st.booleans(),
        step=st.sampled_from(STEPS),
        more=votes,
    )
    def disk_fills(self, of: bytes, number: int, full: str, of_stores: bool, step: str, more: bytes) -> None:
        self._to(of, number, step)
        self._vote(more, "acked")
        machine = self.world.machines[number]
        machine.full, machine.full_of_stores = full, of_stores
        self._all(CATCHING_UP)

    @rule(number=who)
    def disk_has_room(self, number: int) -> None:
        self.world.machines[number].full = ""

    @rule(of=votes, number=who, seed=st.integers(0, 65_535), orderly=st.booleans(), steps=how_far)
    def power_goes(self, of: bytes, number: int, seed: int, orderly: bool, steps: int) -> None:
        """`orderly`: the worker had been stopped in order and started again before."""
        if orderly:
            self.worker_stops_in_order(number)
            self._to(of, number, "committed")
        self._run(self._worker(number), steps, 0)
        self._worker(number).kill()
        self.world.machines[number].lose_power(seed)
        self.world.seen["power lost"] += 1

    @rule(number=who)
    def store_is_backed_up(self, number: int) -> None:
        self.world.machines[number].back_up()

    @rule(number=who, what=st.sampled_from(["old copy", "deleted", "damaged", "foreign"]))
    def store_is_replaced(self, number: int, what: str) -> None:
        self._worker(number).kill()
        self.world.replace_store(self.world.machines[number], what)

    # the end of voting

    @rule(rounds=how_far)
    def request_lands(self, rounds: int) -> None:
        self._all(rounds)
        self.world.land()

    @rule(of=votes, by=st.integers(1, 3), steps=how_far, number=st.integers(0, 1))
    def closing_comes_nearer(self, of: bytes, by: int, steps: int, number: int) -> None:
        """Somebody commands to close, or time passes; requests are on their way meanwhile."""
        world = self.world
        world.close_commanded = True
        self._run(world.closer(number), steps, 0)
        self._vote(of, "in flight")
        for _ in range(by):
            world.time_passes()

    @precondition(lambda self: self.world.close_commanded)
    @rule(steps=how_far, number=st.integers(0, 1))
    def closer_goes_on(self, steps: int, number: int) -> None:
        """The operator and its standby: both may close at once."""
        self._run(self.world.closer(number), steps, 0)

    @precondition(lambda self: self.world.close_commanded)
    @rule(steps=how_far, number=st.integers(0, 1))
    def closer_is_killed(self, steps: int, number: int) -> None:
        closer = self.world.closer(number)
        self._run(closer, steps, 0)
        closer.kill()

    def teardown(self) -> None:
        world = self.world
        try:
            if world.violation is None:
                world.settle()
                world.check()
        finally:
            world.close()
            type(self).seen.update(world.seen)

    def _worker(self, number: int) -> Process:
        """The worker of this ordinal; started (again) if none runs."""
        running = [each for each in self.world.workers if each.machine.name == str(number) and each.alive]
        return running[-1] if running else self.world.start_worker(self.world.machines[number])

    def _coordinator_faults(self, number: int) -> list[str]:
        """Those that wait for the worker of this ordinal, the next one first."""
        return self.world.cluster.faults.setdefault(self._worker(number).name, [])

    def _run(self, of: Process, steps: int, pick: int, until: Callable[[], bool] = lambda: False) -> None:
        idle = 0
        for _ in range(steps):
            before = of.at
            of.step(pick)
            idle = idle + 1 if before == of.at == "poll" else 0
            if until() or idle > IDLE or not of.alive:
                break
        self._judge()

    def _vote(self, of: bytes, how: str) -> None:
        for byte in of:
            self.world.vote(byte, how)

    def _to(self, of: bytes, number: int, step: str) -> Process:
        """Lets a worker go on until it comes to this crash point, or for a good while; with votes to work on."""
        self._vote(of, "acked")
        found = self._worker(number)
        self._run(found, COMING, 0, lambda: found.at == step)
        return found

    def _all(self, rounds: int) -> None:
        idle = 0
        for _ in range(rounds):
            for each in self.world.workers:
                each.step()
            idle = idle + 1 if all(each.at == "poll" or not each.alive for each in self.world.workers) else 0
            if idle > IDLE:
                break
        self._judge()

    def _judge(self) -> None:
        if self.world.violation is not None:
            raise Violation(self.world.report())
