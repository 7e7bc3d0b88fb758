"""Arrow columns become framed Avro values, byte for byte what `record_codec` writes, many rows at once.

The program of `avro_program` that reads a schema also says how to write it: one pass measures each record, one writes.
A nullable group (payment, card features) is there where any of its fields is; a column that the table lacks is null.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from schema_registry.avro_program import Column, Op, Program, compile_program
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import TIME
from schema_registry.errors import SchemaError
from schema_registry.record_codec import MAX_MICROS, MIN_MICROS
from schema_registry.wire import frame

_Ints = npt.NDArray[np.int64]
_Bytes = npt.NDArray[np.uint8]

ROWS_AT_ONCE = 1 << 16  # keeps the scratch arrays near 100 MB for the widest schema
_INT32 = (-(1 << 31), (1 << 31) - 1)


class ColumnEncoder:
    """Encodes tables of one contract in the Confluent wire format, with its latest schema.

    Args:
        catalog: schema ids ↔ contracts.
        name: the contract.

    Raises:
        UnsupportedSchema: the schema holds arrays or maps; encode those with `RecordCodec`.
    """

    def __init__(self, catalog: SchemaCatalog, name: str = "TransactionRecorded") -> None:
        schema_id = catalog.latest_id(name)
        self._name = name
        self._header = np.frombuffer(frame(schema_id, b""), np.uint8)
        self._program = compile_program(catalog.version(schema_id).schema)
        self._unions = _unions(self._program)
        self._paths = {column.path for column in self._program.columns}

    def encode(self, table: pa.Table) -> list[bytes]:
        """One framed value a row, in the order of the rows.

        Args:
            table: columns named by the flattened paths of the schema; those it lacks are null.

        Raises:
            SchemaError: a column that the schema does not know, a value of another type, or a null where the schema
                has none; the message names the column and the row.
        """
        unknown = sorted(set(table.column_names) - self._paths)
        if unknown:
            raise SchemaError(f"{self._name}: expected columns of the schema, found {unknown}")
        values: list[bytes] = []
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            values += self._encode(table.slice(start, ROWS_AT_ONCE), start)
        return values

    def _encode(self, table: pa.Table, first_row: int) -> list[bytes]:
        n = table.num_rows
        arrays = _Arrays(self._program, n)
        for column in self._program.columns:
            if column.path in table.column_names:
                try:
                    arrays.fill(column, _contiguous(table.column(column.path)))
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
                    raise SchemaError(f"{self._name}.{column.path}: expected {column.schema}: {error}") from error
                except _BadValue as error:
                    raise SchemaError(f"{self._name}.{column.path}: row {first_row + error.row}: {error}") from None
        code, present = self._presence(arrays.valid, n, first_row)
        buffer, starts, lengths = arrays.spans()
        offsets = np.zeros(n + 1, np.int64)
        inputs = (code, present, arrays.longs, arrays.doubles.view(np.uint64), buffer, starts, lengths, arrays.decimals)
        _measure(self._header.shape[0], *inputs, offsets)
        np.cumsum(offsets, out=offsets)
        out = np.empty(int(offsets[-1]), np.uint8)
        _write(self._header, *inputs, offsets, out)
        whole, places = out.tobytes(), offsets.tolist()
        return [whole[start:end] for start, end in pairwise(places)]

    def _presence(self, valid: _Bytes, n: int, first_row: int) -> tuple[_Ints, _Bytes]:
        """The code with each union's `slot` naming its row of flags [unions, n], and those flags."""
        code = self._program.code.copy()
        present = np.zeros((max(1, len(self._unions)), n), np.uint8)
        for index, (at, columns) in enumerate(self._unions):
            code[at, 1] = index
            for valid_index in columns:
                np.bitwise_or(present[index], valid[valid_index], out=present[index])
        for column in self._program.columns:
            group = self._group_of(column)
            missing = valid[column.valid] == 0 if group is None else present[group] > valid[column.valid]
            if missing.any():
                row = first_row + int(np.argmax(missing))
                raise SchemaError(f"{self._name}.{column.path}: expected a value, found null at row {row}")
        return code, present

    def _group_of(self, column: Column) -> int | None:
        """The innermost union around a column: it must have a value wherever that one is not null."""
        inside = [index for index, (_, columns) in enumerate(self._unions) if column.valid in columns]
        return inside[-1] if inside else None


class _BadValue(Exception):
    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


