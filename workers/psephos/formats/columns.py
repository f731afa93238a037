"""Columns: how a block packs thousands of small values without allocating one object per value.

A column of integers takes the narrowest width that holds them all, or one value if they are all the same. Big
integers (cumulative tallies have no upper bound) take as many bytes as they need.
"""

import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise

from psephos.formats.errors import Malformed

CONSTANT = "="
_WIDTHS = (("b", 1 << 7), ("h", 1 << 15), ("i", 1 << 31), ("q", 1 << 63))
_SWAP = sys.byteorder == "big"  # columns are little-endian on disk
_EIGHT = {"b": 1, "h": 2, "i": 4, "q": 8}


def pack_ints(values: Sequence[int]) -> bytes:
    """Packs signed 64-bit integers: a type letter, then the packed values (one if all are equal).

    The form is canonical: equal sequences give equal bytes.
    Raises OverflowError if a value does not fit into 64 bits.
    """
    if not values:
        return b""
    low, high = min(values), max(values)
    code = next((code for code, limit in _WIDTHS if -limit <= low and high < limit), None)
    if code is None:
        raise OverflowError(f"column value out of 64 bits: {low}..{high}")
    if low == high:
        return (CONSTANT + code).encode() + _bytes(code, (low,))
    return code.encode() + _bytes(code, values)


def unpack_ints(data: bytes, length: int) -> list[int]:
    """The inverse of `pack_ints`; `length` is the number of values. Raises Malformed."""
    if length == 0:
        if data:
            raise Malformed("a column of no values has bytes")
        return []
    constant = data[:1] == CONSTANT.encode()
    head = data[1:2] if constant else data[:1]
    code = head.decode("latin-1")
    if code not in _EIGHT:
        raise Malformed(f"unknown column type {head!r}")
    body = data[2:] if constant else data[1:]
    count = 1 if constant else length
    if len(body) != count * _EIGHT[code]:
        raise Malformed(f"a column of {length} values has {len(body)} bytes of type {code}")
    packed = array(code)
    packed.frombytes(body)
    if _SWAP:
        packed.byteswap()
    return packed.tolist() * length if constant else packed.tolist()


def pack_big_ints(values: Sequence[int]) -> bytes:
    """Packs unbounded integers: one length byte each, then that many bytes, big-endian, signed."""
    out = bytearray()
    for value in values:
        size = (value.bit_length() + 8) // 8 if value else 0
        out.append(size)
        out += value.to_bytes(size, "big", signed=True)
    return bytes(out)


def unpack_big_ints(data: bytes) -> list[int]:
    """The inverse of `pack_big_ints`. Raises Malformed."""
    values, at, end = [], 0, len(data)
    while at < end:
        size = data[at]
        at += 1
        if at + size > end:
            raise Malformed("a big integer is cut off")
        values.append(int.from_bytes(data[at : at + size], "big", signed=True))
        at += size
    return values


def pack_chunks(values: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Packs byte strings of any length into (column of their lengths, their concatenation)."""
    return pack_ints(list(map(len, values))), b"".join(values)


def unpack_chunks(lengths: bytes, blob: bytes, count: int) -> list[bytes]:
    """The inverse of `pack_chunks`. Raises Malformed."""
    sizes = unpack_ints(lengths, count)
    if (sizes and min(sizes) < 0) or sum(sizes) != len(blob):
        raise Malformed("chunk lengths do not fit their bytes")
    if sizes and lengths[:1] == CONSTANT.encode():
        return split(blob, sizes[0], count) if sizes[0] else [b""] * count
    ends = list(accumulate(sizes, initial=0))
    return [blob[start:end] for start, end in pairwise(ends)]


def split(blob: bytes, width: int, count: int) -> list[bytes]:
    """Splits a concatenation into byte strings of one width. Raises Malformed."""
    if len(blob) != width * count:
        raise Malformed(f"{count} values of {width} bytes expected, {len(blob)} bytes found")
    return [blob[at : at + width] for at in range(0, len(blob), width)]


def _bytes(code: str, values: Sequence[int]) -> bytes:
    packed = array(code, values)
    if _SWAP:
        packed.byteswap()
    return packed.tobytes()
