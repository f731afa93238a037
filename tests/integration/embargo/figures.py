"""What must not be seen: figures by option in every form in which they could leave a role."""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

_GROUPED = re.compile(rb"(?<=\d)(?:,|'|\.| |\xc2\xa0|\xe2\x80\xaf)(?=\d{3}(?!\d))")
_NEAR = rb"[^\n]{0,60}?"
_WORTH = 1_000_000_000_000  # millionths: from a million on, the whole part alone is unmistakable
_BYTES = 5  # of a binary number that is no accident


class Form(NamedTuple):
    """One way to write a figure. `needle` is part of every match, and is found a thousand times faster."""

    needle: bytes
    pattern: re.Pattern[bytes]


class Figures:
    """A session's figures by option. `tallies`: sums in millionths, of partitions and of all together;
    `counts`: ballots by option, as names of that option to their number; `shares`: of the whole, in per cent."""

    def __init__(
        self, tallies: Iterable[int], counts: Mapping[tuple[str, ...], int], shares: Iterable[float]
    ) -> None:
        forms = [form for value in sorted(set(tallies)) if value for form in _forms(value)]
        beside = [form for names, number in counts.items() for form in _beside(names, number)]
        self._forms = [*forms, *beside, *map(_percent, shares)]

    def found_in(self, data: bytes) -> list[bytes]:
        """What of them `data` holds, with what stands around it."""
        return [
            text[max(0, match.start() - 40) : match.end() + 20]
            for text in (data, _GROUPED.sub(b"", data))
            for needle, pattern in self._forms
            if needle in text
            for match in pattern.finditer(text)
        ]


def _form(needle: bytes, pattern: bytes) -> Form:
    return Form(needle, re.compile(pattern, re.DOTALL))


def _exact(literal: bytes) -> Form:
    return _form(literal, re.escape(literal))


def _forms(value: int) -> Iterator[Form]:
    """As text: millionths, exact, rounded; as a number of eight bytes, with either end first, and a double."""
    whole, rest = divmod(value, 1_000_000)
    yield _form(b"%d" % value, rb"(?<!\d)%d(?!\d)" % value)
    decimals = f"{rest:06}".rstrip("0").encode()
    yield _form(b"%d." % whole, rb"(?<!\d)%d\.%s(?!\d)" % (whole, decimals))
    if value >= _WORTH:
        yield _form(b"%d" % whole, rb"(?<![\d.])%d(?!\d)" % whole)
        yield _form(b"%d" % (whole + 1), rb"(?<![\d.])%d(?!\d)" % (whole + 1))
    binary = value.to_bytes(8, "big").lstrip(b"\0")
    if len(binary) >= _BYTES:
        yield _exact(binary)
        yield _exact(binary[::-1])
        yield _exact(binary.hex().encode())
    double = struct.pack(">d", value / 1_000_000)
    yield _exact(double)
    yield _exact(double[::-1])


def _beside(names: tuple[str, ...], number: int) -> Iterator[Form]:
    for name in names:
        word, count = re.escape(name.encode()), rb"(?<![\w.-])%d(?![\w-])" % number
        yield _form(name.encode(), word + _NEAR + count)
        yield _form(name.encode(), count + _NEAR + word)


def _percent(share: float) -> Form:
    whole, tenths = f"{share:.1f}".encode().split(b".")
    return _form(whole, rb"(?<![\d.])%s[.,]%s\s?%%" % (whole, tenths))
