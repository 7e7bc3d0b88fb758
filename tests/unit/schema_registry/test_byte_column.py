"""A column of byte strings shows what a list of them would, whatever is cut from it, taken or joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_registry import byte_column
from schema_registry.byte_column import ByteColumn

STRINGS: list[bytes | None] = [b"one", None, b"", b"\x00\xff", b"five" * 1000]
lists = st.lists(st.none() | st.binary(max_size=6), max_size=12)


def places(*indexes: int) -> np.ndarray:
    return np.array(indexes, np.int64)


@given(lists, lists, st.slices(12), st.data())
def test_it_is_the_list_it_was_made_of(
    first: Sequence[bytes | None], second: Sequence[bytes | None], cut: slice, data: st.DataObject
) -> None:
    joined, strings = ByteColumn.concat([ByteColumn.of(first), ByteColumn.of(second)]), [*first, *second]
    assert list(joined) == strings == [joined[i] for i in range(len(strings))]
    part, expected = joined[cut], strings[cut]
    assert (list(part), len(part), part.size) == (expected, len(expected), sum(len(s or b"") for s in expected))
    assert ((None in part), (b"\x00" in part)) == ((None in expected), (b"\x00" in expected))
    assert part.arrow().to_pylist() == part.arrow(pa.large_binary()).to_pylist() == expected
    assert list(ByteColumn.of_arrow(part.arrow())) == expected
    if expected:
        rows = data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=6))
        assert list(part.take(places(*rows))) == [expected[i] for i in rows]


def test_rows_are_counted_from_both_ends_and_none_stands_outside() -> None:
    column = ByteColumn.of(STRINGS)
    assert (column[-2], column[1], column[0]) == (b"\x00\xff", None, b"one")
    for row in (5, -6):
        with pytest.raises(IndexError, match=f"row {row} of 5"):
            column[row]


def test_neighbours_share_the_bytes_and_a_column_is_not_made_again() -> None:
    column = ByteColumn.of(STRINGS)
    assert ByteColumn.of(column) is column
    assert column.take(places(1, 2, 3)).data is column.data
    assert np.shares_memory(np.frombuffer(column[2:].arrow().buffers()[2], np.uint8), column.data)


def test_bytes_behind_an_arrow_null_are_left_out() -> None:
    array = pa.Array.from_buffers(
        pa.binary(), 2, [pa.py_buffer(b"\x02"), pa.py_buffer(np.array([0, 2, 3], np.int32)), pa.py_buffer(b"abc")]
    )
    column = ByteColumn.of_arrow(pa.chunked_array([array, pa.array([b"d", None, b"ef"])]))
    assert (list(column), column.size) == ([None, b"c", b"d", None, b"ef"], 4)


def test_a_slice_of_an_arrow_array_is_no_more_than_its_rows() -> None:
    array = pa.array(STRINGS, pa.binary()).slice(1, 3)
    assert list(ByteColumn.of_arrow(array)) == STRINGS[1:4] == list(ByteColumn.of_arrow(pa.array([], pa.binary()))) + STRINGS[1:4]


def test_more_bytes_than_binary_holds_come_as_large_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    column = ByteColumn.of(STRINGS)
    monkeypatch.setattr(byte_column, "MOST_OF_BINARY", 8)
    assert (column.arrow().type, column[:4].arrow().type) == (pa.large_binary(), pa.binary())
    assert column.arrow().to_pylist() == STRINGS


def test_offsets_go_beyond_what_an_int32_counts() -> None:
    far = 3 << 31
    data = np.broadcast_to(np.uint8(7), far + 2)  # one byte, seen as often
    column = ByteColumn(data, np.array([0, far, far + 2], np.int64))
    assert (column.size, column[1], list(column[1:]), column[1:].arrow().to_pylist()) == (
        far + 2,
        b"\x07\x07",
        [b"\x07\x07"],
        [b"\x07\x07"],
    )
