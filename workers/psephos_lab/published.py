"""The officially published result of an election, for comparison with what we counted."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Tally = Mapping[str, int]
"""Option id -> votes; options that were not published are not in it."""


@dataclass(frozen=True)
class Published:
    """Rounds of an instant runoff, or totals; the other is empty."""

    rounds: Sequence[Tally]
    totals: Tally

    def differences(self, result: Mapping[str, Any]) -> list[str]:
        """Returns where a result (`dev run --json`) differs, one line per difference."""
        return list(self._differences(result))

    def _differences(self, result: Mapping[str, Any]) -> Iterator[str]:
        for option, votes in self.totals.items():
            if result["totals"].get(option) != votes:
                yield f"{option}: published {votes}, counted {result['totals'].get(option)}"
        rounds = (result["outcome"] or {}).get("rounds", [])
        if self.rounds and len(rounds) != len(self.rounds):
            yield f"published {len(self.rounds)} rounds, counted {len(rounds)}"
        for number, (published, counted) in enumerate(zip(self.rounds, rounds, strict=False), start=1):
            for option, votes in published.items():
                if counted["tally"].get(option) != votes:
                    yield f"round {number}, {option}: published {votes}, counted {counted['tally'].get(option)}"


def read_published(ballots: Path) -> Published | None:
    """Returns what is in `expected.json` next to the ballots, None if there is no such file."""
    path = ballots.parent / "expected.json"
    if not path.exists():
        return None
    document = json.loads(path.read_text())
    ids = {label: option for option, label in document.get("options", {}).items()}
    rounds = [{ids[label]: votes for label, votes in each.items()} for each in document.get("published", [])]
    return Published(rounds, document.get("totals", {}))
