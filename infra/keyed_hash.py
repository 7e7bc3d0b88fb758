"""SipHash-2-4 with 128 bits over many slices of one buffer: short names for records that nobody without the key can make collide.

Reference: Aumasson, Bernstein, "SipHash: a fast short-input PRF" (2012), and the 128-bit variant of its reference code.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

KEY_BYTES = 16
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


def keyed_hashes(buffer: Bytes, starts: Ints, ends: Ints, key: bytes) -> Bytes:
    """The hashes of `buffer[starts[i]:ends[i]]`.

    Args:
        key: 16 secret bytes.

    Returns:
        uint8 [n, 16].
    """
    first, second = np.frombuffer(key, "<u8", 2)
    out = np.empty((len(starts), 2), np.uint64)
    _sip(buffer, np.ascontiguousarray(starts, np.int64), np.ascontiguousarray(ends, np.int64), first, second, out)
    return out.view(np.uint8)


@njit(cache=True, nogil=True, boundscheck=False, inline="always")
def _rotated(word, by):  # type: ignore[no-untyped-def]
    return (word << np.uint64(by)) | (word >> np.uint64(64 - by))


@njit(cache=True, nogil=True, boundscheck=False, inline="always")
def _round(a, b, c, d):  # type: ignore[no-untyped-def]
    a += b
    c += d
    b = _rotated(b, 13) ^ a
    d = _rotated(d, 16) ^ c
    a = _rotated(a, 32) + d
    c += b
    d = _rotated(d, 21) ^ a
    b = _rotated(b, 17) ^ c
    c = _rotated(c, 32)
    return a, b, c, d


@njit(cache=True, nogil=True, boundscheck=False)
def _sip(buffer, starts, ends, first, second, out):  # type: ignore[no-untyped-def]
    """As `keyed_hashes`, into `out` [n, 2]; words are little-endian."""
    for i in range(starts.shape[0]):
        at = starts[i]
        end = ends[i]
        a = first ^ np.uint64(0x736F6D6570736575)
        b = second ^ np.uint64(0x646F72616E646F6D) ^ np.uint64(0xEE)
        c = first ^ np.uint64(0x6C7967656E657261)
        d = second ^ np.uint64(0x7465646279746573)
        length = end - at
        while at + 8 <= end:
            word = np.uint64(0)
            for k in range(8):
                word |= np.uint64(buffer[at + k]) << np.uint64(8 * k)
            d ^= word
            a, b, c, d = _round(a, b, c, d)
            a, b, c, d = _round(a, b, c, d)
            a ^= word
            at += 8
        word = np.uint64(length & 255) << np.uint64(56)
        for k in range(end - at):
            word |= np.uint64(buffer[at + k]) << np.uint64(8 * k)
        d ^= word
        a, b, c, d = _round(a, b, c, d)
        a, b, c, d = _round(a, b, c, d)
        a ^= word
        c ^= np.uint64(0xEE)
        for _ in range(4):
            a, b, c, d = _round(a, b, c, d)
        out[i, 0] = a ^ b ^ c ^ d
        b ^= np.uint64(0xDD)
        for _ in range(4):
            a, b, c, d = _round(a, b, c, d)
        out[i, 1] = a ^ b ^ c ^ d
