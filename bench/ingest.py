"""Ingest, one vote a request, beside aiohttp that does nothing: same machine, same clients, in turn.

One process of each on a core of its own; Kafka and the clients share the other cores. Every vote is of a voter of
its own with a token of its own, and its 202 comes when Kafka has acknowledged it (`acks=all`). Rates by wrk, as
fast as answers come; latencies by an open loop at half of the rate that was found, so that nothing is left out.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench import openloop, plots, wrk
from bench.polls import BODY, Poll, running, vote_request, wait_until_answers
from bench.processes import cost
from bench.running import Figures, Size, in_turn, median, rest_of, servers
from psephos.platform.child_process import ChildProcess
from psephos_lab.ports import free_port

TOKENS: dict[Size, int] = {"smoke": 2_000, "quick": 200_000, "full": 200_000}
ROUNDS: dict[Size, int] = {"smoke": 1, "quick": 2, "full": 5}
SECONDS: dict[Size, float] = {"smoke": 1.0, "quick": 5.0, "full": 8.0}
WARM_UP_S: dict[Size, float] = {"smoke": 1.0, "quick": 3.0, "full": 3.0}
BROKEN = 0.01  # of the requests may have met a connection that failed: the page tells how many did
PATH = "/v1/sessions/poll/votes"
PEERS = {"application": "aiohttp, no-op handler", "server": "aiohttp, no-op without router"}
NAMES = {"psephos": "Psephos ingest", **PEERS}
NO_LIMIT = 1_000_000  # tokens are used again where a round has more votes than there are tokens


class Door(NamedTuple):
    """A server that takes votes, by its port and process id."""

    port: int
    pid: int


def own_core() -> tuple[Sequence[int], Sequence[int]]:
    """A core for what is measured, and those for all else; none where there is one only."""
    cores = sorted(os.sched_getaffinity(0))
    return ((cores[0],), cores[1:]) if len(cores) > 1 else ((), ())


@contextmanager
def confined(cores: Sequence[int]) -> Iterator[None]:
    """This process, and what it starts, use these cores only."""
    before = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def doors(folder: Path, number: int) -> Iterator[tuple[dict[str, Door], list[str]]]:
    """Ingest and its peers, all running, and so many tokens."""
    own, rest = own_core()
    with ExitStack() as held:
        held.enter_context(confined(rest))
        poll = Poll(held.enter_context(servers()), folder / "poll")
        tokens = [poll.token(f"voter-{voter}") for voter in range(number)]
        ingest = held.enter_context(poll.role("ingest", cores=own, ingest_voter_rate=NO_LIMIT))
        found = {"psephos": Door(ingest.port, ingest.pid)}
        for kind in PEERS:
            found[kind] = held.enter_context(noop(kind, own, folder))
        yield found, tokens


@contextmanager
def noop(kind: str, cores: Sequence[int], folder: Path) -> Iterator[Door]:
    port = free_port()
    command = (sys.executable, "-m", "bench.peers.noop", str(port), kind, PATH)
    child = ChildProcess(f"no-op {kind}", command, folder / f"{kind}.log")
    with running(child, cores):
        wait_until_answers(port, "/readyz", child)
        yield Door(port, child.pid or 0)


def rate(door: Door, tokens: Path, seconds: float) -> Figures:
    """As many votes as it takes."""
    before = cost([door.pid]).cpu_s
    answered = wrk.vote(door.port, PATH, tokens, seconds)
    if answered.refused or answered.broken > BROKEN * answered.requests:
        raise RuntimeError(f"of {answered.requests} votes {answered.refused} were refused; {answered.errors}")
    spent = cost([door.pid])
    return {
        "votesPerSecond": answered.requests / answered.seconds,
        "cpuMicros": (spent.cpu_s - before) / answered.requests * 1e6,
        "memoryMiB": spent.private / 2**20,
        "broken": answered.broken,
    }


def latency(door: Door, tokens: Sequence[str], votes_per_second: float, seconds: float) -> Figures:
    """At a fixed rate."""
    requests = cycle(vote_request(PATH, token) for token in tokens)
    found = uvloop.run(openloop.Load(door.port, requests, votes_per_second).run(seconds))
    found.require_all()
    return {
        "votesPerSecond": votes_per_second,
        "p50Millis": found.percentile(50),
        "p99Millis": found.percentile(99),
    }


def measure(size: Size) -> Iterator[Figures]:
    seconds, rounds, rest_s = SECONDS[size], ROUNDS[size], rest_of(size)
    about = {"connections": wrk.CONNECTIONS, "bodyBytes": len(BODY)}
    rates: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="psephos-bench-") as name, doors(Path(name), TOKENS[size]) as held:
        found, tokens = held
        file = Path(name) / "tokens"
        file.write_text("\n".join(tokens) + "\n")
        for door in found.values():
            rate(door, file, WARM_UP_S[size])
        at_most = {name: partial(rate, door, file, seconds) for name, door in found.items()}
        for rates in in_turn(at_most, rounds, rest_s=rest_s):
            yield {**about, "rounds": rates, "atHalfLoad": {}, "ratio": {}}
        ratio = {peer: shares(rates, peer) for peer in PEERS}
        half = {name: median(each, "votesPerSecond") / 2 for name, each in rates.items()}
        at_half = {name: partial(latency, door, tokens, half[name], seconds) for name, door in found.items()}
        for latencies in in_turn(at_half, rounds, rest_s=rest_s):
            yield {**about, "rounds": rates, "atHalfLoad": latencies, "ratio": ratio}


def shares(rates: dict[str, list[Figures]], peer: str) -> Figures:
    """Of the peer's rate, and of its CPU time."""
    return {
        "rate": median(rates["psephos"], "votesPerSecond") / median(rates[peer], "votesPerSecond"),
        "cpu": median(rates[peer], "cpuMicros") / median(rates["psephos"], "cpuMicros"),
    }


def draw(figures: Figures, folder: Path) -> None:
    rounds = figures["rounds"]
    plots.bars(
        folder / "ingest-rate.svg",
        "One vote a request, one process on one core",
        "requests/s",
        {NAMES[name]: median(found, "votesPerSecond") for name, found in rounds.items() if found},
    )
    plots.bars(
        folder / "ingest-cpu.svg",
        "CPU time of the process, a request",
        "µs",
        {NAMES[name]: median(found, "cpuMicros") for name, found in rounds.items() if found},
    )
    if latencies := {name: found for name, found in figures["atHalfLoad"].items() if found}:
        plots.bars(
            folder / "ingest-latency.svg",
            "p99 at half of each one's rate, from when the request was due",
            "ms",
            {NAMES[name]: median(found, "p99Millis") for name, found in latencies.items()},
        )
