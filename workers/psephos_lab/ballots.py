"""The ballots of an election as a file: `count,choices`, one kind of ballot per line, plain or gzipped.

`choices` is written as `psephos.domain.ballots.BallotRules.parse_cell` reads it: `a` for single, `a+b` for
approval, `a>b>c` for ranked, `a=3>b=2` for scores, and nothing for a blank ballot.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple, cast

from psephos.domain.ballots import BallotRules, InvalidBallot
from psephos.platform.errors import BAD_INPUT, PsephosError

HEADER = ["count", "choices"]


class BallotsError(PsephosError):
    """The file can't be read, or a line is not a ballot of this session. The message: one line with file, line and
    reason."""

    exit_code = BAD_INPUT


class BallotKind(NamedTuple):
    """A ballot, and the number of voters who cast it; `body` is what they send."""

    voters: int
    body: Mapping[str, object]


def read_ballots(path: Path, rules: BallotRules) -> list[BallotKind]:
    """Returns the ballots in a file, in its order, each checked by the session's rules.

    Raises BallotsError.
    """
    try:
        with _open(path) as lines:
            return list(_kinds(path, lines, rules))
    except (OSError, EOFError, zlib.error) as error:
        raise BallotsError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    except UnicodeDecodeError as error:
        raise BallotsError(f"{path}: byte {error.start} is not UTF-8") from None


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def _kinds(path: Path, lines: IO[str], rules: BallotRules) -> Iterator[BallotKind]:
    rows = csv.reader(lines, strict=True)
    try:
        header = next(rows, None)
        if header != HEADER:
            found = ",".join(header or []) or "nothing"
            raise BallotsError(f"{path}, line 1: found {found!r}; the first line has to be 'count,choices'")
        for row in rows:
            if row:
                yield _kind(f"{path}, line {rows.line_num}", row, rules)
    except csv.Error as error:
        raise BallotsError(f"{path}, line {rows.line_num}: {error}") from None


def _kind(where: str, row: list[str], rules: BallotRules) -> BallotKind:
    if len(row) != len(HEADER):
        raise BallotsError(f"{where}: found {len(row)} columns; a line is 'count,choices'")
    count, choices = row
    if not (count.isascii() and count.isdigit()):
        raise BallotsError(f"{where}: the count is {count!r}; a whole number is needed")
    try:
        body = rules.parse_cell(choices)
        rules.encode(body)
    except InvalidBallot as error:
        raise BallotsError(f"{where}: {error}") from None
    return BallotKind(int(count), body)
