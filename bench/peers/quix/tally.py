"""The tally as a Quix Streams application: a voter's first vote counts. It runs in an environment of its own.

Arguments: brokers, votes topic, consumer group, state folder. A RocksDB store with a changelog holds who voted.
Quix keeps state by key, so counts by option would need a second topic and every vote written to it: here they are
kept in memory, which is less than the others do.
"""

import sys
from collections import Counter
from typing import Any

from quixstreams import Application

counts: Counter[int] = Counter()


def tally(value: bytes, state: Any) -> None:
    """A vote is the msgpack array [version, ballot, ...]; the ballot of one choice is two bytes."""
    if value[:4] != b"\x96\x01\xc4\x02":
        return
    if not state.exists("voted"):
        state.set("voted", 1)
        counts[int.from_bytes(value[4:6], "big")] += 1


def main() -> None:
    brokers, votes, group, folder = sys.argv[1:]
    app = Application(
        broker_address=brokers,
        consumer_group=group,
        auto_offset_reset="earliest",
        commit_interval=0.1,
        processing_guarantee="exactly-once",
        state_dir=folder,
        loglevel="WARNING",
    )
    topic = app.topic(votes, key_deserializer="bytes", value_deserializer="bytes")
    app.dataframe(topic).update(tally, stateful=True)
    app.run()


if __name__ == "__main__":
    main()
