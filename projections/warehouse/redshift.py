"""The warehouse on Amazon Redshift: Parquet and a manifest in S3, COPY into staging, delete-insert, checkpoint in the same transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
import structlog

from domain.log import Position, TopicPartition
from projections.errors import ProjectionError, StoreUnavailable
from projections.fingerprint import Fingerprint, fingerprints
from projections.protocol import EventBatch, Rejection
from projections.warehouse import redshift_statements as sql
from projections.warehouse.canonical import columns_by_table
from projections.warehouse.ddl import statements as layout
from projections.warehouse.dimensions import wallet_columns
from projections.warehouse.loader import Facts
from projections.warehouse.redshift_columns import file_rows, read_rows, too_long
from projections.warehouse.redshift_connection import redshift_engine, redshift_translated
from projections.warehouse.redshift_staging import StagedFiles, folder_of
from projections.warehouse.tables import warehouse_metadata
from projections.warehouse.views import MATERIALISED_VIEWS, VIEWS

log = structlog.get_logger(__name__)

FETCH_ROWS = 1_000  # rows that a cursor gives at once: all that a cluster of one node allows


class RedshiftSession:
    """See `loader.Session`."""

    def __init__(self, connection: sa.Connection, files: StagedFiles, schema: str, iam_role: str) -> None:
        self._connection = connection
        self._files = files
        self._schema = schema
        self._iam_role = iam_role
        self._folder = ""
        self._manifests: Mapping[str, str] = {}
        self._locked: dict[TopicPartition, int] | None = None

    def load_position(self) -> Position:
        return {(topic, partition): offset for topic, partition, offset in run(self._connection, sql.LOAD_CHECKPOINTS)}

    def stage(self, facts: Facts, before: Position, after: Position) -> None:
        self._locked = None
        self._folder = folder_of(self._schema, before, after)
        pieces = defaultdict(list)
        for fact, rows in facts:
            pieces[fact.table].append(file_rows(fact.table, rows))
        self._manifests = self._files.write(self._folder, pieces)

    def advance(self, place: TopicPartition, before: int | None, after: int) -> bool:
        if self._locked is None:
            run(self._connection, sql.LOCK_CHECKPOINTS)
            self._locked = dict(self.load_position())
        if self._locked.get(place, 0) != (before or 0):
            return False
        topic, partition = place
        statement = sql.ADVANCE_CHECKPOINT if place in self._locked else sql.START_CHECKPOINT
        values = {"topic": topic, "partition": partition, "after": after}
        run(self._connection, statement, values | ({"before": before} if place in self._locked else {}))
        self._locked[place] = after
        return True

    def load(self, facts: Facts) -> None:
        rows_by_table: dict[str, list[pa.Table]] = defaultdict(list)
        for fact, rows in facts:
            rows_by_table[fact.table].append(rows)
        for table, manifest in self._manifests.items():
            run(self._connection, sql.create_stage(table))
            run(self._connection, sql.copy(table, manifest, self._iam_role))
            low, high = _offsets(rows_by_table[table])
            delete, insert = sql.insert_facts(table)
            run(self._connection, delete, {"low": low, "high": high})
            run(self._connection, insert)
        self._fold(rows_by_table)
        for table in self._manifests:
            run(self._connection, sql.drop_stage(table))

    def refresh(self) -> None:
        self.commit()
        with _autocommit(self._connection) as connection:
            for name in MATERIALISED_VIEWS:
                run(connection, f"REFRESH MATERIALIZED VIEW {name}")

    def commit(self) -> None:
        self._connection.commit()
        self._locked = None

    def committed(self) -> None:
        if not self._manifests:
            return
        try:
            self._files.remove(self._folder)
        except StoreUnavailable as error:  # the rows are in; the next writer to begin deletes what is left
            log.warning("staged_files_left", schema=self._schema, error=str(error))

    def close(self) -> None:
        self._connection.invalidate()  # ends the connection without asking it for a rollback
        self._connection.close()

    def _fold(self, rows_by_table: Mapping[str, Sequence[pa.Table]]) -> None:
        columns = {(table, column) for table, pieces in rows_by_table.items() for rows in pieces for column in wallet_columns(rows)}
        if columns:
            run(self._connection, sql.add_wallets(sorted(columns)))
        if models := sorted(table for table, pieces in rows_by_table.items() if "model_version" in pieces[0].column_names):
            run(self._connection, sql.add_models(models))
        if "fact_transaction" in rows_by_table:
            run(self._connection, sql.ADD_ASSETS)
            run(self._connection, sql.ADD_HOURS)
        if "fact_wallet_description" in rows_by_table:
            for statement in sql.FOLD_DESCRIPTIONS:
                run(self._connection, statement)
        if "fact_model_training" in rows_by_table:
            run(self._connection, sql.FOLD_TRAININGS)


class RedshiftLoader:
    """See `loader.Loader`.

    Args:
        dsn: redshift+redshift_connector://user:password@host:port/database.
        s3: boto3 client for the bucket.
        bucket: where batches are staged, in the database's region.
        prefix: key prefix of staged batches that nothing else uses.
        iam_role: ARN, ARNs joined by commas, or `default`: the role of the cluster that may read the bucket.

    Raises:
        ProjectionError: the address or the role is malformed.
    """

    def __init__(self, dsn: str, s3: Any, bucket: str, prefix: str, iam_role: str = "default") -> None:
        if not sql.is_role(iam_role):
            raise ProjectionError("expected `default` or the ARN of an IAM role for Redshift's COPY, found something else")
        self._engine = redshift_engine(dsn)
        self._files = StagedFiles(s3, bucket, prefix)
        self._iam_role = iam_role

    @property
    def engine(self) -> sa.Engine:
        """For those who work on all generations."""
        return self._engine

    def open(self, schema: str) -> RedshiftSession:
        return RedshiftSession(self._open(schema), self._files, schema, self._iam_role)

    def screen(self, batch: EventBatch) -> list[Rejection]:
        return list(too_long(batch))

    def read_back(self, schema: str) -> Iterator[tuple[str, pa.Table]]:
        connection = self._open(schema)
        try:
            yield from _stored_rows(connection)
        finally:
            connection.close()

    def translated(self, what: str) -> AbstractContextManager[None]:
        return redshift_translated(what)

    def clean_up(self, schema: str) -> int:
        """Delete the staged files of a generation that a crash left; returns how many. For its worker, when it starts.

        Another worker of the same generation that is just loading stages its batch again.

        Raises:
            StoreUnavailable: S3 refused or did not answer.
        """
        return self._files.remove(schema)

    def check(self) -> tuple[str, str, bool]:
        """The server's version, the user's name, and whether that user may make schemas.

        Raises:
            StoreUnavailable: the warehouse does not answer.
            ProjectionError: it refuses.
        """
        with redshift_translated("asking for its version"), self._engine.connect() as connection:
            ((version, user, may_create),) = run(connection, sql.CHECK)
            return str(version).rpartition(", ")[2], str(user), bool(may_create)

    def snapshot(self, schema: str) -> tuple[Position, dict[str, Fingerprint]]:
        """The checkpoint and each table's fingerprint, as one transaction sees them.

        Raises:
            StoreUnavailable: the warehouse does not answer.
            ProjectionError: it refuses.
        """
        with redshift_translated("reading a snapshot"), self._engine.connect() as connection:
            _use(connection, schema)
            position = {(topic, partition): offset for topic, partition, offset in run(connection, sql.LOAD_CHECKPOINTS)}
            return position, fingerprints(_stored_rows(connection))

    def stored_counts(self, schema: str) -> dict[str, int]:
        """Rows by table, from Redshift's own catalog.

        Raises:
            StoreUnavailable: the warehouse does not answer.
            ProjectionError: it refuses.
        """
        with redshift_translated("counting rows"), self._engine.connect() as connection:
            return {name: int(rows) for name, rows in run(connection, sql.STORED_COUNTS, {"schema": schema})}

    def _open(self, schema: str) -> sa.Connection:
        """A connection in this schema, which exists afterwards with all of its tables and views: what is missing is made.

        Each relation is made by itself: Redshift makes no materialised view inside a transaction.
        """
        connection = self._engine.connect()
        try:
            found = {name for (name,) in run(connection, sql.LIST_RELATIONS, {"schema": schema})}
            connection.rollback()
            names = [*warehouse_metadata().tables, *MATERIALISED_VIEWS, *VIEWS]
            missing = [(name, statement) for name, statement in zip(names, layout("redshift"), strict=True) if name not in found]
            if missing:
                with _autocommit(connection) as making:
                    run(making, f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
                    _use(making, schema)
                    for _, statement in missing:
                        run(making, statement)
            _use(connection, schema)
            connection.commit()
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        return connection


def run(connection: sa.Connection, statement: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """Execute one statement with bound values; its rows, none for statements that give no result."""
    result = connection.exec_driver_sql(statement) if values is None else connection.execute(sa.text(statement), dict(values))
    return [tuple(row) for row in result.fetchall()] if result.returns_rows else []


def _use(connection: sa.Connection, schema: str) -> None:
    run(connection, f'SET search_path TO "{schema}"')
    run(connection, sql.USE_UTC)


@contextmanager
def _autocommit(connection: sa.Connection) -> Iterator[sa.Connection]:
    """The same connection, each statement a transaction of its own."""
    driver: Any = connection.connection.dbapi_connection
    driver.autocommit = True
    try:
        yield connection
    finally:
        driver.autocommit = False
        connection.rollback()


def _stored_rows(connection: sa.Connection) -> Iterator[tuple[str, pa.Table]]:
    for table in columns_by_table():
        # Without a cursor the driver would hold a whole table in memory. It remembers the shape of a FETCH by its text, hence the name.
        cursor = f"rows_of_{table}"
        run(connection, f"DECLARE {cursor} CURSOR FOR {sql.select_rows(table)}")
        while rows := run(connection, f"FETCH FORWARD {FETCH_ROWS} FROM {cursor}"):
            yield table, read_rows(table, rows)
        run(connection, f"CLOSE {cursor}")


def _offsets(pieces: Sequence[pa.Table]) -> tuple[int, int]:
    """The least and the greatest offset."""
    bounds = [pc.min_max(rows["log_offset"]).as_py() for rows in pieces]
    return min(bound["min"] for bound in bounds), max(bound["max"] for bound in bounds)
