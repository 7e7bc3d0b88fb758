"""Avro in columns: batches of framed records become Arrow tables, the fields that a reader names and no others.

Gives the same values as `record_codec`; a record that is no value of its schema is reported by index and the rest is decoded.
Schemas that the machine of `avro_program` does not read (arrays) go record by record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schema_registry.avro_program import (
    Column,
    Failure,
    Op,
    Program,
    UnsupportedSchema,
    compile_program,
    gather_spans,
    run_program,
)
from schema_registry.byte_column import ByteColumn
from schema_registry.catalog import SchemaCatalog
from schema_registry.contracts import contracts
from schema_registry.errors import UndecodableRecord
from schema_registry.record_codec import RecordCodec
from schema_registry.wire import HEADER_LENGTH, schema_id_of

_Ints = npt.NDArray[np.int64]
DECIMAL = pa.decimal128(38, 18)
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A record of the batch that could not be decoded: its index, a stable reason, a sentence."""

    index: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DecodedTable:
    """Decoded records of one contract: `indexes` [rows] are their places in the batch, ascending."""

    table: pa.Table
    indexes: _Ints


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """What became of a batch: a table for each contract met, and what failed."""

    tables: Mapping[str, DecodedTable]
    failures: tuple[Undecodable, ...]


class ColumnCodec:
    """Decodes batches for one reader.

    Args:
        catalog: schema ids ↔ contracts.
        reads: contract → the leaf fields wanted (an empty tuple for all); records of other contracts are skipped. None for
            every contract in full.
        mark: a top-level field whose first byte's place in the record (from the value's start) becomes column `@<mark>`.
    """

    def __init__(self, catalog: SchemaCatalog, reads: Mapping[str, tuple[str, ...]] | None = None, mark: str | None = None) -> None:
        self._catalog = catalog
        self._reads = reads
        self._mark = mark
        self._records = RecordCodec(catalog)
        self._programs: dict[int, Program | None] = {}

    def decode(self, values: Sequence[bytes | None]) -> DecodedBatch:
        """Decode framed values; a `ByteColumn` is read where it lies.

        Returns:
            One table a contract, rows in the order of `values`; columns in the order of the latest schema.
        """
        frames = _Frames.of(values)
        failures = [_failure(index, values[index]) for index in np.flatnonzero(frames.ids < 0).tolist()]
        parts: dict[str, list[DecodedTable]] = {}
        for schema_id in np.unique(frames.ids[frames.ids >= 0]).tolist():
            indexes = np.flatnonzero(frames.ids == schema_id)
            try:
                name = self._catalog.version(schema_id).contract.name
            except UndecodableRecord as error:
                failures += [Undecodable(int(i), error.reason, str(error)) for i in indexes]
                continue
            if self._reads is not None and name not in self._reads:
                continue
            part, failed = self._decode_version(schema_id, name, frames, indexes, values)
            failures += failed
            parts.setdefault(name, []).append(part)
        tables = {name: _in_order(found) for name, found in parts.items()}
        return DecodedBatch(tables, tuple(sorted(failures, key=lambda failure: failure.index)))

    def _decode_version(
        self, schema_id: int, name: str, frames: _Frames, indexes: _Ints, values: Sequence[bytes | None]
    ) -> tuple[DecodedTable, list[Undecodable]]:
        wanted = self._wanted(name)
        if schema_id not in self._programs:
            try:
                self._programs[schema_id] = compile_program(self._catalog.version(schema_id).schema, wanted, self._mark)
            except UnsupportedSchema:
                self._programs[schema_id] = None
        program = self._programs[schema_id]
        if program is None:
            return self._one_by_one(name, wanted, indexes, values)
        return _run(program, name, wanted, self._mark, frames, indexes)

    def _wanted(self, name: str) -> frozenset[str] | None:
        fields = self._reads.get(name, ()) if self._reads is not None else ()
        return frozenset(fields) or None

    def _one_by_one(
        self, name: str, wanted: frozenset[str] | None, indexes: _Ints, values: Sequence[bytes | None]
    ) -> tuple[DecodedTable, list[Undecodable]]:
        rows: list[dict[str, Any]] = []
        kept: list[int] = []
        failures = []
        for index in indexes.tolist():
            try:
                rows.append(flatten(self._records.decode(values[index])[1]))
                kept.append(index)
            except UndecodableRecord as error:
                failures.append(Undecodable(index, error.reason, str(error)))
        table = pa.Table.from_pylist(rows, schema=arrow_schema(name, wanted))
        return DecodedTable(table, np.array(kept, np.int64)), failures


