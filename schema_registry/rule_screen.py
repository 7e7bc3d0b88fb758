"""Rows that may break a rule of `transaction_rules`: all that do and a few that do not, at a tenth of the rules' own price.

Nearly every transaction is plain: printable ASCII, short, not negative. A compiled pass over the columns' bytes finds that out, and the
rules themselves, with their regular expressions, look at the rest alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from domain import values

_IDS = ("tx_id", "source_wallet_id", "target_wallet_id")
_ASSETS = ("asset", "counter_asset", "fee_asset")
_ENUMS = ("kind", "status")
_AMOUNTS = ("amount", "counter_amount", "fee")
_PAIRS = (("counter_amount", "counter_asset"), ("fee", "fee_asset"))
_Flags = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.int64]


class _Text(NamedTuple):
    """A text column: row i is `data[offsets[i]:offsets[i + 1]]`."""

    data: npt.NDArray[np.uint8]
    offsets: _Ints
    is_valid: _Flags


def suspects(table: pa.Table, bad_networks: pa.Array, latest_us: _Ints | None) -> _Ints:
    """Indexes, ascending, of every row that breaks a rule, and of some that break none.

    Args:
        table: as `transaction_rules.broken_rules`.
        bad_networks: the networks in it that break their rule.
        latest_us: the last `occurred_at` that each row may have, in microseconds since 1970; none leaves it out.
    """
    columns = {name: _whole(table[name]) for name in table.column_names}
    found = np.zeros(table.num_rows, np.bool_)
    if len(bad_networks):
        found |= np.asarray(pc.is_in(columns["network"], bad_networks))
    network = _text(columns["network"])
    for name in _IDS:
        _screen_identifiers(*_text(columns[name]), values.MAX_ID_LENGTH, network.data, network.offsets, True, found)
    for name in _ASSETS:
        _screen_identifiers(*_text(columns[name]), values.MAX_ID_LENGTH, network.data, network.offsets, False, found)
    for name in _ENUMS:
        _screen_unknown(*_text(columns[name])[:2], found)
    for name in _AMOUNTS:
        found |= _words(columns[name]).reshape(-1, 2)[:, 1] < 0  # the high word carries the sign
    for amount, asset in _PAIRS:
        found |= _valid(columns[amount]) != _valid(columns[asset])
    occurred_us = _words(columns["occurred_at"])
    found |= occurred_us < 0
    if latest_us is not None:
        found |= occurred_us > latest_us
    for name, column in columns.items():
        if name.startswith("payment.") and column.null_count < len(column):
            found |= np.diff(_text(column).offsets) > values.MAX_TEXT_LENGTH  # bytes: characters are never more
    found |= _words(columns["block"]) < 0
    if columns["personal"].null_count < len(found):
        found |= _valid(columns["personal"])
    return np.flatnonzero(found)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _valid(array: pa.Array) -> _Flags:
    if array.null_count == 0:
        return np.ones(len(array), np.bool_)
    bits = np.unpackbits(np.frombuffer(array.buffers()[0], np.uint8), count=array.offset + len(array), bitorder="little")
    return bits[array.offset :].view(np.bool_)


def _words(array: pa.Array) -> _Ints:
    """The values as 64-bit words, two of them (low, high) for a decimal; what stands under a null is anything."""
    width = array.type.bit_width // 64
    return np.frombuffer(array.buffers()[1], np.int64)[array.offset * width : (array.offset + len(array)) * width]


def _text(array: pa.Array) -> _Text:
    offsets = np.frombuffer(array.buffers()[1], np.int64 if pa.types.is_large_string(array.type) else np.int32)
    data = array.buffers()[2]
    return _Text(
        np.frombuffer(data if data is not None else b"", np.uint8),
        offsets[array.offset : array.offset + len(array) + 1].astype(np.int64),
        _valid(array),
    )


@njit(cache=True, nogil=True, boundscheck=False)
def _screen_identifiers(data, offsets, is_valid, longest, network, network_offsets, has_network, found):  # type: ignore[no-untyped-def]
    """Mark rows that are empty, too long, hold anything but printable ASCII, or do not begin with their network and a colon."""
    for i in range(is_valid.shape[0]):
        if not is_valid[i]:
            continue
        start = offsets[i]
        end = offsets[i + 1]
        is_odd = end == start or end - start > longest
        for at in range(start, end):
            is_odd |= data[at] < 32 or data[at] > 126
        if has_network:
            first = network_offsets[i]
            length = network_offsets[i + 1] - first
            if end - start < length + 2:
                is_odd = True
            else:
                for k in range(length):
                    is_odd |= data[start + k] != network[first + k]
                is_odd |= data[start + length] != 58
        if is_odd:
            found[i] = True


@njit(cache=True, nogil=True, boundscheck=False)
def _screen_unknown(data, offsets, found):  # type: ignore[no-untyped-def]
    """Mark rows as long as `unknown` with its first letter."""
    for i in range(found.shape[0]):
        if offsets[i + 1] - offsets[i] == 7 and data[offsets[i]] == 117:
            found[i] = True
