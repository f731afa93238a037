"""Amounts of votes: integers in millionths internally, plain numbers externally.

Weights have at most six decimal places, so every sum of weights is a whole number of millionths: counting never
rounds.
"""

from decimal import Decimal
from typing import Final

MILLION: Final = 1_000_000
"""Millionths of one vote."""


def amount(millionths: int) -> int | Decimal:
    """An amount for people to read: an int if it is whole, else a Decimal with at most six places."""
    whole, rest = divmod(abs(millionths), MILLION)
    sign = -1 if millionths < 0 else 1
    if rest == 0:
        return sign * whole
    # From text, because Decimal's own arithmetic rounds to 28 digits.
    return Decimal(f"{'-' if sign < 0 else ''}{whole}.{rest:06d}".rstrip("0"))
