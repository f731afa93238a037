"""Computes from a session's capacity the numbers of pods and what each requests. Pure.

The numbers are round and below what `figures` allows: a pod sized here runs at about half load at the session's
peak.
"""

from dataclasses import dataclass

from psephos.domain.session import Capacity
from psephos.domain.sizing.figures import LEDGER_BYTES

SMALL_VOTES_PER_SECOND = 2_000
SMALL_VIEWERS = 5_000
"""Up to both of these, one pod with all roles is enough."""

VOTES_PER_INGEST = 7_000  # one process, one core: 250,000 votes a second on 25 to 40 of them
VOTES_PER_TALLY = 75_000  # 3 to 4 cores for 250,000
VIEWERS_PER_GATEWAY = 20_000  # PSEPHOS_GATEWAY_VIEWERS
SERVE_CPU, SERVE_MEMORY = 250, 288  # of all its processes, see docs/sizing.md; peaks add to that:
VOTES_PER_SERVE_CPU, VIEWERS_PER_SERVE_CPU = 4, 20  # per millicore
VOTES_PER_SERVE_MEMORY, VIEWERS_PER_SERVE_MEMORY = 8, 50  # per MiB
WRITE_UNIT_BYTES = 1_000
HEADROOM = 2  # factor by which autoscalers may exceed what capacity requires
MAX_PODS = 200
STORE_GIB = 10  # volume of a tally worker: about 100 bytes per voter


@dataclass(frozen=True)
class Pods:
    """Number of a role's pods, their maximum, and what each requests: CPU in millicores, memory in MiB."""

    replicas: int
    most: int
    cpu: int
    memory: int


@dataclass(frozen=True)
class Sizes:
    """The sizes of all workloads. small: one pod with all roles, `serve`; else one workload per role."""

    small: bool
    serve: Pods
    ingest: Pods
    tally: Pods
    projector: Pods
    gateway: Pods
    recount: Pods
    write_units: int


def sizes(capacity: Capacity, partitions: int, parallelism: int) -> Sizes:
    """The sizes. `partitions`: of the votes topic, as fixed at genesis; `parallelism`: of the recount."""
    votes, viewers = capacity.votes_per_second, capacity.viewers
    ingest = _between(2, _ceil(votes, VOTES_PER_INGEST))
    tally = min(_between(1, _ceil(votes, VOTES_PER_TALLY)), partitions)
    gateway = _between(2, _ceil(viewers, VIEWERS_PER_GATEWAY))
    return Sizes(
        small=votes <= SMALL_VOTES_PER_SECOND and viewers <= SMALL_VIEWERS,
        serve=_serve(votes, viewers),
        ingest=Pods(ingest, _between(2, ingest * HEADROOM), 1_000, 512),
        tally=Pods(tally, partitions, 1_000, 1_024),
        projector=Pods(1, 1, 200, 256),
        gateway=Pods(gateway, _between(2, gateway * HEADROOM), 800, 640),
        recount=Pods(min(parallelism, partitions), partitions, 1_000, 1_024),
        write_units=_ceil(votes * int(LEDGER_BYTES.value), WRITE_UNIT_BYTES),
    )


def _serve(votes: int, viewers: int) -> Pods:
    cpu = SERVE_CPU + _ceil(votes, VOTES_PER_SERVE_CPU) + _ceil(viewers, VIEWERS_PER_SERVE_CPU)
    memory = SERVE_MEMORY + _ceil(votes, VOTES_PER_SERVE_MEMORY) + _ceil(viewers, VIEWERS_PER_SERVE_MEMORY)
    return Pods(1, 1, cpu, memory)


def _between(low: int, wanted: int) -> int:
    return min(max(low, wanted), MAX_PODS)


def _ceil(amount: int, unit: int) -> int:
    return -(-amount // unit)
