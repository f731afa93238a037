"""All measured figures, in one place. After a new measurement, put the figure and its benchmark here.

A session at its peak keeps a pod busy for at most `LOAD` of the time, so that a pod may die, or a guess may be
wrong by as much; a test compares the sizes with it.
"""

from typing import Final, NamedTuple


class Figure(NamedTuple):
    """One figure. origin: a benchmark in docs/benchmarks, or the place that fixes it."""

    value: float
    unit: str
    origin: str


LOAD: Final = 0.5

INGEST_MICROS: Final = Figure(70, "µs of CPU a vote, one vote a request", "benchmark ingest")
BATCH_MICROS: Final = Figure(15, "µs of CPU a vote, in batches, voters by token", "benchmark batch")
TALLY_MICROS: Final = Figure(6.6, "µs of CPU a vote, with ledger and transaction", "benchmark tally")
LEDGER_BYTES: Final = Figure(32, "bytes of the ledger a vote", "benchmark ledger")
RECORD_BYTES: Final = Figure(70, "bytes of the log a vote, each replica", "formats.votes, Kafka's record format")
STORE_BYTES: Final = Figure(100, "bytes of a tally worker's store a voter", "benchmark ledger")
RECOUNT_VOTES: Final = Figure(190_000, "votes a second of a recount's core", "benchmark ledger")
FRAME_BYTES: Final = Figure(300, "bytes of a result frame with ten options", "formats.frames")
DELIVERY_MICROS: Final = Figure(27, "µs of CPU a frame that a viewer gets", "architecture, section 6")
VIEWER_KB: Final = Figure(18, "KB of memory a viewer", "architecture, section 7")
LINGER_MS: Final = Figure(10, "ms for which ingest gathers votes of a partition", "roles.ingest.votelog")

ALL: Final = {name.lower(): value for name, value in dict(globals()).items() if isinstance(value, Figure)}
