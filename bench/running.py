"""Servers to measure on, rounds in which product and peer take turns, and the files that figures end up in."""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from bench.processes import wait_until_quiet
from psephos_lab.servers import Backends

Size = Literal["smoke", "quick", "full"]
Figures = dict[str, Any]
_ROOT = Path(__file__).parent.parent
FOLDER = _ROOT / "docs" / "benchmarks"
SMOKE_FOLDER = _ROOT / "build" / "benchmarks"  # figures of a smoke run say nothing: no page shows them
#: Servers at their own speed: both compilers, a heap that holds what is measured.
FAST_JAVA = ("-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xmx2g")
START_S = 300.0  # of the servers, on a machine that is busy with other work
REST_S = 10.0  # at most, for what the contender before has left behind
_TOLD = ("msgspec", "lmdb", "confluent-kafka", "boto3", "aiohttp", "uvloop")


@contextmanager
def servers(**how: Any) -> Iterator[Backends]:
    """Kafka, Redis and DynamoDB Local (in memory: it stands in for a service elsewhere), in a fresh folder."""
    with tempfile.TemporaryDirectory(prefix="psephos-bench-") as folder:
        given = {"dynamodb_in_memory": True, "java_options": FAST_JAVA, **how}
        backends = Backends(Path(folder), **given)
        backends.start(START_S)
        try:
            yield backends
        finally:
            backends.stop()


def in_turn(
    contenders: Mapping[str, Callable[[], Figures]], rounds: int, *, rest_s: float = REST_S
) -> Iterator[dict[str, list[Figures]]]:
    """Each contender once a round, one after the other, each on a machine that has come to rest.

    Yields all that is found so far, after each measurement.
    """
    found: dict[str, list[Figures]] = {name: [] for name in contenders}
    for number in range(1, rounds + 1):
        for name, measure in contenders.items():
            wait_until_quiet(timeout_s=rest_s)
            figures = measure()
            found[name].append(figures)
            say(f"  round {number} of {rounds}  {name:<24} {shown(figures)}")
            yield found


def rest_of(size: Size) -> float:
    """Seconds that a measurement waits for a quiet machine, at most."""
    return 0.0 if size == "smoke" else REST_S


def median(rounds: Sequence[Figures], name: str) -> float:
    """Of one figure over all rounds."""
    return float(statistics.median(each[name] for each in rounds))


class Progress:
    """Says how far something long is, every few seconds."""

    def __init__(self, what: str, whole: int, every_s: float = 10.0) -> None:
        self._what, self._whole, self._every_s = what, whole, every_s
        self._began = self._told = time.monotonic()

    def at(self, done: int) -> None:
        now = time.monotonic()
        if now - self._told >= self._every_s:
            self._told = now
            say(f"    {self._what}: {done:,} of {self._whole:,} after {now - self._began:.0f} s")


def shown(figures: Figures) -> str:
    """One line."""
    return "  ".join(f"{name} {_number(value)}" for name, value in figures.items())


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def keep(name: str, figures: Figures, size: Size, folder: Path = FOLDER, *, complete: bool = True) -> Path:
    """Writes what was measured, and where, to NAME.json; `complete`: whether the run came to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    document = {"benchmark": name, "size": size, "complete": complete, "machine": machine(), **figures}
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def kept(name: str, folder: Path = FOLDER) -> Figures:
    """What `keep` wrote last."""
    found: Figures = json.loads((folder / f"{name}.json").read_text())
    return found


def machine() -> Figures:
    """Where this ran."""
    return {
        "measuredAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memoryGiB": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _TOLD},
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
