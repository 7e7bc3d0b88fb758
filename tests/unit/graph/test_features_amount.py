"""Exact amounts: words, the one conversion to float, digits."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.features_amount import amount_to_float, amount_words, digit_pattern


def words_of(text: str) -> tuple[np.uint64, np.int64]:
    low, high = amount_words(pa.array([Decimal(text)], pa.decimal128(38, 18)))
    return low[0], high[0]


@given(st.integers(0, 10**38 - 1))
def test_digits_are_those_of_the_exact_integer(units: int) -> None:
    with localcontext() as context:
        context.prec = 60
        text = format(Decimal(units).scaleb(-18), "f")
    low, high = words_of(text)
    decimals, digits, _ = digit_pattern(low, high, np.empty(5, np.int64))
    plain = str(units).rstrip("0")
    assert digits == len(plain)
    zeros = len(str(units)) - len(plain)
    assert decimals == (max(18 - zeros, 0) if units else 0)
    assert amount_to_float(low, high) == pytest.approx(units / 1e18, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        pytest.param("1", 0.0, id="round"),
        pytest.param("0.99958", 1.0, id="round less 21000 gas at 20 gwei"),
        pytest.param("1.995", 0.5, id="round less an exchange's 0.005"),
        pytest.param("0.123456789123", 0.0, id="no pattern"),
    ],
)
def test_fee_marks(text: str, mark: float) -> None:
    low, high = words_of(text)
    assert digit_pattern(low, high, np.empty(5, np.int64))[2] == mark


def test_null_amounts_are_zero_and_slices_keep_their_place() -> None:
    array = pa.array([Decimal("1"), None, Decimal("3")], pa.decimal128(38, 18)).slice(1)
    low, high = amount_words(array)
    assert [amount_to_float(a, b) for a, b in zip(low, high, strict=True)] == [0.0, 3.0]


def test_a_float_column_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected decimal128\(38, 18\), found double"):
        amount_words(pa.array([1.0]))
