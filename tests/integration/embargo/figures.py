"""What must not be seen: figures by option in every form in which they could leave a role."""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping

_GROUPED = re.compile(rb"(?<=\d)(?:,|'|\.| |\xc2\xa0|\xe2\x80\xaf)(?=\d{3}(?!\d))")
_NEAR = rb"[^\n]{0,60}?"
_WORTH = 1_000_000_000_000  # millionths: from a million on, the whole part alone is unmistakable
_BYTES = 5  # of a binary number that is no accident


class Figures:
    """A session's figures by option. `tallies`: sums in millionths, of partitions and of all together;
    `counts`: ballots by option, as names of that option to their number; `shares`: of the whole, in per cent."""

    def __init__(
        self, tallies: Iterable[int], counts: Mapping[tuple[str, ...], int], shares: Iterable[float]
    ) -> None:
        forms = [form for value in sorted(set(tallies)) if value for form in _forms(value)]
        beside = [form for names, number in counts.items() for form in _beside(names, number)]
        percents = [rb"(?<![\d.])%s\s?%%" % f"{share:.1f}".replace(".", "[.,]").encode() for share in shares]
        self._leaks = re.compile(b"|".join([*forms, *beside, *percents]), re.DOTALL)

    def found_in(self, data: bytes) -> list[bytes]:
        """What of them `data` holds, with what stands around it."""
        places = [
            (text, match) for text in (data, _GROUPED.sub(b"", data)) for match in self._leaks.finditer(text)
        ]
        return [text[max(0, match.start() - 40) : match.end() + 20] for text, match in places]


def _forms(value: int) -> Iterator[bytes]:
    """As text: millionths, exact, rounded; as a number of eight bytes, with either end first, and a double."""
    whole, rest = divmod(value, 1_000_000)
    yield rb"(?<!\d)%d(?!\d)" % value
    yield rb"(?<!\d)%d\.%s(?!\d)" % (whole, f"{rest:06}".rstrip("0").encode())
    if value >= _WORTH:
        yield rb"(?<![\d.])%d(?!\d)" % whole
        yield rb"(?<![\d.])%d(?!\d)" % (whole + 1)
    binary = value.to_bytes(8, "big").lstrip(b"\0")
    if len(binary) >= _BYTES:
        yield re.escape(binary)
        yield re.escape(binary[::-1])
        yield re.escape(binary.hex().encode())
    double = struct.pack(">d", value / 1_000_000)
    yield re.escape(double)
    yield re.escape(double[::-1])


def _beside(names: tuple[str, ...], number: int) -> Iterator[bytes]:
    for name in names:
        word, count = re.escape(name.encode()), rb"(?<![\w.-])%d(?![\w-])" % number
        yield word + _NEAR + count
        yield count + _NEAR + word
