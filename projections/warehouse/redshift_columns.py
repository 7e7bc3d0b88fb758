"""What each column is on its way into Redshift and out of it: in a Parquet file, in the staging table, in SQL.

COPY takes columns of a Parquet file by their order and knows neither TIMESTAMPTZ, SUPER nor VARBYTE there as we need them: times
travel as UTC without a zone, lists as JSON text, bytes as hexadecimal text, and become what the table holds in its INSERT.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy_redshift.dialect import RedshiftDialect

from projections.protocol import EventBatch, Rejection
from projections.warehouse.canonical import AMOUNTS, canonical_rows
from projections.warehouse.facts import FACTS
from projections.warehouse.tables import REDSHIFT_TEXT_BYTES, warehouse_metadata
from schema_registry.column_codec import DECIMAL, TIME

_BARE_TIME = pa.timestamp("us")
_LONGEST_AMOUNT = 64  # characters; 38 digits, a sign and a point need 40
_TOO_LONG = "too_long_for_redshift"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its type in the staging table, its type in Arrow, the SQL that turns one into the other and back.

    `limit` is the most bytes that fit, for text and bytes.
    """

    name: str
    stage_type: str
    arrow_type: pa.DataType
    into: str
    out: str
    limit: int | None
    encode: Callable[[pa.ChunkedArray], pa.Array | pa.ChunkedArray]
    decode: Callable[[Sequence[Any]], pa.Array]


@cache
def columns_of(table: str) -> tuple[Column, ...]:
    """Every column of a table, in the order of the layout."""
    return tuple(_column(column) for column in warehouse_metadata().tables[table].columns)


@cache
def staged_columns(table: str) -> tuple[Column, ...]:
    """Those that a file carries: all but `log_topic`, which is the table's default."""
    return tuple(column for column in columns_of(table) if column.name != "log_topic")


def file_rows(table: str, rows: pa.Table) -> pa.Table:
    """Rows of one fact as a file carries them: every column, in the staging table's order, null where the fact has none."""
    n = rows.num_rows
    arrays = []
    for column in staged_columns(table):
        has_it = column.name in rows.column_names
        arrays.append(column.encode(rows[column.name]).cast(column.arrow_type) if has_it else pa.nulls(n, column.arrow_type))
    return pa.table(arrays, names=[column.name for column in staged_columns(table)])


def read_rows(table: str, rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Canonical rows of what the driver gave for the `out` expressions of `columns_of`."""
    values = zip(*rows, strict=True)
    columns = {column.name: column.decode(list(found)) for column, found in zip(columns_of(table), values, strict=True)}
    return canonical_rows(table, pa.table(columns))


def too_long(batch: EventBatch) -> Iterator[Rejection]:
    """Rows with text or bytes longer than their column: the first such column of each. Redshift would refuse the whole COPY."""
    for fact in FACTS:
        events = batch.tables.get(fact.event_type)
        if events is None:
            continue
        limits = {column.name: column.limit for column in columns_of(fact.table) if column.limit is not None}
        for name, field in fact.fields.items():
            limit = limits.get(name)
            # A list is not a field of its own; card features are 28 numbers and fit.
            if limit is None or events[field].num_chunks == 0:
                continue
            over = pc.greater(pc.binary_length(events[field]), limit)
            if pc.any(over, min_count=0).as_py():
                places = events.select(["_topic", "_partition", "_offset"]).filter(pc.fill_null(over, False))
                for place in places.to_pylist():
                    message = f"{fact.event_type}: expected at most {limit} bytes in {field}, found more"
                    yield Rejection(place["_topic"], place["_partition"], place["_offset"], _TOO_LONG, message)


def _column(column: sa.Column[Any]) -> Column:
    name, kind = column.name, column.type
    if isinstance(kind, sa.TIMESTAMP):
        return Column(
            name, "TIMESTAMP", _BARE_TIME, f"{name} AT TIME ZONE 'UTC'", name, None, _without_zone,
            lambda values: pa.array(values, TIME),
        )  # fmt: skip
    text = f"VARCHAR({REDSHIFT_TEXT_BYTES})"
    if isinstance(kind, postgresql.ARRAY):
        return Column(name, text, pa.string(), f"JSON_PARSE({name})", f"JSON_SERIALIZE({name})", None, _as_json, _from_json)
    if isinstance(kind, sa.LargeBinary):
        # A byte is two characters of hexadecimal text.
        return Column(name, text, pa.string(), f"FROM_HEX({name})", f"LOWER(TO_HEX({name}))", REDSHIFT_TEXT_BYTES // 2, _as_hex, _strings)
    if name in AMOUNTS:
        out = f"CAST({name} AS VARCHAR({_LONGEST_AMOUNT}))"
        return Column(name, _sql_type(kind), DECIMAL, name, out, None, _same, lambda values: pa.array(values, pa.string()))
    if isinstance(kind, sa.Text):
        limit = _length(kind)
        return Column(name, f"VARCHAR({limit})", pa.string(), name, name, limit, _same, _strings)
    arrow = _plain_type(kind)
    return Column(name, _sql_type(kind), arrow, name, name, None, _same, lambda values: pa.array(values, arrow))


def _plain_type(kind: sa.types.TypeEngine[Any]) -> pa.DataType:
    if isinstance(kind, sa.Boolean):
        return pa.bool_()
    if isinstance(kind, sa.BigInteger):
        return pa.int64()
    return pa.int32() if isinstance(kind, sa.Integer) else pa.float64()


def _sql_type(kind: sa.types.TypeEngine[Any]) -> str:
    return kind.compile(dialect=RedshiftDialect())


def _length(kind: sa.Text) -> int:
    return int(_sql_type(kind).removeprefix("VARCHAR(").removesuffix(")"))


def _same(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values


def _without_zone(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(TIME).cast(pa.int64()).cast(_BARE_TIME)


def _as_json(values: pa.ChunkedArray) -> pa.Array:
    return pa.array([None if one is None else json.dumps([_number(x) for x in one]) for one in values.to_pylist()], pa.string())


def _number(value: float | None) -> float | str | None:
    """JSON has no NaN and no infinity: these travel as text."""
    return value if value is None or value - value == 0 else repr(value)


def _from_json(values: Sequence[Any]) -> pa.Array:
    return pa.array([None if one is None else [float(x) for x in json.loads(one)] for one in values], pa.list_(pa.float64()))


def _as_hex(values: pa.ChunkedArray) -> pa.Array:
    return pa.array([None if one is None else one.hex() for one in values.to_pylist()], pa.string())


def _strings(values: Sequence[Any]) -> pa.Array:
    return pa.array(values, pa.string())
