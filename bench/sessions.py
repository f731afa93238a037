"""Many sessions on one host: `psephos serve` for each, beside each other on one Kafka, Redis and DynamoDB Local.

A session has one partition, and its roles are child processes. Memory and CPU a session are those of its own
processes, idle first and then under a small load; servers are not in them. Of a number of sessions that the memory
which is allowed would not hold, as many run as it holds, and the figures say so.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench import openloop, plots
from bench.polls import Poll, running, vote_request, wait_until_answers
from bench.processes import Cost, cost
from bench.running import Figures, Size, say, servers, shown
from psephos.dev.ports import free_port
from psephos.dev.servers import Backends
from psephos.process import ChildProcess
from psephos.serve import admin_ports

NUMBERS: dict[Size, Sequence[int]] = {"smoke": (1, 2), "quick": (1, 5), "full": (1, 10, 50)}
SECONDS: dict[Size, float] = {"smoke": 2.0, "quick": 10.0, "full": 20.0}
SETTLE_S = 3.0  # after a start
VOTES_A_SECOND = 2.0  # of each session
MEMORY_BYTES = 18 * 2**30  # private memory of all sessions together: fifty take 16
READY_S = 300.0
_ADMIN_PORTS = admin_ports(ingest_processes=1, workers=1)


class Served(NamedTuple):
    """A session that `psephos serve` runs."""

    poll: Poll
    port: int
    pid: int


def measure(size: Size) -> Iterator[Figures]:
    grown: list[Figures] = []
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="psephos-bench-")))
        backends = held.enter_context(servers())
        sessions: list[Served] = []
        for wanted in NUMBERS[size]:
            number = fitting(wanted, grown)
            while len(sessions) < number:
                sessions.append(held.enter_context(_served(backends, folder / f"session-{len(sessions)}")))
                say(f"    session {len(sessions)} of {number} is ready")
            grown.append({"wanted": wanted, "sessions": number, **_costs(sessions, SECONDS[size])})
            say(f"  {shown(grown[-1])}")
            yield {"votesPerSecondOfEach": VOTES_A_SECOND, "memoryGiB": MEMORY_BYTES / 2**30, "grown": grown}
            if number < wanted:
                return


def fitting(wanted: int, grown: Sequence[Figures]) -> int:
    """So many sessions, or as many as the memory holds, by what one of them took before."""
    if not grown:
        return wanted
    return min(wanted, int(MEMORY_BYTES / (grown[-1]["privateMiB"] * 2**20)))


def draw(figures: Figures, folder: Path) -> None:
    grown = figures["grown"]
    memory = [(each["sessions"], each["privateMiB"]) for each in grown]
    plots.lines(folder / "sessions-memory.svg", "Private memory a session", "sessions", "MiB", {"serve": memory})
    cpu = {
        name: [(each["sessions"], 1000 * each[key]) for each in grown]
        for name, key in (("idle", "idleCores"), (f"{VOTES_A_SECOND:.0f} votes a second of each", "loadedCores"))
    }
    plots.lines(folder / "sessions-cpu.svg", "CPU a session", "sessions", "thousandths of a core", cpu)


@contextmanager
def _served(backends: Backends, folder: Path) -> Iterator[Served]:
    poll = Poll(backends, folder, partitions=1)
    port, admin = free_port(), free_port(_ADMIN_PORTS)
    ports = {"INGEST": port, "GATEWAY": free_port(), "ADMIN": admin}
    environ = {**poll.environ, **{f"PSEPHOS_{name}_PORT": str(number) for name, number in ports.items()}}
    child = ChildProcess("serve", (sys.executable, "-m", "psephos.cli", "serve"), folder / "serve.log", environ)
    with running(child):
        wait_until_answers(admin + _ADMIN_PORTS - 1, "/readyz", child, READY_S)
        yield Served(poll, port, child.pid or 0)


def _costs(sessions: Sequence[Served], seconds: float) -> Figures:
    """A session's, on average."""
    time.sleep(SETTLE_S)
    before = _cost(sessions)
    time.sleep(seconds)
    idle = _cost(sessions)
    uvloop.run(_vote(sessions, seconds))
    loaded, number = _cost(sessions), len(sessions)
    return {
        "privateMiB": loaded.private / number / 2**20,
        "residentMiB": loaded.resident / number / 2**20,
        "idleCores": (idle.cpu_s - before.cpu_s) / seconds / number,
        "loadedCores": (loaded.cpu_s - idle.cpu_s) / seconds / number,
    }


def _cost(sessions: Sequence[Served]) -> Cost:
    return cost([each.pid for each in sessions])


async def _vote(sessions: Sequence[Served], seconds: float) -> None:
    """Raises RuntimeError if a vote was refused."""
    await asyncio.gather(*(_vote_in(each, seconds) for each in sessions))


async def _vote_in(session: Served, seconds: float) -> None:
    began = time.time_ns()
    votes = round(VOTES_A_SECOND * seconds)
    path = f"{session.poll.path}/votes"
    requests = [vote_request(path, session.poll.token(f"voter-{began}-{number}")) for number in range(votes)]
    load = openloop.Load(session.port, iter(requests), VOTES_A_SECOND, connections=1)
    (await load.run(seconds)).require_all()
