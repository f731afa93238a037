"""What a run found out in figures: printed as tables at its end, whatever its tests say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One thing that died. Seconds: without an acknowledgement at the longest; until everything was whole and
    results were current again. lost, double: what the judge found."""

    what: str
    acknowledged: int
    silent_s: float
    whole_s: float
    lost: int
    double: int


class Report:
    """Gathered by the tests of one run; `file` has it at any time, also of a run that is broken off."""

    def __init__(self, file: Path) -> None:
        self.rows: list[Row] = []
        self.times: list[tuple[str, float]] = []
        self._file = file

    def note(self, what: str, seconds: float) -> None:
        """How long something took."""
        self.times.append((what, seconds))
        self._write()

    def add(self, row: Row) -> None:
        """What died, and what became of it."""
        self.rows.append(row)
        self._write()

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text("".join(f"{line}\n" for line in self.lines()))

    def lines(self) -> Iterator[str]:
        """Both tables."""
        if self.times:
            yield from _table(("phase", "seconds"), [(what, f"{seconds:.0f}") for what, seconds in self.times])
            yield ""
        if self.rows:
            head = ("what died while votes flowed", "votes", "longest silence", "whole again", "lost", "double")
            yield from _table(head, [_cells(row) for row in self.rows])


def _cells(row: Row) -> tuple[str, ...]:
    silent, whole = f"{row.silent_s:.1f} s", f"{row.whole_s:.1f} s"
    return row.what, str(row.acknowledged), silent, whole, str(row.lost), str(row.double)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, ["-" * width for width in widths], *rows):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
