"""The tally as it grows: more workers on the same log, more voters in the store. CPU a vote should stay flat."""

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import plots
from bench.running import Figures, Size, in_turn, median, rest_of, say, servers
from bench.tally import follow, ours
from bench.votes import Session
from psephos_lab.servers import Backends

VOTES: dict[Size, int] = {"smoke": 20_000, "quick": 300_000, "full": 3_000_000}
ROUNDS: dict[Size, int] = {"smoke": 1, "quick": 1, "full": 3}
WORKERS = (1, 2, 4)
KNOWN: dict[Size, Sequence[int]] = {
    "smoke": (1_000, 10_000),
    "quick": (1_000, 100_000),
    "full": (1_000, 100_000, 10_000_000),
}
MORE: dict[Size, int] = {"smoke": 10_000, "quick": 100_000, "full": 200_000}  # votes on top of the known voters'


def measure(size: Size) -> Iterator[Figures]:
    by_workers: dict[str, list[Figures]] = {}
    known: list[Figures] = []
    with servers() as backends, tempfile.TemporaryDirectory(prefix="psephos-bench-") as name:
        folder = Path(name)
        session = Session(backends, folder / "workers", partitions=8)
        session.produce(VOTES[size])
        contenders = {str(number): partial(_with_workers, session, number) for number in WORKERS}
        for by_workers in in_turn(contenders, ROUNDS[size], rest_s=rest_of(size)):
            yield {"workers": by_workers, "known": known}
        for voters in KNOWN[size]:
            known.append(_on_top_of(backends, folder, voters, MORE[size]))
            say(f"  {voters:,} voters before: {known[-1]['cpu_us_a_vote']:.2f} µs of CPU a vote")
            yield {"workers": by_workers, "known": known}


def draw(figures: Figures, folder: Path) -> None:
    cpu = [
        (int(number), median(rounds, "cpu_us_a_vote")) for number, rounds in figures["workers"].items() if rounds
    ]
    plots.lines(folder / "workers-cpu.svg", "CPU a vote by number of workers", "workers", "µs", {"tally": cpu})
    if known := [(each["known"], each["cpu_us_a_vote"]) for each in figures["known"]]:
        title = "CPU a vote by voters in the store (4 partitions)"
        plots.lines(folder / "store-size-cpu.svg", title, "voters before", "µs", {"tally": known}, log_x=True)


def _with_workers(session: Session, number: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="psephos-bench-") as folder:
        return follow(session, ours(session, Path(folder), workers=number), Path(folder))


def _on_top_of(backends: Backends, folder: Path, voters: int, more: int) -> Figures:
    """One worker: so many voters are counted first, then what is measured, in the same store."""
    session = Session(backends, folder / f"known-{voters}")
    environ = session.fresh_ledger()
    with tempfile.TemporaryDirectory(prefix="psephos-bench-") as name:
        run = partial(ours, session, Path(name), environ=environ)
        session.produce(voters, seed=1, duplicates=0)
        follow(session, run(), Path(name), from_start=False)
        session.produce(more, seed=2)
        return {"known": voters, **follow(session, run(), Path(name), from_start=False)}
