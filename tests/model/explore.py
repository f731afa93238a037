"""Explores histories by a seed, and tells what was found and which paths they took."""

import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.model.machine import Histories
from tests.model.world import Violation, simulated

RULES = 20  # of a history, before its end


class Explored(NamedTuple):
    """`violation`: what was found, None if nothing; `seen`: how often each path was taken."""

    histories: int
    seconds: float
    violation: Violation | None
    seen: Counter[str]

    @property
    def rate(self) -> float:
        """Histories a second."""
        return self.histories / self.seconds


def explore(seed: str, histories: int, instead: Mapping[str, Any], *, shrink: bool = False) -> Explored:
    """At least so many histories, or as many as it takes to a first violation.

    `instead`: what replaces the checked code's parts, by their names. `shrink`: takes the time to find a short
    history; the violation's notes tell it, step by step.
    """
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    machine: Any = hypothesis.seed(number)(type("Seeded", (Histories,), {"explored": 0, "seen": Counter()}))
    how = settings(
        max_examples=histories,
        stateful_step_count=RULES,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
        deadline=None,
    )
    violation = None
    began = time.monotonic()
    with simulated(instead):
        try:
            run_state_machine_as_test(machine, settings=how)
        except Violation as found:
            violation = found
    return Explored(machine.explored, time.monotonic() - began, violation, machine.seen)
