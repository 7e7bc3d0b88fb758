"""Exact amounts at the tensor boundary: the one conversion to float, and what an amount's digits look like.

An amount is a decimal128(38, 18): an integer in units of 10^-18 as two 64-bit words, low first, as Arrow stores it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

SCALE: Final = 18
TINY: Final = 1e-10  # amounts below count as this in logarithms, zero too
_CHUNK: Final = 1_000_000_000
_TENTH_MILLI: Final = 10_000_000  # 0.01 of an asset, in 10^-9: what people round to
# A plain Ethereum transfer burns 21,000 gas; a swept balance is a round sum less that many times a whole price in gwei.
_GAS: Final = 21_000
_MAX_GAS_PRICE: Final = 300


def amount_words(amounts: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Low uint64 [n] and high int64 [n] words of a decimal128 array of any scale up to 18; null becomes 0.

    Raises TypeError where the array is not decimal128.
    """
    array = amounts.combine_chunks() if isinstance(amounts, pa.ChunkedArray) else amounts
    if not pa.types.is_decimal128(array.type):
        raise TypeError(f"amount: expected decimal128(38, 18), found {array.type}")
    if array.type.scale != SCALE:
        array = array.cast(pa.decimal128(38, SCALE))
    if len(array) == 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    words = np.frombuffer(array.buffers()[1], np.uint64)[2 * array.offset : 2 * (array.offset + len(array))]
    low, high = words[0::2].copy(), words[1::2].view(np.int64).copy()
    if array.null_count:
        absent = array.is_null().to_numpy(zero_copy_only=False)
        low[absent], high[absent] = 0, 0
    return low, high


@njit(cache=True)
def amount_to_float(low: int, high: int) -> float:
    """An exact amount as float64, in whole units of its asset.

    The 128-bit integer is in units of 10^-18 (the log's decimal scale). float64 keeps 53 bits: relative loss below
    2^-52, so digits past the 15th or 16th are gone. Only features and charts may use the result, never money.
    """
    return (np.float64(high) * 18446744073709551616.0 + np.float64(low)) / 1e18


@njit(cache=True)
def digit_pattern(low: int, high: int, chunks: NDArray[np.int64]) -> tuple[int, int, float]:
    """What people and programs leave in an amount's digits, from the exact integer.

    Arguments: low, high: the amount's words; chunks: int64 [5], scratch for its base-10^9 digits.
    Returns decimals in use (0..18), significant digits (0..38), and a fee mark: 1 where the amount is a multiple of
    0.01 plus or minus a transfer's gas at a whole price in gwei, 0.5 where plus or minus an exchange's usual flat fee,
    else 0.
    """
    limb3 = np.int64((np.uint64(high) >> np.uint64(32)) & np.uint64(0xFFFFFFFF))
    limb2 = np.int64(np.uint64(high) & np.uint64(0xFFFFFFFF))
    limb1 = np.int64((np.uint64(low) >> np.uint64(32)) & np.uint64(0xFFFFFFFF))
    limb0 = np.int64(np.uint64(low) & np.uint64(0xFFFFFFFF))
    for place in range(5):
        rest = limb3 % _CHUNK
        limb3 //= _CHUNK
        part = (rest << 32) | limb2
        limb2 = part // _CHUNK
        part = ((part % _CHUNK) << 32) | limb1
        limb1 = part // _CHUNK
        part = ((part % _CHUNK) << 32) | limb0
        limb0 = part // _CHUNK
        chunks[place] = part % _CHUNK
    lowest, highest = -1, -1
    for place in range(5):
        if chunks[place] != 0:
            if lowest < 0:
                lowest = place
            highest = place
    if lowest < 0:
        return 0, 0, 0.0
    zeros, part = 9 * lowest, chunks[lowest]
    while part % 10 == 0:
        part //= 10
        zeros += 1
    length, part = 9 * highest, chunks[highest]
    while part > 0:
        part //= 10
        length += 1
    decimals = SCALE - zeros if zeros < SCALE else 0
    mark = 0.0
    if chunks[0] == 0:  # nothing below 10^-9: fees of transfers never reach below it
        over = chunks[1] % _TENTH_MILLI
        if over != 0:
            under = _TENTH_MILLI - over
            if (under % _GAS == 0 and under <= _GAS * _MAX_GAS_PRICE) or (over % _GAS == 0 and over <= _GAS * _MAX_GAS_PRICE):
                mark = 1.0
            elif under == 1_000_000 or under == 5_000_000 or under == 3_000_000 or under == 2_500_000:
                mark = 0.5
    return decimals, length - zeros, mark
