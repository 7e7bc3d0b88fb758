"""The warehouse on Amazon Redshift: Parquet and a manifest in S3, COPY into staging, delete-insert, checkpoint in the same transaction."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
import structlog

from domain.log import Position, TopicPartition
from projections.errors import ProjectionError, StoreUnavailable
from projections.warehouse import redshift_statements as sql
from projections.warehouse.canonical import columns_by_table
from projections.warehouse.ddl import statements as layout
from projections.warehouse.dimensions import wallet_columns
from projections.warehouse.facts import Fact
from projections.warehouse.redshift_columns import file_rows, read_rows
from projections.warehouse.redshift_connection import redshift_engine, redshift_translated
from projections.warehouse.redshift_staging import StagedFiles, folder_of
from projections.warehouse.store import LAYOUT_VERSION
from projections.warehouse.tables import CHECKPOINTS
from projections.warehouse.views import MATERIALISED_VIEWS

Facts = Sequence[tuple[Fact, pa.Table]]

log = structlog.get_logger(__name__)

_COMMENT = "tidemark layout "
_RELATION = re.compile(r"CREATE (?:TABLE|MATERIALIZED VIEW|VIEW) (\w+)")
FETCH_ROWS = 1_000  # rows that a cursor gives at once: all that a cluster of one node allows


class RedshiftSession:
    """One open connection in one generation's schema. What is done between two commits is one transaction."""

    def __init__(self, connection: sa.Connection, files: StagedFiles, schema: str, iam_role: str) -> None:
        self._connection = connection
        self._files = files
        self._schema = schema
        self._iam_role = iam_role
        self._folder = ""
        self._manifests: Mapping[str, str] = {}
        self._locked: dict[TopicPartition, int] | None = None

    def load_position(self) -> Position:
        """The stored checkpoint."""
        return {(topic, partition): offset for topic, partition, offset in run(self._connection, sql.LOAD_CHECKPOINTS)}

    def stage(self, facts: Facts, before: Position, after: Position) -> None:
        """Write the files, outside of the transaction: the same batch again writes the same objects."""
        self._locked = None
        self._folder = folder_of(self._schema, before, after)
        pieces = defaultdict(list)
        for fact, rows in facts:
            pieces[fact.table].append(file_rows(fact.table, rows))
        self._manifests = self._files.write(self._folder, pieces)

    def advance(self, place: TopicPartition, before: int | None, after: int) -> bool:
        """Move one checkpoint by compare-and-set; false where it does not stand at `before`. No second writer passes until the commit."""
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
        """Copy the staged files, write the facts, fold their dimensions."""
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
        """Bring the materialised views to the facts, each in a transaction of its own."""
        self.commit()
        with _autocommit(self._connection) as connection:
            for name in MATERIALISED_VIEWS:
                run(connection, f"REFRESH MATERIALIZED VIEW {name}")

    def commit(self) -> None:
        """Make everything since the last commit durable."""
        self._connection.commit()
        self._locked = None

    def committed(self) -> None:
        """The last commit was acknowledged: the files may go."""
        if not self._manifests:
            return
        try:
            self._files.remove(self._folder)
        except StoreUnavailable as error:  # the rows are in; the next writer to begin deletes what is left
            log.warning("staged_files_left", schema=self._schema, error=str(error))

    def close(self) -> None:
        """End the connection; what was not committed is undone."""
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


class RedshiftDatabase:
    """One database, the bucket from which it copies, and the role with which it does. Nothing is opened before it is asked for.

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
        self.engine = redshift_engine(dsn)
        self.files = StagedFiles(s3, bucket, prefix)
        self._iam_role = iam_role

    def open(self, schema: str) -> RedshiftSession:
        """A session in this schema.

        Raises:
            ProjectionError: a newer Tidemark has made it.
        """
        return RedshiftSession(self.connect(schema), self.files, schema, self._iam_role)

    def copy(self, connection: sa.Connection, table: str, manifest: str) -> None:
        """Copy the files of a manifest into the staging table of a table."""
        run(connection, sql.copy(table, manifest, self._iam_role))

    def check(self) -> tuple[str, str, bool]:
        """The server's version, the user's name, and whether that user may make schemas.

        Raises:
            StoreUnavailable: the warehouse does not answer.
            ProjectionError: it refuses.
        """
        with redshift_translated("asking for its version"), self.engine.connect() as connection:
            ((version, user, may_create),) = run(connection, sql.CHECK)
            return str(version).rpartition(", ")[2], str(user), bool(may_create)

    def connect(self, schema: str) -> sa.Connection:
        """A connection in this schema, which exists afterwards with all of its tables and views: what is missing is made.

        Each relation is made by itself: Redshift makes no materialised view inside a transaction.
        """
        connection = self.engine.connect()
        try:
            found = {name for (name,) in run(connection, sql.LIST_RELATIONS, {"schema": schema})}
            if CHECKPOINTS in found:
                _check_layout(connection, schema)
            connection.rollback()
            missing = [statement for statement in layout("redshift") if _named(statement) not in found]
            if missing:
                with _autocommit(connection) as making:
                    run(making, f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
                    _use(making, schema)
                    for statement in missing:
                        run(making, statement)
                    run(making, f"COMMENT ON TABLE {CHECKPOINTS} IS '{_COMMENT}{LAYOUT_VERSION:d}'")
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


def _named(statement: str) -> str:
    found = _RELATION.match(statement)
    assert found is not None, statement
    return found[1]


def _check_layout(connection: sa.Connection, schema: str) -> None:
    for (comment,) in run(connection, sql.READ_LAYOUT, {"schema": schema}):
        number = str(comment).removeprefix(_COMMENT)
        if number.isdigit() and int(number) > LAYOUT_VERSION:
            raise ProjectionError(
                f"the schema {schema} has layout {number}, made by a newer Tidemark; this one knows layouts up to {LAYOUT_VERSION}."
                " Nothing was touched; go on with that one, or rebuild the warehouse under another TIDEMARK_WAREHOUSE__DSN"
            )


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


def stored_rows(connection: sa.Connection) -> Iterator[tuple[str, pa.Table]]:
    """Every table but the checkpoints, as the connection's transaction sees it."""
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
