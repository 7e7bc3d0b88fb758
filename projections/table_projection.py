"""The short way to a read model of one's own: tables on Postgres, and one pure function that says which rows a batch of events gives.

A table's primary key says what its rows are. With the place in the log (`PLACE`) as its key, each record gives a row of its own. With
any other key, rows of one key are added up, column by column. From the function follow both what is written (by SQL, in one
transaction with the checkpoint) and what `verify` expects (folded here, in exact arithmetic).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from decimal import Context, Decimal
from typing import Any, ClassVar

import pyarrow as pa
import sqlalchemy as sa
from adbc_driver_manager.dbapi import Cursor
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.schema import CreateIndex, CreateTable

from domain.log import Position
from projections.errors import BatchRefused, ProjectionError
from projections.failpoints import APPLIED, reach
from projections.protocol import EventBatch, Excluded, Rejection
from projections.warehouse.connection import Connect, run
from projections.warehouse.store import PostgresStore
from projections.warehouse.tables import CHECKPOINTS, warehouse_metadata
from schema_registry.column_codec import DECIMAL, TIME

PLACE = {"log_topic": "_topic", "log_partition": "_partition", "log_offset": "_offset"}
"""The columns of a table that has a row a record, and the columns of a batch that they hold."""
_ARROW: Sequence[tuple[type[sa.types.TypeEngine[Any]], pa.DataType]] = (
    (sa.Boolean, pa.bool_()),
    (sa.Float, pa.float64()),
    (sa.Numeric, DECIMAL),
    (sa.BigInteger, pa.int64()),
    (sa.Integer, pa.int32()),
    (sa.DateTime, TIME),
    (sa.LargeBinary, pa.binary()),
    (sa.String, pa.string()),
)
_EXACT = Context(prec=1_000)  # Python's own 28 digits would round a sum of amounts
_PIECE_ROWS = 50_000
_DATA_AT_FAULT = frozenset({"22", "23"})  # SQLSTATE classes: a value, a constraint


def live_schema(name: str) -> str:
    """The schema in which readers find a projection: `net-flow` is `net_flow`; its generations are `net_flow_g<n>`."""
    return name.replace("-", "_")


class TableProjection(PostgresStore):
    """Base of a projection on Postgres. A subclass gives four names and one function; runner, checkpoint, rebuild and proof come with it.

    Args:
        dsn: libpq URI or conninfo, or what opens an ADBC connection.
        generation: which build of it, from 1.
    """

    topics: ClassVar[tuple[str, ...]]
    reads: ClassVar[Mapping[str, tuple[str, ...]]]
    layout: ClassVar[sa.MetaData]
    """Its tables, without a schema, each with a primary key. Outside the key of a table that adds up, columns are whole or exact
    numbers: a sum of floats would depend on the order."""

    def __init__(self, dsn: str | Connect, generation: int = 1) -> None:
        super().__init__(dsn, f"{live_schema(self.name)}_g{generation:d}")
        self.generation = generation
        for table in self.layout.sorted_tables:
            _checked(table)

    @abstractmethod
    def rows(self, batch: EventBatch, excluded: Excluded) -> Iterator[tuple[sa.Table, pa.Table]]:
        """The rows that a batch gives, table by table, in any number of pieces: a function of the batch and nothing else.

        Args:
            excluded: records that give no row, to be counted by reason.
        """

    def screen(self, batch: EventBatch) -> Sequence[Rejection]:
        """Rows that break a rule of this projection: none, unless a subclass has rules."""
        return ()

    def apply(self, batch: EventBatch, before: Position, after: Position) -> None:
        """Write the batch and move the checkpoint, in one transaction.

        Raises:
            StalePosition: the stored checkpoint is not `before`.
            BatchRefused: Postgres refuses a value.
            StoreUnavailable: Postgres does not answer. Whether the transaction was committed is then to be read from `load_position`.
            ProjectionError: Postgres refuses for another reason, for instance that a table has other columns than `layout`.
            ValueError: `rows` gave other columns than the table's, or `after` lies before `before`.
        """
        try:
            with self._transaction("applying a batch") as cursor:
                self._advance(cursor, before, after)
                staged: set[str] = set()
                for table, found in self.rows(batch, Excluded()):
                    pieces = _typed(table, found).to_reader(max_chunksize=_PIECE_ROWS)
                    if _has_a_row_a_record(table):
                        cursor.adbc_ingest(table.name, pieces, mode="append")
                        continue
                    if table.name not in staged:
                        staged.add(table.name)
                        run(cursor, _staging(table))
                    cursor.adbc_ingest(_stage(table), pieces, mode="append", db_schema_name="pg_temp")
                for table in self.layout.sorted_tables:
                    if table.name in staged:
                        run(cursor, _addition(table))
                reach(APPLIED)
        except ProjectionError as error:
            state = getattr(error.__cause__, "sqlstate", None) or ""
            if state[:2] in _DATA_AT_FAULT:
                raise BatchRefused(str(error)) from error
            raise

    def expected(self, batches: Iterator[EventBatch], excluded: Excluded) -> Iterator[tuple[str, pa.Table]]:
        """The rows that the log implies. Memory grows with the keys of the tables that add up, not with the log."""
        sums: dict[str, dict[tuple[Any, ...], list[Any]]] = {}
        for batch in batches:
            for table, found in self.rows(batch, excluded):
                typed = _typed(table, found)
                if _has_a_row_a_record(table):
                    yield table.name, _comparable(table, typed)
                else:
                    _fold(sums.setdefault(table.name, {}), table, typed)
        for name, totals in sums.items():
            yield from ((name, piece) for piece in _pieces(self.layout.tables[name], totals))

    def _layout(self) -> Iterator[str]:
        for table in (*self.layout.sorted_tables, warehouse_metadata().tables[CHECKPOINTS]):
            yield _sql(CreateTable(table))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                yield _sql(CreateIndex(index))

    def _stored(self, cursor: Cursor) -> Iterator[tuple[str, pa.Table]]:
        for table in self.layout.sorted_tables:
            exact = (f'trim_scale("{c.name}")::text' if _is_exact(c) else f'"{c.name}"' for c in table.columns)
            cursor.execute(f'SELECT {", ".join(exact)} FROM "{table.name}"')
            with cursor.fetch_record_batch() as reader:
                for piece in reader:
                    yield table.name, _comparable(table, pa.Table.from_batches([piece]).rename_columns(table.columns.keys()))


def _checked(table: sa.Table) -> None:
    """A table that the base can write and compare.

    Raises:
        ValueError: it is not one.
    """
    if table.schema is not None or not table.primary_key.columns:
        raise ValueError(f"expected a table without a schema and with a primary key, found {table.fullname}")
    for column in table.columns:
        is_summed = not column.primary_key and not _has_a_row_a_record(table)
        if is_summed and _arrow(column) not in (DECIMAL, pa.int64(), pa.int32()):
            raise ValueError(f"expected whole or exact numbers outside the key of {table.name}, which adds up: {column.name}")


def _has_a_row_a_record(table: sa.Table) -> bool:
    return set(PLACE) <= set(table.primary_key.columns.keys())


def _stage(table: sa.Table) -> str:
    return f"stage_{table.name}"


def _staging(table: sa.Table) -> str:
    return f'CREATE TEMPORARY TABLE IF NOT EXISTS "{_stage(table)}" (LIKE "{table.name}") ON COMMIT DELETE ROWS'


def _addition(table: sa.Table) -> str:
    """Adds what is staged to the table. In order of the key, so that two workers cannot wait for each other in a circle."""
    stage = sa.table(_stage(table), *(sa.column(name) for name in table.columns.keys()))  # noqa: SIM118  a collection of columns
    keys = [stage.c[column.name] for column in table.primary_key.columns]
    summed = [column.name for column in table.columns if not column.primary_key]
    chosen = sa.select(*keys, *(sa.func.sum(stage.c[name]).label(name) for name in summed)).group_by(*keys).order_by(*keys)
    statement = insert(table).from_select([*(key.name for key in keys), *summed], chosen)
    if not summed:
        return _sql(statement.on_conflict_do_nothing())
    return _sql(
        statement.on_conflict_do_update(
            index_elements=[key.name for key in keys],
            set_={name: table.c[name] + statement.excluded[name] for name in summed},
        )
    )


def _sql(clause: sa.ClauseElement) -> str:
    return str(clause.compile(dialect=PGDialect())).strip()  # type: ignore[no-untyped-call]


def _arrow(column: sa.Column[Any]) -> pa.DataType:
    for kind, arrow in _ARROW:
        if isinstance(column.type, kind):
            return arrow
    raise ValueError(f"expected text, numbers, times, bytes or booleans, found {column.type} for {column.table.name}.{column.name}")


def _is_exact(column: sa.Column[Any]) -> bool:
    return bool(_arrow(column) == DECIMAL)


def _typed(table: sa.Table, found: pa.Table) -> pa.Table:
    """The table's columns, in their order and types; the place in the log under the table's names."""
    found = found.rename_columns([next((to for to, name in PLACE.items() if name == given), given) for given in found.column_names])
    wanted = table.columns.keys()
    if set(found.column_names) != set(wanted):
        raise ValueError(f"expected the columns {', '.join(wanted)} for {table.name}, found {', '.join(found.column_names)}")
    return pa.table({column.name: found[column.name].cast(_arrow(column)) for column in table.columns})


def _comparable(table: sa.Table, found: pa.Table) -> pa.Table:
    """Rows as both sides can show them: exact numbers as text without trailing zeros, places under the names that a proof knows."""
    columns = {}
    for column in table.columns:
        values = found[column.name]
        if not _is_exact(column):
            values = values.cast(_arrow(column))
        elif not pa.types.is_string(values.type):
            values = pa.array([None if value is None else _plain(value) for value in values.to_pylist()], pa.string())
        columns[PLACE.get(column.name, column.name)] = values
    return pa.table(columns)


def _fold(totals: dict[tuple[Any, ...], list[Any]], table: sa.Table, found: pa.Table) -> None:
    keys = [found[column.name].to_pylist() for column in table.primary_key.columns]
    summed = [found[column.name].to_pylist() for column in table.columns if not column.primary_key]
    for key, values in zip(zip(*keys, strict=True), zip(*summed, strict=True) if summed else [()] * found.num_rows, strict=True):
        known = totals.get(key)
        totals[key] = list(values) if known is None else [_sum(a, b) for a, b in zip(known, values, strict=True)]


def _sum(a: Any, b: Any) -> Any:
    return _EXACT.add(a, b) if isinstance(a, Decimal) else a + b


def _pieces(table: sa.Table, totals: dict[tuple[Any, ...], list[Any]]) -> Iterator[pa.Table]:
    keys = table.primary_key.columns.keys()
    summed = [column.name for column in table.columns if not column.primary_key]
    found = list(totals.items())
    for at in range(0, len(found), _PIECE_ROWS):
        part = found[at : at + _PIECE_ROWS]
        columns: dict[str, pa.Array] = {}
        for i, name in enumerate(keys):
            columns[name] = pa.array([key[i] for key, _ in part], _arrow(table.c[name]))
        for i, name in enumerate(summed):
            values = [total[i] for _, total in part]
            is_exact = _is_exact(table.c[name])
            columns[name] = pa.array([_plain(value) for value in values], pa.string()) if is_exact else pa.array(values, pa.int64())
        yield _comparable(table, pa.table(columns))


def _plain(value: Decimal) -> str:
    return format(_EXACT.plus(value).normalize(_EXACT), "f")
