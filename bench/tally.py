"""The tally beside Kafka Streams and Quix Streams: the same topic, the same votes, the same cores, in turn.

How far each has come is read in one way for all: the offsets that its consumer group has committed, all of them in
transactions. The rate counts from the first commit to the last: neither Python's nor the JVM's start is in it. CPU
is that of all processes of the role, without brokers and DynamoDB Local: `cpu_us_a_vote` from the first commit to
the last, `cpu_us_a_vote_whole` from the process's start on.

Ours writes every vote into the ledger as well, with its digests; theirs have no ledger.
"""

import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench import plots
from bench.peers import quix, streams
from bench.polls import answers
from bench.processes import NOTHING, Watch, cost
from bench.running import Figures, Progress, Size, in_turn, median, rest_of, say, servers
from bench.votes import Session
from psephos.adapters.kafka import client_config, tally_group
from psephos.platform.child_process import ChildProcess
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

#: Votes, and in how many rounds they are counted.
RUNS: dict[Size, Sequence[tuple[int, int]]] = {
    "smoke": ((20_000, 1),),
    "quick": ((300_000, 2),),
    "full": ((1_000_000, 3), (5_000_000, 1)),
}
THREADS = 2  # of Kafka Streams, as many as there are cores
GIVE_UP_S = 1200.0
LEFT_S = 120.0  # more than a member's session
_LOOK_S = 0.05
OURS, STREAMS, QUIX = "Psephos", "Kafka Streams 4.3.1", "Quix Streams"


class Run(NamedTuple):
    """One contender's processes, and the group whose commits tell how far they are."""

    commands: Sequence[Sequence[str]]
    group: str
    environs: Sequence[dict[str, str]]


def measure(size: Size) -> Iterator[Figures]:
    runs: dict[str, dict[str, list[Figures]]] = {}
    with servers() as backends, tempfile.TemporaryDirectory(prefix="psephos-bench-") as folder:
        for votes, rounds in RUNS[size]:
            contenders = _contenders(backends, Path(folder), votes)
            for found in in_turn(contenders, rounds, rest_s=rest_of(size)):
                yield {"runs": {**runs, str(votes): found}}
            runs[str(votes)] = found


def draw(figures: Figures, folder: Path) -> None:
    for votes, rounds in figures["runs"].items():
        title = f"{int(votes):,} votes, a tenth duplicates: "
        for name, unit, what in (
            ("votes_a_second", "votes/s", "votes a second"),
            ("cpu_us_a_vote", "µs", "CPU a vote"),
        ):
            values = {contender: median(found, name) for contender, found in rounds.items() if found}
            plots.bars(folder / f"tally-{votes}-{name.replace('_', '-')}.svg", title + what, unit, values)


def _contenders(backends: Backends, folder: Path, votes: int) -> dict[str, Callable[[], Figures]]:
    """All on one topic, which is filled first."""
    session = Session(backends, folder / f"session-{votes}")
    began = time.monotonic()
    session.produce(votes)
    say(f"  {votes:,} votes in {session.partitions} partitions after {time.monotonic() - began:.0f} s")
    return {
        f"{OURS}, 1 worker": partial(_measure, session, partial(ours, session)),
        f"{OURS}, 2 workers": partial(_measure, session, partial(ours, session, workers=2)),
        STREAMS: partial(_measure, session, partial(_streams, session)),
        QUIX: partial(_measure, session, partial(_quix, session)),
    }


def _measure(session: Session, prepare: Callable[[Path], Run]) -> Figures:
    with tempfile.TemporaryDirectory(prefix="psephos-bench-") as folder:
        return follow(session, prepare(Path(folder)), Path(folder))


# --- The contenders


def ours(session: Session, folder: Path, *, workers: int = 1, environ: dict[str, str] | None = None) -> Run:
    """So many tally workers on an empty ledger."""
    given = {**(environ or session.fresh_ledger()), "PSEPHOS_DATA_DIR": str(folder)}
    command = (sys.executable, "-m", "psephos.roles.tally")
    environs = [
        {**given, "PSEPHOS_WORKER": str(number), "PSEPHOS_ADMIN_PORT": str(free_port())}
        for number in range(workers)
    ]
    return Run([command] * workers, tally_group(session.settings.session_uid), environs)


def _streams(session: Session, folder: Path) -> Run:
    group, tallies = f"streams-{secrets.token_hex(4)}", f"{session.topic}.streams"
    _make_topic(session, tallies)
    brokers = session.settings.kafka_bootstrap
    command = streams(brokers, session.topic, tallies, group, folder / "state", threads=THREADS)
    return Run([command], group, [{}])


