"""The transactions of the warehouse as the events that they were: `fact_transaction` in order of seq, for whoever counts them again.

The way back of `facts`: columns get their fields' names again, card features their 28 columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from domain.log import Position
from projections.errors import ProjectionError
from projections.warehouse import redshift_statements
from projections.warehouse import statements as sql
from projections.warehouse.connection import Connect, connector, read_through, run, translated
from projections.warehouse.facts import CARD_FEATURES, FACTS
from projections.warehouse.redshift import FETCH_ROWS, RedshiftDatabase
from projections.warehouse.redshift import run as run_on_redshift
from projections.warehouse.redshift_columns import columns_of
from projections.warehouse.redshift_connection import redshift_translated
from projections.warehouse.sink import schema_of
from projections.warehouse.tables import CHECKPOINTS
from schema_registry.column_codec import DECIMAL, TIME

_FIELD_BY_COLUMN = next(fact.fields for fact in FACTS if fact.event_type == "TransactionRecorded")
_WIDTH = len(CARD_FEATURES)
_ABSENT = "the warehouse has no facts yet: run the worker first (`tidemark up --workers`, or `tidemark run warehouse`)"

PARTITIONS = "SELECT log_partition, count(*), max(seq) FROM {fact} WHERE seq IS NOT NULL GROUP BY log_partition"
"""What each partition gave: its rows, its greatest seq."""
FIRST_GAP = """
SELECT min(before + 1) FROM (
    SELECT seq, coalesce(lag(seq) OVER (ORDER BY seq), -1) AS before FROM {fact} WHERE seq IS NOT NULL
) pairs
WHERE seq > before + 1
"""
SEQ_SINCE = "SELECT min(seq) FROM {fact} WHERE ingested_at >= {at}"
IN_ORDER = "SELECT seq, {columns} FROM {fact} WHERE seq >= {first} AND seq < {end} ORDER BY seq"


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """What the facts have of one partition: how many rows, and the greatest seq among them."""

    partition: int
    rows: int
    last_seq: int


class TransactionFacts(ABC):
    """`fact_transaction` of one generation.

    Every call may raise StoreUnavailable (the warehouse does not answer) and ProjectionError (it refuses, or has no facts yet).
    """

    def __init__(self, generation: int) -> None:
        self._schema = schema_of(generation)
        self._fact = f'"{self._schema}".fact_transaction'

    def position(self) -> Position:
        """The checkpoint."""
        rows = self._rows("reading the checkpoint", f'SELECT topic, partition, next_offset FROM "{self._schema}".{CHECKPOINTS}')
        return {(topic, int(partition)): int(offset) for topic, partition, offset in rows}

    def partitions(self) -> list[PartitionFacts]:
        """What is there of each partition that has a row in order of seq."""
        rows = self._rows("looking at the facts", PARTITIONS.format(fact=self._fact))
        return [PartitionFacts(int(partition), int(count), int(last)) for partition, count, last in rows]

    def first_gap(self) -> int | None:
        """The first seq that is not there though a greater one is; none where there is no such."""
        ((found,),) = self._rows("looking for a gap", FIRST_GAP.format(fact=self._fact))
        return None if found is None else int(found)

    def seq_since(self, at: datetime) -> int | None:
        """The first seq of what Kafka took in at this time or later, none where nothing was."""
        ((found,),) = self._rows("looking for a time", SEQ_SINCE.format(fact=self._fact, at=self._parameter(1)), at)
        return None if found is None else int(found)

    @abstractmethod
    def between(self, first: int, end: int) -> Generator[pa.Table]:
        """The transactions of [`first`, `end`) in order of `_seq`, with the fields of `TransactionRecorded`, in pieces of bounded size."""

    @abstractmethod
    def _parameter(self, number: int) -> str:
        """How a statement names its bound value of this number, from 1."""

    @abstractmethod
    def _rows(self, what: str, statement: str, *values: Any) -> list[tuple[Any, ...]]: ...


class PostgresTransactions(TransactionFacts):
    """On Postgres.

    Args:
        dsn: libpq URI or conninfo, or what opens an ADBC connection.
        generation: which build of the warehouse.
    """

    def __init__(self, dsn: str | Connect, generation: int) -> None:
        super().__init__(generation)
        self._connect = connector(dsn) if isinstance(dsn, str) else dsn

    def between(self, first: int, end: int) -> Generator[pa.Table]:
        """See `TransactionFacts`. The server sorts once and gives the rows as they are asked for."""
        # Exact text for the amount, as everywhere: faster than the driver's own reading of NUMERIC.
        columns = ", ".join(f"{name}::text AS {name}" if name == "amount" else name for name in (*_FIELD_BY_COLUMN, "card_features"))
        statement = IN_ORDER.format(fact=self._fact, columns=columns, first="$1", end="$2")
        with translated("reading the facts in order"), self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement, (first, end))
            with cursor.fetch_record_batch() as reader, read_through():
                for piece in reader:
                    if piece.num_rows:
                        yield _events(pa.Table.from_batches([piece]))

    def _parameter(self, number: int) -> str:
        return f"${number}"

    def _rows(self, what: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with translated(what), self._connect() as connection, connection.cursor() as cursor:
            if not run(cursor, sql.HAS_LAYOUT, (f"{self._schema}.fact_transaction",))[0][0]:
                raise ProjectionError(_ABSENT)
            return run(cursor, statement, values)


class RedshiftTransactions(TransactionFacts):
    """On Redshift, rows through a cursor: the driver would else hold them all in memory.

    Args:
        database: where it is.
        generation: which build of the warehouse.
    """

    def __init__(self, database: RedshiftDatabase, generation: int) -> None:
        super().__init__(generation)
        self._engine = database.engine

    def between(self, first: int, end: int) -> Generator[pa.Table]:
        """See `TransactionFacts`."""
        chosen = [column for column in columns_of("fact_transaction") if column.name in _FIELD_BY_COLUMN or column.name == "card_features"]
        statement = IN_ORDER.format(
            fact=self._fact, columns=", ".join(column.out for column in chosen), first=f"{first:d}", end=f"{end:d}"
        )  # a cursor's query binds no values: these are numbers of our own
        with redshift_translated("reading the facts in order"), self._engine.connect() as connection:
            run_on_redshift(connection, redshift_statements.USE_UTC)
            run_on_redshift(connection, f"DECLARE transactions_in_order CURSOR FOR {statement}")
            while rows := run_on_redshift(connection, f"FETCH FORWARD {FETCH_ROWS} FROM transactions_in_order"):
                seqs, *values = zip(*rows, strict=True)
                found = {column.name: column.decode(list(one)) for column, one in zip(chosen, values, strict=True)}
                yield _events(pa.table({"seq": pa.array(seqs, pa.int64()), **found}))

    def _parameter(self, number: int) -> str:
        return f":p{number}"

    def _rows(self, what: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        bound = {f"p{number}": value for number, value in enumerate(values, 1)}
        with redshift_translated(what), self._engine.connect() as connection:
            there = {name for (name,) in run_on_redshift(connection, redshift_statements.LIST_RELATIONS, {"schema": self._schema})}
            if "fact_transaction" not in there:
                raise ProjectionError(_ABSENT)
            return run_on_redshift(connection, statement, bound)


def _events(rows: pa.Table) -> pa.Table:
    columns: dict[str, pa.Array | pa.ChunkedArray] = {field: rows[column] for column, field in _FIELD_BY_COLUMN.items()}
    columns["amount"] = rows["amount"].cast(pa.string()).cast(DECIMAL)
    columns["occurred_at"] = rows["occurred_at"].cast(TIME)
    columns.update(_card_columns(rows["card_features"]))
    columns["_seq"] = rows["seq"].cast(pa.int64())
    return pa.table(columns)


def _card_columns(lists: pa.ChunkedArray) -> dict[str, pa.Array]:
    """Each list of 28 doubles as 28 columns, null where the transaction has none."""
    found = lists.combine_chunks()
    if found.null_count == len(found):
        return {name: pa.nulls(len(found), pa.float64()) for name in CARD_FEATURES}
    is_there = np.asarray(found.is_valid())
    values = np.full((len(found), _WIDTH), np.nan)
    values[is_there] = pc.list_flatten(found).to_numpy(zero_copy_only=False).reshape(-1, _WIDTH)
    return {name: pa.array(values[:, i], mask=~is_there) for i, name in enumerate(CARD_FEATURES)}
