"""The tally as it grows: more workers on the same log, more voters in the store. CPU a vote should stay flat."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench import plots
from bench.running import Figures, Size, in_turn, median, say, servers
from bench.tally import follow, ours
from bench.votes import Session

VOTES: dict[Size, int] = {"quick": 300_000, "full": 1_000_000}
ROUNDS: dict[Size, int] = {"quick": 1, "full": 3}
WORKERS = (1, 2, 4)
KNOWN: dict[Size, Sequence[int]] = {"quick": (1_000, 100_000), "full": (1_000, 100_000, 1_000_000, 5_000_000)}
MORE: dict[Size, int] = {"quick": 100_000, "full": 500_000}  # votes counted on top of those that are known


def measure(size: Size) -> Figures:
    with servers() as backends, tempfile.TemporaryDirectory(prefix="psephos-bench-") as folder:
        session = Session(backends, Path(folder) / "workers", partitions=8)
        session.produce(VOTES[size])
        contenders = {str(number): partial(_with_workers, session, number) for number in WORKERS}
        by_workers = in_turn(contenders, ROUNDS[size])
        return {"workers": by_workers, "known": _by_known(Session(backends, Path(folder) / "known"), size)}


def draw(figures: Figures, folder: Path) -> None:
    cpu = [(int(number), median(rounds, "cpu_us_a_vote")) for number, rounds in figures["workers"].items()]
    plots.lines(folder / "workers-cpu.svg", "CPU a vote by number of workers", "workers", "µs", {"tally": cpu})
    known = [(each["known"], each["cpu_us_a_vote"]) for each in figures["known"]]
    title = "CPU a vote by voters in the store (4 partitions)"
    plots.lines(folder / "store-size-cpu.svg", title, "votes before", "µs", {"tally": known}, log_x=True)


def _with_workers(session: Session, number: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="psephos-bench-") as folder:
        return follow(session, ours(session, Path(folder), workers=number), Path(folder))


def _by_known(session: Session, size: Size) -> list[Figures]:
    """One worker on one store that grows: first what is to be known, then what is measured."""
    environ = session.fresh_ledger()
    found = []
    with tempfile.TemporaryDirectory(prefix="psephos-bench-") as folder:
        run = partial(ours, session, Path(folder), environ=environ)
        for known in KNOWN[size]:
            session.produce(known - session.votes, seed=known)
            follow(session, run(), Path(folder), from_start=False)
            session.produce(MORE[size], seed=known + 1)
            found.append({"known": known, **follow(session, run(), Path(folder), from_start=False)})
            say(f"  {known:,} votes before: {found[-1]['cpu_us_a_vote']:.2f} µs of CPU a vote")
    return found
