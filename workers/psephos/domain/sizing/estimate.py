"""The demands of a session of a given size on a cluster and its services, and what its cost grows with."""

from dataclasses import asdict, dataclass
from typing import Any

from psephos.domain.session import Capacity, partitions_for
from psephos.domain.sizing import figures
from psephos.domain.sizing.pods import HEADROOM, WRITE_UNIT_BYTES, Pods, Sizes, sizes

KEY_WRITE_UNITS = 1_000  # per second, for one partition key of DynamoDB
NEW_TABLE_WRITE_UNITS = 4_000  # per second, for a new on-demand table
REPLICATION = 3
FRAMES_PER_SECOND = 1.0
MILLICORES = 1_000
_MICROS = 1_000_000


@dataclass(frozen=True)
class Table:
    """DynamoDB. write_units: per second at the peak; a_key: the part of those that one partition key takes; warm:
    whether a new table has to be warmed up first."""

    write_units: int
    a_key: int
    warm: bool
    write_units_per_million_votes: int
    mb_per_million_votes: float


@dataclass(frozen=True)
class Log:
    """Kafka. mb_per_second: from ingest to the leaders, at the peak; requests_per_second: maximum of produce
    requests of all ingest processes; mb_per_million_votes: on the disks of all replicas."""

    partitions: int
    mb_per_second: float
    requests_per_second: int
    mb_per_million_votes: float


@dataclass(frozen=True)
class Audience:
    """Viewers. gbit_per_second: frames at the peak, without the results page, which a CDN serves."""

    frames_per_second: float
    gbit_per_second: float
    memory_gb: float


@dataclass(frozen=True)
class Driver:
    """One item that a bill grows with."""

    what: str
    amount: float
    unit: str
    grows_with: str


@dataclass(frozen=True)
class Estimate:
    """The result of `psephos size`."""

    votes_per_second: int
    viewers: int
    pods: Sizes
    table: Table
    log: Log
    audience: Audience
    recount_seconds_per_million_votes: float
    drivers: tuple[Driver, ...]

    def document(self) -> dict[str, Any]:
        """The document for `--json`: names as in the session's YAML, and every figure that was used."""
        used = {
            name: {"value": figure.value, "unit": figure.unit, "origin": figure.origin}
            for name, figure in figures.ALL.items()
        }
        document: dict[str, Any] = _camel({**asdict(self), "figures": used})
        return document


def estimate(capacity: Capacity, parallelism: int = 4, frames_per_second: float = FRAMES_PER_SECOND) -> Estimate:
    """The estimate. `frames_per_second`: per viewer while votes come in; `parallelism`: of the recount."""
    votes, viewers, partitions = capacity.votes_per_second, capacity.viewers, partitions_for(capacity)
    found = sizes(capacity, partitions, parallelism)
    table, audience = _table(votes, partitions), _audience(viewers, frames_per_second)
    log = _log(votes, partitions, 1 if found.small else found.ingest.replicas)
    return Estimate(
        votes_per_second=votes,
        viewers=viewers,
        pods=found,
        table=table,
        log=log,
        audience=audience,
        recount_seconds_per_million_votes=_MICROS / figures.RECOUNT_VOTES.value / found.recount.replicas,
        drivers=tuple(_drivers(found, table, log, audience)),
    )


def cores(pods: Pods) -> float:
    """Number of cores that all pods of a role request."""
    return pods.replicas * pods.cpu / MILLICORES


def _table(votes: int, partitions: int) -> Table:
    units = _ceil(votes * figures.LEDGER_BYTES.value / WRITE_UNIT_BYTES)
    return Table(
        write_units=units,
        a_key=_ceil(units / partitions),
        warm=units * HEADROOM > NEW_TABLE_WRITE_UNITS,
        write_units_per_million_votes=_ceil(figures.LEDGER_BYTES.value * _MICROS / WRITE_UNIT_BYTES),
        mb_per_million_votes=figures.LEDGER_BYTES.value,
    )


def _log(votes: int, partitions: int, producers: int) -> Log:
    return Log(
        partitions=partitions,
        mb_per_second=votes * figures.RECORD_BYTES.value / _MICROS,
        requests_per_second=min(votes, _ceil(producers * partitions * 1_000 / figures.LINGER_MS.value)),
        mb_per_million_votes=figures.RECORD_BYTES.value * REPLICATION,
    )


def _audience(viewers: int, frames_per_second: float) -> Audience:
    return Audience(
        frames_per_second=frames_per_second,
        gbit_per_second=viewers * frames_per_second * figures.FRAME_BYTES.value * 8 / 1e9,
        memory_gb=viewers * figures.VIEWER_KB.value / _MICROS,
    )


def _drivers(found: Sizes, table: Table, log: Log, audience: Audience) -> list[Driver]:
    """The cost drivers: those counted in cores, largest first, then all others."""
    roles = {"serve": found.serve} if found.small else _roles(found)
    compute = [Driver(name, cores(pods), "cores", _GROWTH[name]) for name, pods in roles.items()]
    return [
        *sorted(compute, key=lambda driver: -driver.amount),
        Driver("frames to viewers", audience.gbit_per_second, "Gbit/s", "viewers, frames a second, options"),
        Driver("ledger", table.write_units, "write units/s", "votes a second"),
        Driver("log", log.mb_per_second * REPLICATION, "MB/s on disks", "votes a second, replication"),
        Driver("produce requests", log.requests_per_second, "requests/s", "ingest processes x partitions"),
    ]


_GROWTH = {
    "serve": "votes a second, viewers",
    "ingest": "votes a second that come one a request; batches cost a fourth",
    "tally": "votes a second",
    "projector": "nothing: one a session",
    "gateway": "viewers, frames a second",
}


def _roles(found: Sizes) -> dict[str, Pods]:
    return {
        "ingest": found.ingest,
        "tally": found.tally,
        "projector": found.projector,
        "gateway": found.gateway,
    }


def _ceil(number: float) -> int:
    return -int(-number // 1)


def _camel(value: Any) -> Any:
    """Converts keys to camel case, as in our JSON."""
    if isinstance(value, dict):
        return {_camel_name(name): _camel(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_camel(each) for each in value]
    return round(value, 3) if isinstance(value, float) else value


def _camel_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
