"""Amounts are exact, whatever their size."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.domain.counting import MILLION, amount


@given(st.integers(-(10**45), 10**45))
def test_an_amount_is_its_millionths_exactly(millionths: int) -> None:
    shown = amount(millionths)
    digits = str(shown).lstrip("-")
    whole, _, rest = digits.partition(".")
    assert int(whole) * MILLION + int((rest or "0").ljust(6, "0")) == abs(millionths)
    assert (str(shown)[0] == "-") == (millionths < 0)
    assert isinstance(shown, int) == (millionths % MILLION == 0)


@pytest.mark.parametrize(
    ("millionths", "shown"),
    [(0, 0), (3_000_000, 3), (1_500_000, Decimal("1.5")), (1, Decimal("0.000001")), (-250_000, Decimal("-0.25"))],
)
def test_amounts_read_as_people_write_them(millionths: int, shown: int | Decimal) -> None:
    assert amount(millionths) == shown
    assert str(amount(millionths)) == str(shown)
