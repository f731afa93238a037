"""Records that no ingest would write: each gets its class, nothing stops, nothing is lost."""

import random

import pytest
from tests.faults.client import ballots
from tests.faults.conftest import Drill
from tests.faults.oracle import INVALID_BALLOT, MALFORMED
from tests.harness import PARTITIONS, Record, Running

from psephos.formats.votes import MARKER_KEY, encode_vote, partition_of


def poison(running: Running, chance: random.Random, number: int) -> Record:
    """Anything: nothing at all, noise, torn votes, votes with values out of range, half a marker."""
    key, value = running.vote(f"poison-{number}", 0)
    assert key is not None
    assert value is not None
    candidates: list[Record] = [
        (None, None),
        (key, None),
        (None, value),
        (b"", b""),
        (chance.randbytes(chance.randint(1, 40)), value),
        (key, chance.randbytes(chance.randint(0, 200))),
        (key, value[: chance.randrange(len(value))]),
        (key, value + b"\x00"),
        (key, encode_vote(b"\xff\xff", 1)),
        (key, encode_vote(b"", 1)),
        (key, encode_vote(b"\x00\x00", 1, weight=0)),
        (key, encode_vote(b"\x00\x00", 1, weight=2_000_000)),
        (key, encode_vote(b"\x00\x00", 1, segment=7)),
        (key, encode_vote(b"\x00\x00", -1)),
        (key, encode_vote(b"\x00\x00", 1, nonce=b"short")),
        (key, b"\x97" + value[1:]),
        (MARKER_KEY, chance.randbytes(5)),
        (MARKER_KEY, None),
        (key, b"\xc1" * 100_000),
    ]
    return chance.choice(candidates)


@pytest.mark.fault("poison", "poison records among the votes, the tally killed behind them")
def test_poison_records_are_classed_and_stop_nobody(drill: Drill) -> None:
    running = drill.session()
    client = drill.client(running)
    number = drill.pick(400, 4_000)
    votes = ballots(running, 2_000, drill.chance)
    client.send(votes[:1_000])
    for partition in range(PARTITIONS):
        noise = [poison(running, drill.chance, n) for n in range(number // PARTITIONS)]
        wrong = [vote for vote in votes[:20] if partition_of(vote[0] or b"", PARTITIONS) != partition]
        running.produce(noise + wrong, partition)
    worker = running.start_worker(0)
    drill.wait_counted(running)
    worker.kill()
    client.send(votes[1_000:])
    drill.healed()
    worker = running.start_worker(0)
    drill.conclude(
        running,
        injected=number,
        path=lambda: {
            "malformed": running.classes()[MALFORMED],
            "invalid ballots": running.classes()[INVALID_BALLOT],
        },
    )
    assert running.events("partition stopped") == []
    assert worker.reasons() == {}
