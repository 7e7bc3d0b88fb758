"""Decimal text to exact integers, many at once: no number goes through a float."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit


class NumberFault(IntEnum):
    """Why a text is not the number that was asked for; the value is the code in the result."""

    NONE = 0
    NOT_A_NUMBER = 1
    NOT_FINITE = 2
    TOO_FINE = 3
    TOO_LARGE = 4
    NEGATIVE = 5

    @property
    def reason(self) -> str:
        return ("", "not_a_number", "not_finite", "too_many_decimals", "too_many_digits", "negative")[self.value]

    @property
    def expected(self) -> str:
        return (
            "", "a decimal number", "a finite number", "no digits past the smallest unit", "at most 38 digits",
            "zero or more",
        )[self.value]  # fmt: skip


def scaled_integers(texts: pa.Array, scale: int, is_truncating: bool = False) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """Each text times 10^scale as a whole number of at most 38 digits.

    Args:
        texts: pa.string or pa.large_string; a null gives 0 and no fault.
        scale: decimals kept; below zero drops whole digits.
        is_truncating: digits past the scale are cut off, not faults.

    Returns:
        Low and high word of the magnitude's two's complement, uint64 [n, 2], and `NumberFault` codes [n]. A negative
        number has its fault and its magnitude; minus zero is zero.
    """
    large = texts.cast(pa.large_string())
    n = len(large)
    offsets = np.frombuffer(large.buffers()[1], np.int64)[large.offset : large.offset + n + 1]
    data = large.buffers()[2]
    buffer = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8)
    words = np.zeros((n, 2), np.uint64)
    faults = np.zeros(n, np.uint8)
    _parse(buffer, offsets, np.asarray(large.is_valid()), scale, is_truncating, words, faults)
    return words, faults


def decimal_array(words: npt.NDArray[np.uint64], is_valid: npt.NDArray[np.bool_]) -> pa.Array:
    """Words [n, 2] as decimal128(38, 18), null where not `is_valid` [n]."""
    bitmap = None if is_valid.all() else pa.py_buffer(np.packbits(is_valid, bitorder="little"))
    buffers = [bitmap, pa.py_buffer(np.ascontiguousarray(words))]
    return pa.Array.from_buffers(pa.decimal128(38, 18), len(words), buffers)


def floats(texts: pa.Array) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """Text as float64, for features that are floats at their source; and where [n] it is none (NaN, infinite too)."""
    numbers = pc.match_substring_regex(texts, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
    is_number = np.asarray(pc.fill_null(numbers, True))
    # Arrow's own parser accepts no leading plus.
    plain = pc.replace_substring_regex(pc.if_else(pa.array(is_number), texts, "0"), r"^\+", "")
    values = plain.cast(pa.float64())
    finite = np.asarray(pc.fill_null(pc.is_finite(values), True))
    return values, ~(is_number & finite)


_POWERS = np.array([10**k for k in range(20)], np.uint64)


@njit(cache=True, nogil=True, boundscheck=False)
def _parse(buffer, offsets, is_valid, scale, is_truncating, words, faults):  # type: ignore[no-untyped-def]
    for i in range(faults.shape[0]):
        if not is_valid[i]:
            continue
        at = offsets[i]
        end = offsets[i + 1]
        while at < end and (buffer[at] == 32 or buffer[at] == 9):
            at += 1
        while end > at and (buffer[end - 1] == 32 or buffer[end - 1] == 9):
            end -= 1
        is_negative = at < end and buffer[at] == 45
        if at < end and (buffer[at] == 45 or buffer[at] == 43):
            at += 1
        start = at
        point = np.int64(-1)
        digits = np.int64(0)
        while at < end:
            byte = buffer[at]
            if 48 <= byte <= 57:
                digits += 1
            elif byte == 46 and point < 0:
                point = digits
            else:
                break
            at += 1
        stop = at
        if point < 0:
            point = digits
        if digits == 0:
            faults[i] = 1
            if at + 3 <= end:  # nan, inf, infinity, snan in any case
                a = buffer[at] | 32
                b = buffer[at + 1] | 32
                c = buffer[at + 2] | 32
                if (a == 110 and b == 97 and c == 110) or (a == 105 and b == 110 and c == 102):
                    faults[i] = 2
            continue
        exponent = np.int64(0)
        if at < end and (buffer[at] | 32) == 101:
            at += 1
            is_down = at < end and buffer[at] == 45
            if at < end and (buffer[at] == 45 or buffer[at] == 43):
                at += 1
            if at >= end:
                faults[i] = 1
                continue
            while at < end and 48 <= buffer[at] <= 57:
                if exponent < 1_000_000_000:  # past that every digit is too large or too fine, whatever follows
                    exponent = exponent * 10 + (buffer[at] - 48)
                at += 1
            if is_down:
                exponent = -exponent
        if at != end:
            faults[i] = 1
            continue
        weight = point - 1 + exponent + scale  # of the next digit, in powers of ten of the smallest unit
        top = np.uint64(0)
        bottom = np.uint64(0)
        fault = 0
        for k in range(start, stop):
            byte = buffer[k]
            if byte == 46:
                continue
            if byte != 48:
                digit = np.uint64(byte - 48)
                if weight >= 38:
                    fault = 4
                elif weight >= 19:
                    top += digit * _POWERS[weight - 19]
                elif weight >= 0:
                    bottom += digit * _POWERS[weight]
                elif not is_truncating and fault == 0:
                    fault = 3
            weight -= 1
        # top * 10^19 + bottom in two words, by halves of 32 bits
        factor = np.uint64(10_000_000_000_000_000_000)
        mask = np.uint64(0xFFFFFFFF)
        half = np.uint64(32)
        low = (top & mask) * (factor & mask)
        mid = (top >> half) * (factor & mask) + (low >> half)
        mid2 = (top & mask) * (factor >> half) + (mid & mask)
        high = (top >> half) * (factor >> half) + (mid >> half) + (mid2 >> half)
        word = (mid2 << half) | (low & mask)
        total = word + bottom
        if total < word:
            high += np.uint64(1)
        words[i, 0] = total
        words[i, 1] = high
        if fault == 0 and is_negative and (total != 0 or high != 0):
            fault = 5
        faults[i] = fault