def schema_ids(values: ByteColumn) -> _Ints:
    """The schema id that each value is framed with, -1 where it is not framed: int64 [rows]."""
    starts, lengths = values.offsets[:-1], np.diff(values.offsets)
    ids = np.full(len(values), -1, np.int64)
    framed = np.flatnonzero(lengths >= HEADER_LENGTH)
    framed = framed[values.data[starts[framed]] == 0]
    at = starts[framed]
    ids[framed] = sum(values.data[at + k].astype(np.int64) << (8 * (4 - k)) for k in range(1, HEADER_LENGTH))
    return ids


def arrow_schema(name: str, wanted: frozenset[str] | None = None) -> pa.Schema:
    """The Arrow schema of a contract's latest version, nested groups flattened with dots."""
    return pa.schema(
        [pa.field(path, kind, nullable=True) for path, kind in _leaves(contracts()[name].latest, "") if wanted is None or path in wanted]
    )


def flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A decoded record with its nested groups flattened with dots; a missing group gives no keys."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


@dataclass(frozen=True, slots=True)
class _Frames:
    """A batch as one buffer: record i lies in buffer[starts[i]:ends[i]], ids[i] is its schema id or -1."""

    buffer: npt.NDArray[np.uint8]
    starts: _Ints
    ends: _Ints
    ids: _Ints

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> _Frames:
        column = ByteColumn.of(values)
        return cls(column.data, column.offsets[:-1], column.offsets[1:], schema_ids(column))


def _failure(index: int, value: bytes | None) -> Undecodable:
    try:
        schema_id_of(value)
    except UndecodableRecord as error:
        return Undecodable(index, error.reason, str(error))
    raise AssertionError("a framed value was taken for an unframed one")


def _run(
    program: Program, name: str, wanted: frozenset[str] | None, mark: str | None, frames: _Frames, indexes: _Ints
) -> tuple[DecodedTable, list[Undecodable]]:
    n = len(indexes)
    starts = frames.starts[indexes] + HEADER_LENGTH
    longs = np.zeros((program.longs, n), np.int64)
    doubles = np.zeros((program.doubles, n), np.float64)
    span_starts = np.zeros((program.spans, n), np.int64)
    span_lengths = np.zeros((program.spans, n), np.int64)
    decimals = np.zeros((program.decimals, n, 2), np.uint64)
    valid = np.zeros((len(program.columns), n), np.uint8)
    errors = np.zeros(n, np.uint8)
    run_program(
        frames.buffer, starts, frames.ends[indexes], program.code,
        longs, doubles, span_starts, span_lengths, decimals, valid, errors,
    )  # fmt: skip
    arrays: dict[str, pa.Array] = {}
    for column in program.columns:
        flags = valid[column.valid]
        if column.op in (Op.BYTES, Op.FIXED):
            arrays[column.path] = _spans(frames.buffer, span_starts[column.slot], span_lengths[column.slot], flags, column, errors)
        elif column.op is Op.DECIMAL:
            arrays[column.path] = pa.Array.from_buffers(
                DECIMAL, n, [_bitmap(flags), pa.py_buffer(np.ascontiguousarray(decimals[column.slot]))]
            )
        elif column.op in (Op.DOUBLE, Op.FLOAT):
            kind = pa.float64() if column.op is Op.DOUBLE else pa.float32()
            arrays[column.path] = pa.array(doubles[column.slot], mask=flags == 0).cast(kind)
        else:
            arrays[column.path] = _longs(longs[column.slot], flags, column)
    schema = arrow_schema(name, wanted)
    columns = [arrays[f.name] if f.name in arrays else pa.nulls(n, f.type) for f in schema]
    names = schema.names
    if mark is not None and f"@{mark}" in arrays:  # counted from the body; readers count from the value
        names = [*names, f"@{mark}"]
        columns.append(pa.array(np.asarray(arrays[f"@{mark}"]) + HEADER_LENGTH))
    table = pa.Table.from_arrays(columns, names=names)
    bad = np.flatnonzero(errors)
    failures = [Undecodable(int(indexes[i]), Failure(int(errors[i])).reason, _explain(name, Failure(int(errors[i])))) for i in bad]
    if len(bad):
        good = np.flatnonzero(errors == 0)
        table, indexes = table.take(pa.array(good)), indexes[good]
    return DecodedTable(table, indexes), failures


