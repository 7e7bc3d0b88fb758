"""The warehouse on PostgreSQL: facts by binary COPY over ADBC, keys of dimensions staged and inserted where they are new."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import pyarrow as pa
from adbc_driver_manager.dbapi import Connection, Cursor

from domain.log import Position, TopicPartition
from projections.protocol import EventBatch, Rejection
from projections.warehouse import statements as sql
from projections.warehouse.canonical import stored_rows
from projections.warehouse.connection import Connect, connector, read_through, run, translated
from projections.warehouse.ddl import statements as layout
from projections.warehouse.dimensions import DimensionKeys, load_dimensions
from projections.warehouse.loader import Facts
from projections.warehouse.views import MATERIALISED_VIEWS

# Rows that the driver encodes at once, some 1 MB: Postgres takes one piece in while the next is encoded. As one piece the two
# wait for each other, at 1.2 times the time; pieces below a thousand rows cost as much again in calls.
PIECE_ROWS = 4_096


class PostgresSession:
    """See `loader.Session`."""

    def __init__(self, connection: Connection, known: DimensionKeys) -> None:
        self._connection = connection
        self._known = known
        self._new = DimensionKeys()
        self.cursor: Cursor = connection.cursor()

    def load_position(self) -> Position:
        return {(topic, partition): offset for topic, partition, offset in run(self.cursor, sql.LOAD_CHECKPOINTS)}

    def stage(self, facts: Facts, before: Position, after: Position) -> None:
        self._new = DimensionKeys()  # rows go over the connection itself

    def advance(self, place: TopicPartition, before: int | None, after: int) -> bool:
        moved = run(self.cursor, sql.ADVANCE_CHECKPOINT, (*place, before, after)) if before is not None else []
        if not moved and not before:  # nothing read yet is the same as no checkpoint
            moved = run(self.cursor, sql.START_CHECKPOINT, (*place, after))
        return bool(moved)

    def load(self, facts: Facts) -> None:
        keys = DimensionKeys()
        described: set[str] = set()
        trained: set[str] = set()
        for fact, rows in facts:
            self.cursor.adbc_ingest(fact.table, rows.to_reader(max_chunksize=PIECE_ROWS), mode="append")
            keys.add(fact, rows)
            if fact.table == "fact_wallet_description":
                described.update(rows["wallet_id"].to_pylist())
            elif fact.table == "fact_model_training":
                trained.update(rows["model_version"].to_pylist())
        self._new = keys.without(self._known)
        load_dimensions(self.cursor, self._new, described, trained)

    def refresh(self) -> None:
        for name in MATERIALISED_VIEWS:
            run(self.cursor, f"REFRESH MATERIALIZED VIEW CONCURRENTLY {name}")

    def commit(self) -> None:
        self._connection.commit()

    def committed(self) -> None:
        self._known.remember(self._new)

    def close(self) -> None:
        self.cursor.close()
        self._connection.close()


class PostgresLoader:
    """See `loader.Loader`.

    Args:
        dsn: libpq URI or conninfo, or what opens an ADBC connection.

    Raises:
        ProjectionError: the text is neither.
    """

    def __init__(self, dsn: str | Connect) -> None:
        self._connect = connector(dsn) if isinstance(dsn, str) else dsn
        self._known = DimensionKeys()

    def open(self, schema: str) -> PostgresSession:
        return PostgresSession(self._open(schema), self._known)

    def screen(self, batch: EventBatch) -> list[Rejection]:
        return []  # text and bytes have no bound here

    def read_back(self, schema: str) -> Iterator[tuple[str, pa.Table]]:
        with self._open(schema) as connection, connection.cursor() as cursor:
            run(cursor, sql.READ_SNAPSHOT)
            with read_through():
                yield from stored_rows(cursor)

    def clean_up(self, schema: str) -> int:
        return 0  # nothing is staged outside of the server

    def translated(self, what: str) -> AbstractContextManager[None]:
        return translated(what)

    def _open(self, schema: str) -> Connection:
        connection = self._connect()
        try:
            with connection.cursor() as cursor:
                run(cursor, sql.LOCK_LAYOUT, (sql.LAYOUT_LOCK,))
                (found,) = run(cursor, sql.HAS_LAYOUT, (f"{schema}.checkpoints",))
                if not found[0]:
                    run(cursor, f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
                run(cursor, f'SET search_path TO "{schema}"')
                if not found[0]:
                    for statement in layout("postgresql"):
                        run(cursor, statement)
                for statement in sql.STAGES.split(";"):
                    run(cursor, statement)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection
