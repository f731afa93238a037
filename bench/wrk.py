"""Closed-loop load by wrk, which costs a tenth of what is measured: as many votes as a door takes."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from psephos_lab.ports import LOOPBACK

CONNECTIONS = 512  # ingest answers after 15 ms, so 256 clients who wait ask for no more than 17,000 a second
_SCRIPT = Path(__file__).with_name("wrk.lua")


class Answered(NamedTuple):
    """What wrk counted. refused: answers of 400 and above; the last four: connections that failed, by what did."""

    requests: int
    seconds: float
    refused: int
    connect: int
    read: int
    write: int
    timeout: int

    @property
    def broken(self) -> int:
        return self.connect + self.read + self.write + self.timeout

    @property
    def errors(self) -> str:
        """In words."""
        return f"failed: {self.connect} connects, {self.read} reads, {self.write} writes; {self.timeout} timed out"


class MissingTool(Exception):
    """What this benchmark needs is not installed. One line."""


def vote(
    port: int,
    path: str,
    tokens: Path,
    seconds: float,
    *,
    cores: Sequence[int] = (),
    connections: int = CONNECTIONS,
) -> Answered:
    """Posts a vote for each token of the file, again from the first if there are few. Raises MissingTool."""
    pinned = ("taskset", "-c", ",".join(map(str, cores))) if cores else ()
    command = [
        *pinned,
        *(
            "wrk",
            "-t",
            "1",
            "-c",
            str(connections),
            "-d",
            f"{seconds:.0f}s",
            "--timeout",
            "20s",
            "-s",
            str(_SCRIPT),
        ),
        *(f"http://{LOOPBACK}:{port}", "--", str(tokens), path),
    ]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MissingTool(f"{error.filename} is not installed; `make bench` installs what is missing") from None
    if found.returncode != 0:
        raise RuntimeError(f"wrk ended with {found.returncode}: {found.stderr.strip() or found.stdout.strip()}")
    line = json.loads(found.stdout.strip().splitlines()[-1])
    return Answered(**line)