def _explain(name: str, failure: Failure) -> str:
    return {
        Failure.TRUNCATED: f"{name}: the record ends too early",
        Failure.MALFORMED: f"{name}: a value outside its type",
        Failure.TRAILING: f"{name}: bytes follow the record",
    }[failure]


def _bitmap(flags: npt.NDArray[np.uint8]) -> pa.Buffer | None:
    return None if flags.all() else pa.py_buffer(np.packbits(flags, bitorder="little"))


def _longs(values: _Ints, flags: npt.NDArray[np.uint8], column: Column) -> pa.Array:
    mask = None if flags.all() else flags == 0
    if column.op is Op.ENUM:
        symbols = pa.array(column.schema["symbols"])
        return symbols.take(pa.array(values, mask=mask))
    if column.op is Op.BOOLEAN:
        return pa.array(values != 0, mask=mask)
    if column.op is Op.MARK:
        return pa.array(values)
    kind = _leaf_type(column.schema)
    return pa.array(values, mask=mask).cast(kind) if kind != pa.int64() else pa.array(values, mask=mask)


def _spans(
    buffer: npt.NDArray[np.uint8],
    starts: _Ints,
    lengths: _Ints,
    flags: npt.NDArray[np.uint8],
    column: Column,
    errors: npt.NDArray[np.uint8],
) -> pa.Array:
    n = len(starts)
    lengths = np.where((flags != 0) & (errors == 0), lengths, 0)  # a failed record may name bytes that are not its own
    total = int(lengths.sum())
    kind = _leaf_type(column.schema)
    is_large = total >= 1 << 31
    offsets = np.zeros(n + 1, np.int64 if is_large else np.int32)
    out = np.empty(total, np.uint8)
    is_ascii = np.ones(n, np.bool_)
    gather_spans(buffer, starts, lengths, offsets, out, is_ascii)
    if kind == pa.string():
        no_text = [i for i in np.flatnonzero(~is_ascii).tolist() if not _is_utf8(out[offsets[i] : offsets[i + 1]].tobytes())]
        if no_text:
            errors[no_text] = Failure.MALFORMED
            # Rows that are no text are dropped by the caller; blank them so that the array itself is valid.
            return _spans(buffer, starts, lengths, flags, column, errors)
    if isinstance(column.schema, dict) and column.schema["type"] == "fixed":
        return pa.Array.from_buffers(pa.binary(), n, [_bitmap(flags), pa.py_buffer(offsets), pa.py_buffer(out)]).cast(kind)
    stored = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}[kind] if is_large else kind
    return pa.Array.from_buffers(stored, n, [_bitmap(flags), pa.py_buffer(offsets), pa.py_buffer(out)])


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _leaves(schema: dict[str, Any], prefix: str) -> Iterable[tuple[str, pa.DataType]]:
    for field in schema["fields"]:
        branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
        inner = next(branch for branch in branches if branch != "null")
        if isinstance(inner, dict) and inner["type"] == "record":
            yield from _leaves(inner, f"{prefix}{field['name']}.")
        else:
            yield prefix + field["name"], _leaf_type(inner)


def _leaf_type(schema: Any) -> pa.DataType:
    if isinstance(schema, str):
        return {
            "long": pa.int64(), "int": pa.int32(), "boolean": pa.bool_(), "double": pa.float64(),
            "float": pa.float32(), "string": pa.string(), "bytes": pa.binary(),
        }[schema]  # fmt: skip
    match schema["type"]:
        case "enum":
            return pa.string()
        case "fixed":
            return pa.binary(schema["size"])
        case "bytes":
            return DECIMAL
        case "long":
            return TIME
        case "array":
            items = schema["items"]
            return pa.list_(pa.struct(list(_leaves(items, ""))) if isinstance(items, dict) else _leaf_type(items))
    raise UnsupportedSchema(str(schema["type"]))


def _in_order(parts: list[DecodedTable]) -> DecodedTable:
    if len(parts) == 1:
        return parts[0]
    indexes = np.concatenate([part.indexes for part in parts])
    order = np.argsort(indexes, kind="stable")
    table = pa.concat_tables([part.table for part in parts], promote_options="permissive").combine_chunks()
    return DecodedTable(table.take(pa.array(order)), indexes[order])