def _quix(session: Session, folder: Path) -> Run:
    group = f"quix-{secrets.token_hex(4)}"
    return Run([quix(session.settings.kafka_bootstrap, session.topic, group, folder / "state")], group, [{}])


def _make_topic(session: Session, name: str) -> None:
    for future in _admin(session).create_topics([NewTopic(name, session.partitions, 1)]).values():
        try:
            future.result(30)
        except Exception as error:
            if "TOPIC_ALREADY_EXISTS" not in str(error):
                raise


# --- Measuring


def follow(session: Session, run: Run, folder: Path, *, from_start: bool = True) -> Figures:
    """Starts the processes, waits until all of the log is committed, and ends them.

    `from_start`: they have nothing yet; else they go on where their group is, and what was left is measured.
    """
    wait_until_left(session, run.group)
    if from_start:
        _forget(session, run.group)
    ends, before = session.ends(), _committed(session, run.group)
    ports = [int(environ["PSEPHOS_ADMIN_PORT"]) for environ in run.environs if environ]

    def begun(done: list[int]) -> bool:
        """NB: a worker that still starts while another one counts would have its start in the CPU a vote."""
        counting = sum(done) > sum(before) and all(answers(port, "/readyz") for port in ports)
        return counting or done == ends

    children = [
        ChildProcess(f"{run.group}-{number}", command, folder / f"{number}.log", environ)
        for number, (command, environ) in enumerate(zip(run.commands, run.environs, strict=True))
    ]
    began = time.monotonic()
    for child in children:
        child.start()
    pids = [child.pid for child in children if child.pid is not None]
    try:
        with Watch(pids) as watch:
            first = _wait(session, run.group, children, begun)
            first_at, first_cost = time.monotonic(), cost(pids)
            _wait(session, run.group, children, lambda done: done == ends)
            last_at, last_cost = time.monotonic(), cost(pids)
    finally:
        for child in children:
            child.stop()
        shutil.rmtree(folder / "state", ignore_errors=True)
    whole = max(1, sum(ends) - sum(before))
    if (
        votes := sum(ends) - sum(first)
    ) == 0:  # so few that the first commit had them all: the start is in the rate
        votes, first_at, first_cost = whole, began, NOTHING
    return {
        "votes_a_second": votes / (last_at - first_at),
        "cpu_us_a_vote": (last_cost.cpu_s - first_cost.cpu_s) / votes * 1e6,
        "cpu_us_a_vote_whole": last_cost.cpu_s / whole * 1e6,
        "seconds_whole": last_at - began,
        "peak_private_mb": watch.peak.private / 1e6,
        "peak_resident_mb": watch.peak.resident / 1e6,
    }


def _wait(
    session: Session, group: str, children: Sequence[ChildProcess], enough: Callable[[list[int]], bool]
) -> list[int]:
    deadline, progress = time.monotonic() + GIVE_UP_S, Progress(f"{group} has committed", session.votes)
    while not enough(done := _committed(session, group)):
        progress.at(sum(done))
        ended = next((child for child in children if not child.running), None)
        if ended is not None:
            raise RuntimeError(f"{ended.name} ended with exit code {ended.exit_code}: {ended.last_words()}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{group} has committed {sum(done)} of {session.votes} votes in {GIVE_UP_S:.0f} s")
        time.sleep(_LOOK_S)
    return done


def wait_until_left(session: Session, group: str) -> None:
    """Until the group has no members: one that has ended keeps its partitions until its session is over."""
    deadline = time.monotonic() + LEFT_S
    while _admin(session).describe_consumer_groups([group])[group].result(30).members:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{group} has members {LEFT_S:.0f} s after the last one was ended")
        time.sleep(_LOOK_S)


def _forget(session: Session, group: str) -> None:
    """Takes the offsets of an earlier round away: where its group ended would look like this round's end."""
    if sum(_committed(session, group)):
        _admin(session).delete_consumer_groups([group])[group].result(30)


def _committed(session: Session, group: str) -> list[int]:
    """Offsets that the group has committed, by partition; 0 where it has none."""
    asked = [TopicPartition(session.topic, number) for number in range(session.partitions)]
    answer = (
        _admin(session).list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, asked)])[group].result(30)
    )
    offsets = {each.partition: max(0, each.offset) for each in answer.topic_partitions}
    return [offsets.get(number, 0) for number in range(session.partitions)]


def _admin(session: Session) -> AdminClient:
    brokers = session.settings.kafka_bootstrap
    if brokers not in _admins:
        _admins[brokers] = AdminClient(client_config(session.settings))
    return _admins[brokers]


_admins: dict[str, AdminClient] = {}
