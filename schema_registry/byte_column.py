"""Many byte strings in one buffer: a column of keys, values or header contents that no loop of Python's has to touch.

It is a sequence of `bytes | None`, so that whoever looks at single records sees what a list would show; whoever takes all of
them at once (the decoder, the archive) reads the buffer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MOST_OF_BINARY = (1 << 31) - 1
"""Bytes that one Arrow array of `binary` can hold: its offsets are int32."""


@dataclass(frozen=True, slots=True, eq=False)
class ByteColumn(Sequence[bytes | None]):
    """Byte string i is `data[offsets[i]:offsets[i + 1]]`.

    Args:
        data: uint8 [any], read-only from now on; bytes that no row names may stand before the first row and after the last.
        offsets: int64 [rows + 1], ascending.
        is_null: bool [rows], where there is no string at all; none where every row has one. A null row has no bytes.
    """

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    is_null: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        # Rows are cut off and handed on without a copy. It also makes all of them one kind of array, which numba compiles for once.
        self.data.flags.writeable = False

    @classmethod
    def of(cls, strings: Sequence[bytes | None]) -> ByteColumn:
        """A sequence as a column: itself where it is one."""
        if isinstance(strings, ByteColumn):
            return strings
        parts = [string or b"" for string in strings]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=offsets[1:])
        is_null = np.fromiter((string is None for string in strings), np.bool_, len(parts)) if None in strings else None
        return cls(np.frombuffer(b"".join(parts), np.uint8), offsets, is_null)

    @classmethod
    def of_arrow(cls, array: pa.Array | pa.ChunkedArray) -> ByteColumn:
        """An Arrow array of binary values; copies no bytes where it is one piece."""
        if isinstance(array, pa.ChunkedArray):
            array = array.cast(pa.large_binary()).combine_chunks()
        array = array.cast(pa.large_binary())
        _, offsets, data = array.buffers()
        places = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1] if len(array) else np.zeros(1, np.int64)
        content = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
        return cls(content, places, np.asarray(array.is_null()) if array.null_count else None)._without_null_bytes()

    @classmethod
    def concat(cls, columns: Sequence[ByteColumn]) -> ByteColumn:
        """Columns one after another."""
        if len(columns) == 1:
            return columns[0]
        sizes = [0, *np.cumsum([column.size for column in columns]).tolist()]
        offsets = [column.offsets[1:] + (at - column.offsets[0]) for column, at in zip(columns, sizes, strict=False)]
        nulls = [column.is_null if column.is_null is not None else np.zeros(len(column), np.bool_) for column in columns]
        return cls(
            np.concatenate([column.data[column.offsets[0] : column.offsets[-1]] for column in columns]),
            np.concatenate([np.zeros(1, np.int64), *offsets]),
            np.concatenate(nulls) if any(column.is_null is not None for column in columns) else None,
        )

    @property
    def size(self) -> int:
        """Bytes of all rows together."""
        return int(self.offsets[-1] - self.offsets[0])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> ByteColumn: ...

    def __getitem__(self, index: int | slice) -> bytes | ByteColumn | None:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            stop = max(start, stop)
            return ByteColumn(self.data, self.offsets[start : stop + 1], None if self.is_null is None else self.is_null[start:stop])
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        if self.is_null is not None and self.is_null[at]:
            return None
        return self.data[self.offsets[at] : self.offsets[at + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes | None]:
        first = int(self.offsets[0])
        content = self.data[first : self.offsets[-1]].tobytes()
        places = (self.offsets - first).tolist()
        if self.is_null is None:
            return map(content.__getitem__, map(slice, places[:-1], places[1:]))
        return (
            None if null else content[start:end] for start, end, null in zip(places[:-1], places[1:], self.is_null.tolist(), strict=True)
        )

    def __contains__(self, value: object) -> bool:
        if value is None:
            return self.is_null is not None and bool(self.is_null.any())
        return any(value == string for string in self)

    def take(self, indexes: npt.NDArray[np.int64]) -> ByteColumn:
        """The rows at `indexes`, in that order; a run of neighbours shares the bytes."""
        if len(indexes) and int(indexes[-1]) - int(indexes[0]) == len(indexes) - 1 and bool((np.diff(indexes) == 1).all()):
            return self[int(indexes[0]) : int(indexes[-1]) + 1]
        return ByteColumn.of_arrow(self.arrow(pa.large_binary()).take(pa.array(indexes, pa.int64())))

    def arrow(self, kind: pa.DataType | None = None) -> pa.Array:
        """As an Arrow array that shares the bytes.

        Args:
            kind: `binary` (the default) or `large_binary`; a column whose bytes do not fit `binary` comes as `large_binary`.
        """
        valid = None if self.is_null is None else pa.py_buffer(np.packbits(~self.is_null, bitorder="little"))
        first = int(self.offsets[0])
        if kind == pa.large_binary() or self.size > MOST_OF_BINARY:
            content = pa.py_buffer(np.ascontiguousarray(self.data))
            return pa.Array.from_buffers(pa.large_binary(), len(self), [valid, pa.py_buffer(np.ascontiguousarray(self.offsets)), content])
        content = pa.py_buffer(np.ascontiguousarray(self.data[first : self.offsets[-1]]))
        places = (self.offsets - first).astype(np.int32)
        return pa.Array.from_buffers(pa.binary(), len(self), [valid, pa.py_buffer(places), content])

    def _without_null_bytes(self) -> ByteColumn:
        """The same rows: Arrow lets a null have bytes, a column of ours does not."""
        if self.is_null is None or not bool(((self.offsets[1:] - self.offsets[:-1])[self.is_null] > 0).any()):
            return self
        return ByteColumn.of(list(self))
