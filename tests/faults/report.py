"""The table at the end: what was broken, what was seen, what was lost (nothing)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

PROPERTY = "fault"  # of a test's report: its outcome as a dict, also from another process


@dataclass(frozen=True)
class Outcome:
    """One fault. `path`: what proves that its path ran, each at least 1."""

    row: str
    fault: str
    injected: int
    path: Mapping[str, float]
    votes: int
    lost: int
    double: int
    recovered_s: float
    seed: str

    @property
    def cells(self) -> tuple[str, ...]:
        seen = ", ".join(f"{what} {number:g}" for what, number in self.path.items())
        return (
            self.fault, str(self.injected), seen, f"{self.votes:,}", str(self.lost), str(self.double),
            f"{self.recovered_s:.1f}",
        )  # fmt: skip


_HEAD = ("fault", "injected", "path seen", "records", "lost", "double", "s to recover")


def table(outcomes: list[Outcome]) -> str:
    """Plain text, columns aligned."""
    rows = [_HEAD, *(outcome.cells for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines.append(
        f"{len(outcomes)} faults, {sum(each.votes for each in outcomes):,} records, "
        f"lost {sum(each.lost for each in outcomes)}, double {sum(each.double for each in outcomes)}"
    )
    return "\n".join(lines)


def write(outcomes: list[Outcome], seed: str, folder: Path) -> None:
    """`table.txt` and `table.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.txt").write_text(f"seed {seed}\n{table(outcomes)}\n")
    (folder / "table.json").write_text(
        json.dumps({"seed": seed, "faults": [asdict(outcome) for outcome in outcomes]}, indent=1) + "\n"
    )
