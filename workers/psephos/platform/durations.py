"""Durations as people write them: a whole number and a unit, such as 500ms, 90s, 15m, 2h or 1d."""

import re
from datetime import timedelta
from typing import Final

_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
DAYS: Final = ("s", "m", "h", "d")
"""The units that command lines accept."""


def duration_pattern(units: tuple[str, ...]) -> str:
    """A regular expression with two groups: the number and its unit."""
    return rf"^(0|[1-9][0-9]{{0,8}})({'|'.join(units)})$"


def parse_duration(text: str, units: tuple[str, ...] = DAYS) -> timedelta | None:
    """The duration; None if the text is not one in these units."""
    match = re.fullmatch(duration_pattern(units), text)
    return None if match is None else int(match[1]) * _UNITS[match[2]]