class _Arrays:
    """A table's columns as the flat arrays of the program: shapes as in `run_program`."""

    def __init__(self, program: Program, n: int) -> None:
        self.n = n
        self.longs = np.zeros((max(1, program.longs), n), np.int64)
        self.doubles = np.zeros((max(1, program.doubles), n), np.float64)
        self.decimals = np.zeros((max(1, program.decimals), n, 2), np.uint64)
        self.valid = np.zeros((len(program.columns), n), np.uint8)
        self._starts = np.zeros((max(1, program.spans), n), np.int64)
        self._lengths = np.zeros((max(1, program.spans), n), np.int64)
        self._parts: list[_Bytes] = []
        self._total = 0

    def fill(self, column: Column, array: pa.Array) -> None:
        if column.op in (Op.BYTES, Op.FIXED):
            self._spans(column, array)
        elif column.op is Op.DECIMAL:
            array = array.cast(pa.decimal128(column.schema["precision"], column.schema["scale"]))
            words = np.frombuffer(array.buffers()[1], np.uint64)[2 * array.offset : 2 * (array.offset + self.n)]
            self.decimals[column.slot] = words.reshape(-1, 2)
            _check_digits(array, self.decimals[column.slot])
        elif column.op in (Op.DOUBLE, Op.FLOAT):
            self._doubles(column, array)
        else:
            self._longs(column, array)
        self.valid[column.valid] = np.asarray(array.is_valid())

    def spans(self) -> tuple[_Bytes, _Ints, _Ints]:
        """All text in one buffer, with places and lengths [slots, n]."""
        buffer = np.concatenate(self._parts) if self._parts else np.zeros(0, np.uint8)
        return buffer, self._starts, self._lengths

    def _spans(self, column: Column, array: pa.Array) -> None:
        if column.op is Op.FIXED:
            array = array.cast(pa.binary(column.schema["size"])).cast(pa.large_binary())
        else:
            array = array.cast(pa.large_string() if column.schema == "string" else pa.large_binary())
        offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + self.n + 1]
        data = array.buffers()[2]
        text = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
        self._parts.append(text[offsets[0] : offsets[-1]])
        self._starts[column.slot] = offsets[:-1] + (self._total - offsets[0])
        self._lengths[column.slot] = np.diff(offsets)
        self._total += int(offsets[-1] - offsets[0])

    def _doubles(self, column: Column, array: pa.Array) -> None:
        if not pa.types.is_floating(array.type) and not pa.types.is_integer(array.type):
            raise pa.ArrowTypeError(f"found {array.type}")
        filled = pc.fill_null(array.cast(pa.float64()), 0.0)
        self.doubles[column.slot] = filled.to_numpy(zero_copy_only=False)
        if column.op is Op.FLOAT:  # four bytes on the wire: their bits ride in the low half
            bits = self.doubles[column.slot].astype(np.float32).view(np.uint32)
            self.doubles[column.slot] = bits.astype(np.uint64).view(np.float64)

    def _longs(self, column: Column, array: pa.Array) -> None:
        if column.op is Op.ENUM:
            array = array.cast(pa.string())
            indexes = pc.index_in(array, value_set=pa.array(column.schema["symbols"]))
            unknown = np.asarray(pc.and_(array.is_valid(), indexes.is_null()))
            if unknown.any():
                row = int(np.argmax(unknown))
                raise _BadValue(row, f"expected one of {column.schema['symbols']}, found {array[row].as_py()[:40]!r}")
            self.longs[column.slot] = pc.fill_null(indexes, 0).to_numpy(zero_copy_only=False)
            return
        if column.op is Op.BOOLEAN:
            self.longs[column.slot] = pc.fill_null(array.cast(pa.bool_()), False).to_numpy(zero_copy_only=False)
            return
        is_time = isinstance(column.schema, dict)
        if is_time and (not pa.types.is_timestamp(array.type) or array.type.tz is None):
            raise pa.ArrowTypeError(f"a time with its zone is needed, found {array.type}")
        numbers = pc.fill_null((array.cast(TIME) if is_time else array).cast(pa.int64()), 0)
        values = numbers.to_numpy(zero_copy_only=False)
        low, high = (MIN_MICROS, MAX_MICROS) if is_time else _INT32 if column.schema == "int" else (None, None)
        if low is not None and high is not None:
            outside = (values < low) | (values > high)
            if outside.any():
                row = int(np.argmax(outside))
                raise _BadValue(row, f"expected {low} to {high}, found {values[row]}")
        self.longs[column.slot] = values


