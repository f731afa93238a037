"""From a vote's POST to the frame that a viewer gets: all roles, at fixed rates, on all cores of this machine.

Load comes at a constant rate whatever becomes of it (`openloop`). Among it are probes, each a vote for an option
that few vote for: a frame whose total of that option has grown holds the probe, exactly. Its time counts from when
it was due. The viewer is a WebSocket; servers, roles, voters and viewer share the machine. What full load is
says a flood before: more votes than are taken, by the same client, all roles running.
"""

import asyncio
import statistics
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter

import aiohttp
import msgspec
import uvloop

from bench import openloop, plots
from bench.polls import Poll, vote_request
from bench.processes import cost
from bench.running import Figures, Size, in_turn, median, rest_of, say, servers
from psephos_lab.ports import LOOPBACK

PROBED = 20  # options; each gets a probe a second
PROBES_PER_SECOND = 20
LOW_RATE = 100
SHARES = {"half load": 0.5, "near full": 0.9}  # of the rate that was found
ROUNDS: dict[Size, int] = {"smoke": 1, "quick": 1, "full": 3}
SECONDS: dict[Size, float] = {"smoke": 3.0, "quick": 15.0, "full": 20.0}
CALM_S = 2.0
FLOOD = 20_000  # votes a second, more than these two cores take
FLOOD_S: dict[Size, float] = {"smoke": 0.3, "quick": 3.0, "full": 4.0}
LAST_FRAMES_S = 20.0  # for probes that are on no frame at the end of the load
NO_LIMIT = 1_000_000  # votes in flight: a flood is to wait, not to be refused
ROLES = ("ingest", "tally", "projector", "gateway")


class Viewer:
    """Notes when each probe is on the screen."""

    def __init__(self) -> None:
        self.millis: list[float] = []
        self.frames = 0
        self._frame = asyncio.Event()
        self._under_way: dict[str, deque[float]] = {f"p{number}": deque() for number in range(PROBED)}
        self._shown = dict.fromkeys(self._under_way, 0)

    @property
    def missing(self) -> int:
        return sum(map(len, self._under_way.values()))

    def sent(self, option: str | None, due: float) -> None:
        """A vote is due; `option`: if it is a probe."""
        if option is not None:
            self._under_way[option].append(due)

    def see(self, data: bytes) -> None:
        totals, now = msgspec.json.decode(data)["totals"], perf_counter()
        self.frames += 1
        for option, waiting in self._under_way.items():
            for _ in range(min(totals[option] - self._shown[option], len(waiting))):
                self.millis.append((now - waiting.popleft()) * 1000)
            self._shown[option] = totals[option]
        self._frame.set()

    async def all_shown(self) -> None:
        """Until no probe is missing."""
        while self.missing:
            self._frame.clear()
            await self._frame.wait()

    async def watch(self, url: str) -> None:
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/live") as frames:
            async for message in frames:
                self.see(message.data.encode() if isinstance(message.data, str) else message.data)


def voters(poll: Poll, numbers: Iterator[int], votes: int, every: int) -> list[tuple[bytes, str | None]]:
    """Requests in their order, each with the option of its probe if it is one: each of so many, if any."""
    found = []
    for place in range(votes):
        token = poll.token(f"voter-{next(numbers)}")
        option = f"p{place // every % PROBED}" if every and place % every == 0 else None
        body = f'{{"choices":["{option or "ada"}"]}}'.encode()
        found.append((vote_request(f"{poll.path}/votes", token, body), option))
    return found


async def play(ingest: int, gateway: str, requests: list[tuple[bytes, str | None]], rate: float) -> Viewer:
    """Votes and watches."""
    viewer = Viewer()
    watching = asyncio.create_task(viewer.watch(gateway))
    await asyncio.sleep(1.0)
    load = openloop.Load(ingest, (request for request, _ in requests), rate)
    load.when_due = lambda number, due: viewer.sent(requests[number][1], due)
    found = await load.run(len(requests) / rate)
    found.require_all()
    with suppress(TimeoutError):  # those that are missing then are told
        async with asyncio.timeout(LAST_FRAMES_S):
            await viewer.all_shown()
    watching.cancel()
    return viewer


def flood(poll: Poll, ingest: int, numbers: Iterator[int], seconds: float) -> float:
    """The votes a second that are taken of too many."""
    requests = voters(poll, numbers, round(FLOOD * seconds), every=0)
    load = openloop.Load(ingest, (request for request, _ in requests), FLOOD)
    found = uvloop.run(load.run(seconds))
    found.require_all()
    return len(found.millis) / found.seconds


def measure(size: Size) -> Iterator[Figures]:
    options = [{"id": name} for name in ("ada", *(f"p{number}" for number in range(PROBED)))]
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="psephos-bench-")))
        ballot = {"type": "single", "options": options}
        poll = Poll(held.enter_context(servers()), folder / "poll", partitions=4, ballot=ballot)
        roles = {name: held.enter_context(poll.role(name, ingest_queue=NO_LIMIT)) for name in ROLES}
        numbers, gateway = count(), f"http://{LOOPBACK}:{roles['gateway'].port}{poll.path}"

        def at(rate: int, seconds: float) -> Figures:
            requests = voters(poll, numbers, round(rate * seconds), max(1, rate // PROBES_PER_SECOND))
            before = {name: cost([role.pid]).cpu_s for name, role in roles.items()}
            viewer = uvloop.run(play(roles["ingest"].port, gateway, requests, rate))
            spent = {name: cost([role.pid]).cpu_s - before[name] for name, role in roles.items()}
            found = statistics.quantiles(viewer.millis, n=100, method="inclusive")
            return {
                "votesPerSecond": rate,
                "probes": len(viewer.millis),
                "missing": viewer.missing,
                "p50Millis": found[49],
                "p99Millis": found[98],
                "framesPerSecond": viewer.frames / seconds,
                **{f"{name}Cores": cpu_s / seconds for name, cpu_s in spent.items()},
            }

        flood(poll, roles["ingest"].port, numbers, FLOOD_S[size])  # to warm up
        full = flood(poll, roles["ingest"].port, numbers, FLOOD_S[size])
        say(f"  full load: {full:,.0f} votes/s")
        at(LOW_RATE, CALM_S)  # until what the flood has left is counted
        rates = {f"{LOW_RATE} votes/s": LOW_RATE, **{name: round(share * full) for name, share in SHARES.items()}}
        contenders = {name: partial(at, rate, SECONDS[size]) for name, rate in rates.items()}
        for rounds in in_turn(contenders, ROUNDS[size], rest_s=rest_of(size)):
            yield {"fullVotesPerSecond": full, "rounds": rounds}


def draw(figures: Figures, folder: Path) -> None:
    series: dict[str, list[tuple[float, float]]] = {"p50": [], "p99": []}
    for rounds in filter(None, figures["rounds"].values()):
        for name, points in series.items():
            points.append((rounds[0]["votesPerSecond"], median(rounds, f"{name}Millis")))
    plots.lines(folder / "screen.svg", "From a vote's POST to a viewer's frame", "votes a second", "ms", series)
