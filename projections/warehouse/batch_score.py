"""What batches were scored outside of the log: `batch_scoring.batch_score`, a row a run and transaction, and `batch_run`, a row a run.

No event gives these rows, so no generation holds them and `verify` does not look at them: each can be loaded again from its run's
manifest in S3. A run is loaded in one transaction with its row of `batch_run`, which is looked at first: once or not at all. Owns the
schema `batch_scoring`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.schema import CreateTable
from sqlalchemy_redshift.dialect import RedshiftDialect

from projections.errors import StoreDisagrees
from projections.warehouse import statements as sql
from projections.warehouse.connection import Connect, connector, run, translated
from projections.warehouse.redshift import RedshiftDatabase
from projections.warehouse.redshift import run as run_on_redshift
from projections.warehouse.redshift_connection import redshift_translated
from projections.warehouse.redshift_statements import stage_of
from projections.warehouse.tables import text_id

SCHEMA = "batch_scoring"
SCORE, RUN = "batch_score", "batch_run"
ROWS = pa.schema(
    [
        pa.field("tx_seq", pa.int64()),
        *(pa.field(name, pa.string()) for name in ("tx_id", "network", "source_wallet_id", "target_wallet_id")),
        *(pa.field(name, pa.float64()) for name in ("score", "source_score", "target_score")),
        *(pa.field(f"{name}features_only_score", pa.float64()) for name in ("", "source_", "target_")),
        *(pa.field(name, pa.int64()) for name in ("source_k", "target_k")),
        *(pa.field(name, pa.string()) for name in ("feature_set", "model_version")),
    ]
)
"""The columns of a run's files, in their order; the table has the run's id before them."""
_GIVEN = frozenset({"tx_seq", "tx_id", "network", "score", "features_only_score", "feature_set", "model_version"})


@dataclass(frozen=True, slots=True)
class BatchRun:
    """A finished run: what it scored, [`from_seq`, `until_seq`), from where, and where its manifest lies."""

    run_id: str
    model_version: str
    source: str
    from_seq: int
    until_seq: int
    scored: int
    manifest_uri: str
    manifest_sha256: str


class BatchScores(Protocol):
    """Where runs are loaded."""

    def load(self, batch_run: BatchRun, pieces: Iterator[pa.Table], copy_manifest: str) -> bool:
        """Load a run's rows, all or none; false where they were there already.

        Args:
            pieces: tables of `ROWS`.
            copy_manifest: the address of the manifest of the same rows' files, for whoever copies them itself.

        Raises:
            StoreUnavailable: the warehouse does not answer.
            ProjectionError: it refuses.
        """


class PostgresBatchScores:
    """On Postgres, by binary COPY. See `BatchScores`."""

    def __init__(self, dsn: str | Connect) -> None:
        self._connect = connector(dsn) if isinstance(dsn, str) else dsn

    def load(self, batch_run: BatchRun, pieces: Iterator[pa.Table], copy_manifest: str) -> bool:
        """See `BatchScores`. Who loads the same run meanwhile is waited for."""
        values = asdict(batch_run) | {"loaded_at": datetime.now(UTC)}
        names = ", ".join(values)
        places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
        with translated("loading a batch of scores"), self._connect() as connection, connection.cursor() as cursor:
            run(cursor, sql.LOCK_LAYOUT, (sql.LAYOUT_LOCK,))
            run(cursor, f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            for statement in _layout(PGDialect()):  # type: ignore[no-untyped-call]
                run(cursor, statement)
            connection.commit()
            started = f"INSERT INTO {SCHEMA}.{RUN} ({names}) VALUES ({places}) ON CONFLICT (run_id) DO NOTHING RETURNING run_id"
            if not run(cursor, started, tuple(values.values())):
                return False
            for rows in pieces:
                run_id = pa.repeat(pa.scalar(batch_run.run_id), rows.num_rows)
                named = rows.add_column(0, "run_id", run_id)
                cursor.adbc_ingest(SCORE, named.to_reader(), mode="append", db_schema_name=SCHEMA)
            connection.commit()
            return True


class RedshiftBatchScores:
    """On Redshift: COPY into staging from the files that the run put, then delete-insert. See `BatchScores`."""

    def __init__(self, database: RedshiftDatabase) -> None:
        self._database = database

    def load(self, batch_run: BatchRun, pieces: Iterator[pa.Table], copy_manifest: str) -> bool:
        """See `BatchScores`. Redshift enforces no key: a lock on `batch_run` stands between two who load."""
        values = asdict(batch_run) | {"loaded_at": datetime.now(UTC)}
        names, places = ", ".join(values), ", ".join(f":{name}" for name in values)
        columns = ", ".join(ROWS.names)
        one = {"run_id": batch_run.run_id}
        with redshift_translated("loading a batch of scores"), self._database.engine.connect() as connection:
            run_on_redshift(connection, f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            for statement in _layout(RedshiftDialect()):
                run_on_redshift(connection, statement)
            connection.commit()
            run_on_redshift(connection, f"LOCK {SCHEMA}.{RUN}")
            if run_on_redshift(connection, f"SELECT 1 FROM {SCHEMA}.{RUN} WHERE run_id = :run_id", one):
                return False
            for _ in pieces:  # each is held against its hash before Redshift reads it
                pass
            run_on_redshift(connection, _stage())
            self._database.copy(connection, SCORE, copy_manifest)
            ((copied,),) = run_on_redshift(connection, f"SELECT count(*) FROM {stage_of(SCORE)}")
            if copied != batch_run.scored:
                connection.rollback()
                raise StoreDisagrees(f"Redshift read {copied} rows of {copy_manifest}, {batch_run.scored} were scored: nothing was loaded")
            run_on_redshift(connection, f"DELETE FROM {SCHEMA}.{SCORE} WHERE run_id = :run_id", one)
            insert = f"INSERT INTO {SCHEMA}.{SCORE} (run_id, {columns}) SELECT :run_id, {columns} FROM {stage_of(SCORE)}"
            run_on_redshift(connection, insert, one)
            run_on_redshift(connection, f"INSERT INTO {SCHEMA}.{RUN} ({names}) VALUES ({places})", values)
            run_on_redshift(connection, f"DROP TABLE {stage_of(SCORE)}")
            connection.commit()
            return True


def batch_metadata() -> sa.MetaData:
    """Both tables, in creation order."""
    m = sa.MetaData(schema=SCHEMA)
    sa.Table(
        SCORE,
        m,
        sa.Column("run_id", text_id(), nullable=False, redshift_encode="raw"),  # sort keys are read to skip blocks
        *(
            sa.Column(field.name, _sql_type(field.type), nullable=field.name not in _GIVEN, redshift_encode=_encode(field))
            for field in ROWS
        ),
        sa.PrimaryKeyConstraint("run_id", "tx_seq"),
        redshift_diststyle="KEY",
        redshift_distkey="source_wallet_id",  # as the facts that it is joined with
        redshift_sortkey=["run_id", "tx_seq"],
    )
    sa.Table(
        RUN,
        m,
        sa.Column("run_id", text_id(), nullable=False),
        *(sa.Column(name, text_id(), nullable=False) for name in ("model_version", "source")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("from_seq", "until_seq", "scored")),
        *(sa.Column(name, text_id(), nullable=False) for name in ("manifest_uri", "manifest_sha256")),
        sa.Column("loaded_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
        redshift_diststyle="ALL",
    )
    return m


def _layout(dialect: Any) -> Sequence[str]:
    return [str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)).strip() for table in batch_metadata().tables.values()]


def _stage() -> str:
    kinds = ((field.name, _sql_type(field.type).compile(dialect=RedshiftDialect())) for field in ROWS)
    return f"CREATE TEMP TABLE {stage_of(SCORE)} ({', '.join(f'{name} {kind}' for name, kind in kinds)})"


def _sql_type(kind: pa.DataType) -> sa.types.TypeEngine[Any]:
    if pa.types.is_string(kind):
        return text_id()
    number: sa.types.TypeEngine[Any] = sa.BigInteger() if pa.types.is_integer(kind) else sa.DOUBLE_PRECISION()
    return number


def _encode(field: pa.Field) -> str:
    if field.name == "tx_seq" or pa.types.is_floating(field.type):
        return "raw"  # the other sort key; floats hardly pack
    return "zstd" if pa.types.is_string(field.type) else "az64"