def _contiguous(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        array = column.chunk(0)
    else:
        array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _check_digits(array: pa.Array, words: npt.NDArray[np.uint64]) -> None:
    # Arrow builds decimals with more digits than their type from raw buffers without a word; the wire has none.
    high = words[:, 1].view(np.int64)
    limit = 10**38 >> 64
    for row in np.flatnonzero((high >= limit) | (high < -limit)).tolist():
        unscaled = (int(high[row]) << 64) | int(words[row, 0])
        if array[row].is_valid and abs(unscaled) >= 10**38:
            raise _BadValue(row, "expected a decimal of at most 38 digits")


def _unions(program: Program) -> list[tuple[int, frozenset[int]]]:
    """Every union of the code, outer before inner: its place and the validity flags of the columns within."""
    code = program.code
    found = []
    for at in range(code.shape[0]):
        if code[at, 0] == Op.UNION:
            inside = code[at + 1 : at + 1 + code[at, 4]]
            found.append((at, frozenset(inside[inside[:, 0] != Op.UNION, 2].tolist())))
    return found


@njit(cache=True, nogil=True, boundscheck=False, inline="always")
def _zigzag(value):  # type: ignore[no-untyped-def]
    return (np.uint64(value) << np.uint64(1)) ^ np.uint64(value >> np.int64(63))


@njit(cache=True, nogil=True, boundscheck=False)
def _long_size(value):  # type: ignore[no-untyped-def]
    word = _zigzag(value)
    size = 1
    while word > np.uint64(127):
        word >>= np.uint64(7)
        size += 1
    return size


@njit(cache=True, nogil=True, boundscheck=False)
def _put_long(out, at, value):  # type: ignore[no-untyped-def]
    word = _zigzag(value)
    while word > np.uint64(127):
        out[at] = np.uint8((word & np.uint64(127)) | np.uint64(128))
        word >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(word)
    return at + 1


@njit(cache=True, nogil=True, boundscheck=False)
def _decimal_size(low, high):  # type: ignore[no-untyped-def]
    """Bytes of the shortest two's-complement form, with room for the sign bit."""
    if high >> np.uint64(63) != 0:
        low = ~low
        high = ~high
    word = high
    size = 9
    if high == 0:
        word = low
        size = 1
    while word > np.uint64(127):
        word >>= np.uint64(8)
        size += 1
    return size


@njit(cache=True, nogil=True, boundscheck=False)
def _measure(  # type: ignore[no-untyped-def]
    header, code, present, longs, doubles, buffer, starts, lengths, decimals, offsets
):
    """Bytes of record i into offsets[i + 1]; shapes as in `_write`."""
    for i in range(offsets.shape[0] - 1):
        size = header
        step = 0
        while step < code.shape[0]:
            op = code[step, 0]
            slot = code[step, 1]
            if op == 8:
                size += 1
                if present[slot, i] == 0:
                    step += code[step, 4]
            elif op == 4:
                size += _long_size(lengths[slot, i]) + lengths[slot, i]
            elif op == 6:
                size += 1 + _decimal_size(decimals[slot, i, 0], decimals[slot, i, 1])
            elif op == 0 or op == 7:
                size += _long_size(longs[slot, i])
            elif op == 2:
                size += 8
            elif op == 3:
                size += 4
            elif op == 1:
                size += 1
            else:
                size += code[step, 3]
            step += 1
        offsets[i + 1] = size


@njit(cache=True, nogil=True, boundscheck=False)
def _write(  # type: ignore[no-untyped-def]
    header, code, present, longs, doubles, buffer, starts, lengths, decimals, offsets, out
):
    """Write record i to out[offsets[i]:offsets[i + 1]].

    Shapes: header [h] uint8, code [instructions, 5], present [unions, n] uint8, longs [slots, n] int64, doubles
    [slots, n] uint64 (their bits), starts and lengths [slots, n] int64, decimals [slots, n, 2] uint64 (low, high).
    """
    for i in range(offsets.shape[0] - 1):
        at = offsets[i]
        for k in range(header.shape[0]):
            out[at + k] = header[k]
        at += header.shape[0]
        step = 0
        while step < code.shape[0]:
            op = code[step, 0]
            slot = code[step, 1]
            if op == 8:
                is_present = present[slot, i] != 0
                branch = 1 - code[step, 3] if is_present else code[step, 3]
                out[at] = np.uint8(2 * branch)
                at += 1
                if not is_present:
                    step += code[step, 4]
            elif op == 4 or op == 5:
                size = lengths[slot, i]
                if op == 4:
                    at = _put_long(out, at, size)
                start = starts[slot, i]
                for k in range(size):
                    out[at + k] = buffer[start + k]
                at += size
            elif op == 6:
                low = decimals[slot, i, 0]
                high = decimals[slot, i, 1]
                size = _decimal_size(low, high)
                out[at] = np.uint8(2 * size)
                at += 1
                for k in range(size):
                    shift = 8 * (size - 1 - k)
                    if shift >= 64:
                        out[at + k] = np.uint8((high >> np.uint64(shift - 64)) & np.uint64(255))
                    else:
                        out[at + k] = np.uint8((low >> np.uint64(shift)) & np.uint64(255))
                at += size
            elif op == 2 or op == 3:
                word = doubles[slot, i]
                width = 8 if op == 2 else 4
                for k in range(width):
                    out[at + k] = np.uint8((word >> np.uint64(8 * k)) & np.uint64(255))
                at += width
            elif op == 1:
                out[at] = np.uint8(longs[slot, i])
                at += 1
            else:
                at = _put_long(out, at, longs[slot, i])
            step += 1
