"""Amounts of votes: inside integers in millionths, outside plain numbers.

Weights have at most six places, so every sum of weights is a whole number of millionths: nothing is
ever rounded while counting.
"""

from decimal import Decimal
from typing import Final

MILLION: Final = 1_000_000
"""Millionths of one vote."""


def amount(millionths: int) -> int | Decimal:
    """An amount as people read it: an int when it is whole, else a Decimal with at most six places."""
    whole, rest = divmod(abs(millionths), MILLION)
    sign = -1 if millionths < 0 else 1
    if rest == 0:
        return sign * whole
    # From text, because Decimal's own arithmetic rounds to 28 digits.
    return Decimal(f"{'-' if sign < 0 else ''}{whole}.{rest:06d}".rstrip("0"))
