"""From an order to the last process that obeys it, on a local stack.

Each ingest and each gateway process has a port of its own here and is asked at its own door, again and again,
until it says what was ordered. The contract of the architecture is two seconds.
"""

import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench import plots
from bench.running import Figures, Size, say
from psephos.control import CommandFile, DesiredState
from psephos.domain.session import parse_session
from psephos.platform.child_process import ChildProcess
from psephos.platform.clock import now_ms
from psephos_lab.ports import LOOPBACK, free_port
from psephos_lab.stack import Stack

SESSION = b"""
apiVersion: psephos.dev/v1alpha1
kind: VotingSession
metadata: {name: orders}
spec:
  ballot: {type: single, options: [{id: pizza}, {id: soup}]}
  voters:
    tokens: {issuer: "https://id.example", audience: orders}
"""
ORDERS: dict[Size, int] = {"smoke": 2, "quick": 10, "full": 20}  # of each kind
NAMES = {"pause": "pause, resume", "extend": "a later end"}
GIVE_UP_S = 60.0
HOUR_MS = 3_600_000
_LOOK_S = 0.005


class Door(NamedTuple):
    """One process. admin: its admin port."""

    name: str
    port: int
    admin: int

    @property
    def is_ingest(self) -> bool:
        return self.name.startswith("ingest")


class Obeyed(NamedTuple):
    """Seconds from the order on, one an order: until its record was written, and until the last process obeyed."""

    written: Sequence[float]
    obeyed: Sequence[float]


def measure(size: Size) -> Iterator[Figures]:
    """Milliseconds of each order."""
    found: dict[str, Obeyed] = {}
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), parse_session(SESSION), SESSION) as stack:
        file = CommandFile(stack.settings.commands_dir, stack.session.name)
        with processes(stack) as doors:
            for name, order in (("pause", pauses), ("extend", extensions)):
                found[name] = order(file, doors, ORDERS[size])
                yield {"processes": [door.name for door in doors], "orders": _millis(found)}
            say(table(found))


def draw(figures: Figures, folder: Path) -> None:
    times = figures["orders"].items()
    plots.bars(
        folder / "obeying.svg",
        "From an order to the last process that obeys it: the longest time",
        "ms",
        {NAMES[name]: max(each["obeyedMillis"]) for name, each in times},
        ours=tuple(NAMES.values()),
    )


@contextmanager
def processes(stack: Stack, ingests: int = 2, gateways: int = 2) -> Iterator[list[Door]]:
    """So many of both, each at a port of its own: the stack's, and more beside them."""
    urls = stack.admin_urls
    doors = [
        Door("ingest-0", stack.settings.ingest_port, _port(urls["ingest"])),
        Door("gateway-0", stack.settings.gateway_port, _port(urls["gateway"])),
    ]
    with ExitStack() as held:
        for role, number in (("ingest", ingests), ("gateway", gateways)):
            for index in range(1, number):
                door = Door(f"{role}-{index}", free_port(), free_port())
                child = ChildProcess(
                    door.name,
                    (sys.executable, "-m", "psephos.cli", role),
                    stack.folder / "logs" / f"{door.name}.log",
                    {
                        **stack.environment,
                        f"PSEPHOS_{role.upper()}_PORT": str(door.port),
                        "PSEPHOS_ADMIN_PORT": str(door.admin),
                    },
                )
                child.start()
                held.callback(child.stop)
                doors.append(door)
        for door in doors:
            _wait_until(partial(_status, door.admin, "/readyz"), 200, door.name)
        yield doors


def pauses(file: CommandFile, doors: Sequence[Door], orders: int) -> Obeyed:
    """Pauses and resumes by turns."""
    return _measure(file, doors, orders, lambda turn: DesiredState(paused=turn % 2 == 0), _phase_of)


def extensions(file: CommandFile, doors: Sequence[Door], orders: int) -> Obeyed:
    """Moves the end an hour further each time."""
    end = now_ms() + HOUR_MS
    return _measure(file, doors, orders, lambda turn: DesiredState(closes_at=end + turn * HOUR_MS), _end_of)


def table(figures: dict[str, Obeyed]) -> str:
    """Milliseconds: p50 and greatest."""
    lines = [f"{'order':<10}{'n':>4}{'written p50':>14}{'max':>8}{'obeyed p50':>14}{'max':>8}   (ms)"]
    for name, found in figures.items():
        cells = [1000 * each for side in found for each in (statistics.median(side), max(side))]
        lines.append(
            f"{name:<10}{len(found.obeyed):>4}{cells[0]:>14.0f}{cells[1]:>8.0f}{cells[2]:>14.0f}{cells[3]:>8.0f}"
        )
    return "\n".join(lines)


def _millis(found: dict[str, Obeyed]) -> Figures:
    return {
        name: {f"{side}Millis": [1000 * each for each in seconds] for side, seconds in by._asdict().items()}
        for name, by in found.items()
    }


def _measure(
    file: CommandFile,
    doors: Sequence[Door],
    orders: int,
    order: Callable[[int], DesiredState],
    shown: Callable[[Door], object],
) -> Obeyed:
    written, obeyed = [], []
    for turn in range(orders):
        begun = time.monotonic()
        control = file.give(order(turn))
        written.append(time.monotonic() - begun)
        wanted = control.phase.value if shown is _phase_of else control.closes_at
        for door in doors:
            _wait_until(partial(shown, door), wanted, door.name)
        obeyed.append(time.monotonic() - begun)
    return Obeyed(written, obeyed)


def _phase_of(door: Door) -> object:
    """At an ingest process by what it answers to a vote without a token: a pause is checked before the token."""
    if not door.is_ingest:
        return _info(door)["phase"]
    kind = _ask(door.port, "POST", "/v1/sessions/orders/votes").get("type", "")
    return {"session-paused": "Paused", "invalid-token": "Open"}.get(str(kind).rpartition("/")[2])


def _end_of(door: Door) -> object:
    """In ms since 1970. An ingest process tells it in its metrics: no vote would show it before the end."""
    if not door.is_ingest:
        end = _info(door)["closesAt"]
        return None if end is None else round(datetime.fromisoformat(end).timestamp() * 1000)
    name = "psephos_ingest_closes_at_timestamp_seconds "
    lines = _get(door.admin, "/metrics").decode().splitlines()
    return next((round(float(line.removeprefix(name)) * 1000) for line in lines if line.startswith(name)), None)


def _info(door: Door) -> dict[str, Any]:
    return _ask(door.port, "GET", "/v1/sessions/orders")


def _ask(port: int, method: str, path: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        connection.request(method, path, headers={"Content-Type": "application/json"})
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found
    finally:
        connection.close()


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def _wait_until(said: Callable[[], object], wanted: object, who: str) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    while (answer := said()) != wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{who} says {answer} for {GIVE_UP_S:.0f} s, not {wanted}")
        time.sleep(_LOOK_S)


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
