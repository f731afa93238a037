"""The batch door: one gateway, one request, a line a vote and an answer a line, one process on a core of its own.

`subject`: the gateway vouches for its voters. `token`: each line brings its voter's token. The client sends and
reads at once; Kafka acknowledges all (`acks=all`).
"""

import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench import plots
from bench.ingest import confined, own_core
from bench.polls import CREDENTIAL, Poll, Role
from bench.processes import cost
from bench.running import Figures, Size, in_turn, median, rest_of, servers
from psephos_lab.ports import LOOPBACK

VOTES: dict[Size, int] = {"smoke": 5_000, "quick": 200_000, "full": 500_000}
ROUNDS: dict[Size, int] = {"smoke": 1, "quick": 2, "full": 4}
NAMES = {"subject": "voters by name", "token": "voters by token"}
_ACCEPTED = b'"status":202,'
_CHUNK = 1 << 16


def lines(poll: Poll, kind: str, votes: int) -> bytes:
    def line(number: int) -> bytes:
        name = f"{kind}-{number}"
        voter = {"subject": name} if kind == "subject" else {"token": poll.token(name)}
        return json.dumps({**voter, "choices": ["ada"]}, separators=(",", ":")).encode()

    return b"\n".join(map(line, range(votes))) + b"\n"


def post(port: int, path: str, body: bytes) -> int:
    """Sends a batch and reads its answers meanwhile; how many votes were accepted."""
    head = (
        f"POST {path}/votes:batch HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {CREDENTIAL}\r\n"
        f"Content-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((LOOPBACK, port)) as connection:
        sending = threading.Thread(target=connection.sendall, args=(head.encode() + body,), daemon=True)
        sending.start()
        accepted, tail = 0, b""
        while data := connection.recv(_CHUNK):
            accepted += (tail + data).count(_ACCEPTED)
            tail = data[1 - len(_ACCEPTED) :]
        sending.join()
    return accepted


def batch(ingest: Role, path: str, body: bytes, votes: int) -> Figures:
    before, began = cost([ingest.pid]).cpu_s, time.monotonic()
    accepted = post(ingest.port, path, body)
    seconds = time.monotonic() - began
    if accepted != votes:
        raise RuntimeError(f"{accepted} of {votes} votes were accepted")
    spent = cost([ingest.pid])
    micros = (spent.cpu_s - before) / votes * 1e6
    return {
        "votesPerSecond": votes / seconds,
        "cpuMicros": micros,
        "votesPerCoreSecond": 1e6 / micros,
        "memoryMiB": spent.private / 2**20,
    }


def measure(size: Size) -> Iterator[Figures]:
    own, rest = own_core()
    votes = VOTES[size]
    with tempfile.TemporaryDirectory(prefix="psephos-bench-") as name, confined(rest), servers() as backends:
        poll = Poll(backends, Path(name) / "poll")
        bodies = {kind: lines(poll, kind, votes) for kind in NAMES}
        with poll.role("ingest", cores=own) as ingest:
            post(ingest.port, poll.path, lines(poll, "subject", votes // 4))
            contenders = {kind: partial(batch, ingest, poll.path, body, votes) for kind, body in bodies.items()}
            for rounds in in_turn(contenders, ROUNDS[size], rest_s=rest_of(size)):
                yield {"votes": votes, "rounds": rounds}


def draw(figures: Figures, folder: Path) -> None:
    plots.bars(
        folder / "batch.svg",
        "The batch door: votes a second of one core",
        "votes/s",
        {
            NAMES[name]: median(rounds, "votesPerCoreSecond")
            for name, rounds in figures["rounds"].items()
            if rounds
        },
        ours=tuple(NAMES.values()),
    )
