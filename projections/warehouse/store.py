"""One generation of a read model in a Postgres schema of its own: connection, layout, and the checkpoint in the transaction of its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

import adbc_driver_manager
import pyarrow as pa
import structlog
from adbc_driver_manager.dbapi import Connection, Cursor

from domain.log import Position
from projections.errors import ProjectionError, StalePosition, StoreUnavailable
from projections.fingerprint import Fingerprint, fingerprints
from projections.protocol import ReadBack
from projections.warehouse import statements as sql
from projections.warehouse.connection import Connect, connector, read_through, run, translated

log = structlog.get_logger(__name__)

_LOCK_NOT_AVAILABLE = "55P03"
LAYOUT_VERSION = 1
"""Of what stands in a generation beside its own tables: the checkpoint and what a row's place means. It stands in the schema's comment."""
_COMMENT = "tidemark layout "
READ_COMMENT = "SELECT coalesce(obj_description(to_regnamespace($1)::oid, 'pg_namespace'), '')"
ESTIMATED_ROWS = """
SELECT relname, n_live_tup FROM pg_stat_user_tables
WHERE schemaname = $1 AND relname <> 'checkpoints' AND n_live_tup > 0
ORDER BY relname
"""


class PostgresStore(ABC):
    """The mechanics that every read model in Postgres shares. Not thread-safe: one instance a worker.

    It connects at the first call and again after an error. A batch is one transaction: the checkpoint moves first, by compare-and-set,
    so a second writer waits at its rows and finds that it is too late.

    Args:
        dsn: libpq URI or conninfo, or what opens an ADBC connection.
        schema: the generation's schema; letters, digits and underscores.
    """

    name: ClassVar[str]

    def __init__(self, dsn: str | Connect, schema: str) -> None:
        self.schema = schema
        self._connect = connector(dsn) if isinstance(dsn, str) else dsn
        self._connection: Connection | None = None

    @abstractmethod
    def _layout(self) -> Iterator[str]:
        """The statements that make the generation's tables, `checkpoints` among them, in the current schema."""

    def _later(self) -> Iterator[tuple[str, str]]:
        """(name, statement) of tables, indexes and views that generations of an earlier release lack; such a table starts empty, as its
        topic's checkpoint does."""
        return iter(())

    def _stages(self) -> Iterator[str]:
        """The statements that make what each connection has for itself."""
        return iter(())

    @abstractmethod
    def _stored(self, cursor: Cursor) -> Iterator[tuple[str, pa.Table]]:
        """Every table but the checkpoints, in the form in which rows are compared."""

    def load_position(self) -> Position:
        """The stored checkpoint; makes the generation's tables if there are none.

        Raises:
            StoreUnavailable: Postgres does not answer.
            ProjectionError: it refuses.
        """
        with self._transaction("reading the checkpoint") as cursor:
            return _position(cursor)

    def read_back(self) -> Iterator[tuple[str, pa.Table]]:
        """The rows of every table as of one snapshot, in pieces of bounded size.

        Raises:
            StoreUnavailable: Postgres does not answer.
            StoreDisagrees: it holds a value that cannot be read as what was written.
            ProjectionError: it refuses.
        """
        with translated(f"reading {self.name} back"), self._open() as connection, connection.cursor() as cursor:
            run(cursor, sql.READ_SNAPSHOT)
            with read_through():
                yield from self._stored(cursor)

    @contextmanager
    def pinned(self) -> Iterator[tuple[Position, ReadBack]]:
        """The checkpoint, and what reads every row at that checkpoint, whoever writes meanwhile.

        Raises:
            StoreUnavailable: Postgres does not answer.
            StoreDisagrees: it holds a value that was never written to it.
            ProjectionError: it refuses.
        """
        with translated("reading a snapshot"), self._open() as connection, connection.cursor() as cursor:
            run(cursor, sql.READ_SNAPSHOT)

            def read_back() -> Iterator[tuple[str, pa.Table]]:
                with read_through():
                    yield from self._stored(cursor)

            yield _position(cursor), read_back

    def snapshot(self) -> tuple[Position, dict[str, Fingerprint]]:
        """The checkpoint and the fingerprint of each table at that checkpoint. Errors as `pinned`."""
        with self.pinned() as (position, read_back):
            return position, fingerprints(read_back())

    def stored_counts(self) -> dict[str, int]:
        """How many rows each table holds, by the server's own estimate; a table never analysed counts 0.

        Raises:
            StoreUnavailable: Postgres does not answer.
            ProjectionError: it refuses.
        """
        with translated("estimating rows"), self._connect() as connection, connection.cursor() as cursor:
            return {name: int(rows) for name, rows in run(cursor, ESTIMATED_ROWS, (self.schema,))}

    def close(self) -> None:
        """End the connection; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with translated("closing the connection"):
                connection.close()

    def _advance(self, cursor: Cursor, before: Position, after: Position) -> None:
        """Move the checkpoint of every partition in `after` by compare-and-set; one absent from `before` was never read.

        Raises:
            StalePosition: one of them stands elsewhere. The transaction must not be committed.
            ValueError: one would fall.
        """
        places = sorted(after)
        if falling := [place for place in places if after[place] < before.get(place, 0)]:
            topic, partition = falling[0]
            raise ValueError(f"expected a checkpoint that rises, found {before[falling[0]]} to {after[falling[0]]} at {topic}-{partition}")
        if not places:
            return
        columns = [[topic for topic, _ in places], [partition for _, partition in places]]
        columns += [[before.get(place, 0) for place in places], [after[place] for place in places]]
        moved = set(run(cursor, sql.ADVANCE_CHECKPOINTS, columns))
        if missed := [place for place in places if place not in moved]:
            topic, partition = missed[0]
            raise StalePosition(
                f"expected the checkpoint of {self.name} at {before.get(missed[0])} for {topic}-{partition}, found another: a second worker"
                " has written"
            )

    def _end_stalled(self) -> None:
        """End the sessions of other writers of this generation that stand still in a transaction: nothing of it was committed."""
        try:
            with translated("ending a stalled transaction"), self._open() as connection, connection.cursor() as cursor:
                for (has_ended,) in run(cursor, sql.END_STALLED, (sql.LOCK_TIMEOUT_S,)):
                    log.warning("stalled_writer_ended" if has_ended else "stalled_writer_not_ended", store=self.name, schema=self.schema)
        except ProjectionError as error:
            log.warning("stalled_writer_not_ended", store=self.name, schema=self.schema, error=str(error))

    @contextmanager
    def _transaction(self, what: str) -> Iterator[Cursor]:
        """A cursor whose work is committed on a clean exit; any error drops the connection, and with it the work.

        Where another writer's lock was waited for in vain, that one is ended if it stands still: the next try finds the way free.
        """
        try:
            with translated(what):
                if self._connection is None:
                    self._connection = self._open()
                with self._connection.cursor() as cursor:
                    yield cursor
                self._connection.commit()
        except BaseException as error:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(adbc_driver_manager.Error):  # the first error is the one to hear of
                    connection.close()
            if isinstance(error, StoreUnavailable) and getattr(error.__cause__, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                self._end_stalled()
            raise

    def _open(self) -> Connection:
        """A connection in this generation's schema, which exists afterwards with all of its tables.

        Raises:
            ProjectionError: a newer Tidemark has made it.
        """
        connection = self._connect()
        try:
            with connection.cursor() as cursor:
                run(cursor, sql.LOCK_LAYOUT, (sql.LAYOUT_LOCK,))
                (found,) = run(cursor, sql.HAS_LAYOUT, (f"{self.schema}.checkpoints",))
                if not found[0]:
                    run(cursor, f'CREATE SCHEMA IF NOT EXISTS "{self.schema}"')
                    run(cursor, f"COMMENT ON SCHEMA \"{self.schema}\" IS '{_COMMENT}{LAYOUT_VERSION:d}'")
                else:
                    self._check_layout(cursor)
                run(cursor, f'SET search_path TO "{self.schema}"')
                run(cursor, sql.BOUND_WAITING, (f"{sql.LOCK_TIMEOUT_S}s",))
                if not found[0]:
                    for statement in self._layout():
                        run(cursor, statement)
                for name, statement in self._later() if found[0] else ():
                    if not run(cursor, sql.HAS_LAYOUT, (f"{self.schema}.{name}",))[0][0]:
                        run(cursor, statement)
                for statement in self._stages():
                    run(cursor, statement)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_layout(self, cursor: Cursor) -> None:
        ((comment,),) = run(cursor, READ_COMMENT, (self.schema,))
        number = str(comment).removeprefix(_COMMENT)
        if number.isdigit() and int(number) > LAYOUT_VERSION:  # without a comment of ours it is of the first version
            raise ProjectionError(
                f"the schema {self.schema} has layout {number}, made by a newer Tidemark; this one knows layouts up to {LAYOUT_VERSION}."
                f" Nothing was touched; go on with that one, or rebuild {self.name} under another TIDEMARK_WAREHOUSE__DSN"
            )


def _position(cursor: Cursor) -> Position:
    return {(topic, partition): offset for topic, partition, offset in run(cursor, sql.LOAD_CHECKPOINTS)}
