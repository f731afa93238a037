"""Many sessions on one host: `psephos serve` for each, beside each other on one Kafka, Redis and DynamoDB Local.

A session has one partition, and its roles are processes of its own. Memory and CPU per session are those of these
processes, idle first and then under a small load; servers are not in them. Of a number of sessions that the memory
which is allowed would not hold, as many run as it holds, and the figures say so.

The first session is looked at more closely: what its start costs, what each of its processes holds after a while
without votes, and after many. Where PSEPHOS_BENCH_CGROUP names a folder of a memory cgroup that the caller has
made, it runs in there, and what the kernel accounts to that group is shown as well.
"""

import asyncio
import os
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
from bench.processes import NO_MEMORY, Cost, Memory, cost, memory, memory_of, name_of, threads_of, tree
from bench.running import Figures, Size, say, servers, shown
from psephos.platform.child_process import ChildProcess
from psephos.roles.serve import admin_ports
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

NUMBERS: dict[Size, Sequence[int]] = {"smoke": (1, 2), "quick": (1, 5), "full": (1, 10, 50)}
SECONDS: dict[Size, float] = {"smoke": 2.0, "quick": 10.0, "full": 20.0}
SETTLE_S = 3.0  # after a start
VOTES_A_SECOND = 2.0  # of each session
IDLE_S: dict[Size, float] = {"smoke": 3.0, "quick": 60.0, "full": 300.0}  # of the first session
VOTES: dict[Size, int] = {"smoke": 200, "quick": 2_000, "full": 10_000}  # in the first session
VOTING_RATE = 200.0  # of these, a second
MEMORY_BYTES = 18 * 2**30  # proportional memory of all sessions together
CGROUP = os.environ.get("PSEPHOS_BENCH_CGROUP")
_CGROUP_FIGURES = ("memory.current", "memory.usage_in_bytes")  # by version 2 and 1
READY_S = 300.0
_ADMIN_PORTS = admin_ports(ingest_processes=1, workers=1)


class Served(NamedTuple):
    """A session that `psephos serve` runs."""

    poll: Poll
    port: int
    pid: int
    start: Cost
    """What it had cost when it was ready."""


def measure(size: Size) -> Iterator[Figures]:
    grown: list[Figures] = []
    first: Figures = {}
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="psephos-bench-")))
        backends = held.enter_context(servers())
        sessions: list[Served] = []
        for wanted in NUMBERS[size]:
            number = fitting(wanted, grown)
            while len(sessions) < number:
                cgroup = None if sessions or CGROUP is None else Path(CGROUP)
                sessions.append(held.enter_context(_served(backends, folder / f"session-{len(sessions)}", cgroup)))
                say(f"    session {len(sessions)} of {number} is ready")
            first = first or _closely(sessions[0], size)
            grown.append({"wanted": wanted, "sessions": number, **_costs(sessions, SECONDS[size])})
            say(f"  {shown(grown[-1])}")
            yield {
                "votesPerSecondOfEach": VOTES_A_SECOND,
                "memoryGiB": MEMORY_BYTES / 2**30,
                "first": first,
                "grown": grown,
            }
            if number < wanted:
                return


def fitting(wanted: int, grown: Sequence[Figures]) -> int:
    """So many sessions, or as many as the memory holds, by what one of them took before."""
    if not grown:
        return wanted
    return min(wanted, int(MEMORY_BYTES / (grown[-1]["proportionalMiB"] * 2**20)))


def draw(figures: Figures, folder: Path) -> None:
    grown = figures["grown"]
    memory = {
        name: [(each["sessions"], each[key]) for each in grown]
        for name, key in (("proportional (PSS)", "proportionalMiB"), ("private", "privateMiB"))
    }
    plots.lines(folder / "sessions-memory.svg", "Memory of a session", "sessions", "MiB", memory)
    cpu = {
        name: [(each["sessions"], 1000 * each[key]) for each in grown]
        for name, key in (("idle", "idleCores"), (f"{VOTES_A_SECOND:.0f} votes a second of each", "loadedCores"))
    }
    plots.lines(folder / "sessions-cpu.svg", "CPU a session", "sessions", "thousandths of a core", cpu)


@contextmanager
def _served(backends: Backends, folder: Path, cgroup: Path | None) -> Iterator[Served]:
    poll = Poll(backends, folder, partitions=1)
    port, admin = free_port(), free_port(_ADMIN_PORTS)
    ports = {"INGEST": port, "GATEWAY": free_port(), "ADMIN": admin}
    environ = {**poll.environ, **{f"PSEPHOS_{name}_PORT": str(number) for name, number in ports.items()}}
    command = (*_inside(cgroup), sys.executable, "-m", "psephos.cli", "serve")
    child = ChildProcess("serve", command, folder / "serve.log", environ)
    with running(child):
        wait_until_answers(admin + _ADMIN_PORTS - 1, "/readyz", child, READY_S)
        pid = child.pid or 0
        yield Served(poll, port, pid, cost([pid]))


def _inside(cgroup: Path | None) -> Sequence[str]:
    """Runs the command that follows in this group, with the same process id."""
    if cgroup is None:
        return ()
    return ("/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(cgroup))


def _closely(session: Served, size: Size) -> Figures:
    """The first session, before there is another one."""
    time.sleep(IDLE_S[size])
    idle = _held(session)
    votes = VOTES[size]
    uvloop.run(_vote_in(session, VOTING_RATE, votes))
    time.sleep(SETTLE_S)
    figures = {
        "startCpuSeconds": session.start.cpu_s,
        "idleSeconds": IDLE_S[size],
        "idle": idle,
        "votes": votes,
        "loaded": _held(session),
    }
    say(f"  the first session: {shown(figures)}")
    return figures


def _held(session: Served) -> Figures:
    """Memory of a session's processes, together and each."""
    each = [(name_of(pid), threads_of(pid), memory_of(pid)) for pid in tree([session.pid])]
    together = _mebibytes(sum((held for _, _, held in each), NO_MEMORY))
    processes = [{"name": name, "threads": threads, **_mebibytes(held)} for name, threads, held in each]
    return {**together, "accountedMiB": _accounted(), "processes": processes}


def _mebibytes(held: Memory) -> Figures:
    return {f"{kind}MiB": amount / 2**20 for kind, amount in held._asdict().items()}


def _accounted() -> float | None:
    """What the kernel accounts to the first session's group: file pages that it has read, too."""
    if CGROUP is None:
        return None
    found = [path for name in _CGROUP_FIGURES if (path := Path(CGROUP) / name).exists()]
    return int(found[0].read_text()) / 2**20 if found else None


def _costs(sessions: Sequence[Served], seconds: float) -> Figures:
    """A session's, on average."""
    time.sleep(SETTLE_S)
    before = _cost(sessions)
    time.sleep(seconds)
    idle = _cost(sessions)
    uvloop.run(_vote(sessions, seconds))
    loaded, number = _cost(sessions), len(sessions)
    held = memory([each.pid for each in sessions])
    return {
        **_mebibytes(Memory(*(amount // number for amount in held))),
        "idleCores": (idle.cpu_s - before.cpu_s) / seconds / number,
        "loadedCores": (loaded.cpu_s - idle.cpu_s) / seconds / number,
    }


def _cost(sessions: Sequence[Served]) -> Cost:
    return cost([each.pid for each in sessions])


async def _vote(sessions: Sequence[Served], seconds: float) -> None:
    """Raises RuntimeError if a vote was refused."""
    votes = round(VOTES_A_SECOND * seconds)
    await asyncio.gather(*(_vote_in(each, VOTES_A_SECOND, votes, connections=1) for each in sessions))


async def _vote_in(session: Served, rate: float, votes: int, connections: int = 8) -> None:
    began = time.time_ns()
    path = f"{session.poll.path}/votes"
    requests = [vote_request(path, session.poll.token(f"voter-{began}-{number}")) for number in range(votes)]
    load = openloop.Load(session.port, iter(requests), rate, connections)
    (await load.run(votes / rate)).require_all()
