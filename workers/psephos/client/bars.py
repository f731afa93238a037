"""Live results on a terminal: one bar per option, turnout and phase; without a terminal the same as one line."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

BAR_WIDTH = 36
SHOWN_OPTIONS = 25  # more do not fit on a screen; the line below says how many there are
_LEADERS = 3

Frame = Mapping[str, Any]
"""A result frame as the gateway returns it, decoded from JSON."""


def bars(frame: Frame, labels: Mapping[str, str], title: str) -> RenderableType:
    """The display for a viewer: the options by descending totals."""
    parts: list[RenderableType] = [Text.assemble((title, "bold"), "  ", *_standing(frame))]
    totals = frame.get("totals")
    if totals is None:
        parts.append(Text("results by option are shown after the close", "dim"))
    else:
        parts.append(_table(totals, labels))
    parts.append(Text(turnout_line(frame), "dim"))
    return Group(*parts)


def result_line(frame: Frame, labels: Mapping[str, str]) -> str:
    """The leaders and the turnout, as one line."""
    ranked = ranking(frame.get("totals") or {})
    leaders = ", ".join(f"{labels.get(option, option)} {shown(votes)}" for option, votes in ranked[:_LEADERS])
    stale = " (stale)" if frame.get("stale") else ""
    return f"{frame['phase']}{stale}: {leaders or 'no figures yet'}; {turnout_line(frame)}"


def turnout_line(frame: Frame) -> str:
    """Numbers of records: received, and by class."""
    turnout = frame["turnout"]
    rejected = sum(turnout["rejected"].values())
    return (
        f"{turnout['received']:,} received, {turnout['accepted']:,} accepted, {turnout['duplicate']:,} duplicate,"
        f" {rejected:,} rejected"
    )


def ranking(totals: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Options by descending totals; equal ones in declared order."""
    return sorted(totals.items(), key=lambda each: -each[1])


def shown(amount: int | float | Decimal) -> str:
    """An amount with thousands separators, and only the decimal places that it has."""
    return f"{amount:,}"


def _standing(frame: Frame) -> list[tuple[str, str]]:
    final = frame["phase"] in ("Final", "Disputed")
    parts = [(frame["phase"], "bold green" if frame["phase"] == "Final" else "bold red" if final else "cyan")]
    if frame.get("stale"):
        parts.append(("  stale", "yellow"))
    return parts


def _table(totals: Mapping[str, Any], labels: Mapping[str, str]) -> RenderableType:
    ranked = ranking(totals)
    most, every = max([votes for _, votes in ranked] or [0]), sum(votes for _, votes in ranked)
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, max_width=36)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right", style="dim")
    for option, votes in ranked[:SHOWN_OPTIONS]:
        bar = ProgressBar(total=float(most) or 1.0, completed=float(votes), width=BAR_WIDTH)
        share = f"{100 * float(votes) / float(every):.1f} %" if every else ""
        table.add_row(labels.get(option, option), bar, shown(votes), share)
    hidden = len(ranked) - SHOWN_OPTIONS
    return Group(table, Text(f"and {hidden} more options", "dim")) if hidden > 0 else table
