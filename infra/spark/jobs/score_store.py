"""Scores of the stream in Postgres: rows, alerts and position of a micro-batch in one transaction, so that each record has one effect.

The position decides, not Spark's checkpoint: a batch that comes again after its commit finds the position moved, and a second job on the
same tables finds it elsewhere than it believes. Alerts are an outbox: they stand here first, and are marked once DynamoDB has them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
from psycopg import sql

SCHEMA = "spark_scores"
LAYOUT = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS {SCHEMA}.position (
    topic text NOT NULL, partition integer NOT NULL, next_offset bigint NOT NULL, PRIMARY KEY (topic, partition)
);
CREATE TABLE IF NOT EXISTS {SCHEMA}.score (
    log_partition integer NOT NULL, log_offset bigint NOT NULL, seq bigint, tx_id text NOT NULL, occurred_at timestamptz,
    model_version text NOT NULL, score double precision NOT NULL, PRIMARY KEY (log_partition, log_offset)
);
CREATE TABLE IF NOT EXISTS {SCHEMA}.alert (
    log_partition integer NOT NULL, log_offset bigint NOT NULL, tx_id text NOT NULL, seq bigint, model_version text NOT NULL,
    score double precision NOT NULL, threshold double precision NOT NULL, is_delivered boolean NOT NULL DEFAULT false,
    PRIMARY KEY (log_partition, log_offset)
);
CREATE INDEX IF NOT EXISTS alert_undelivered ON {SCHEMA}.alert (log_partition, log_offset) WHERE NOT is_delivered;
CREATE TABLE IF NOT EXISTS {SCHEMA}.refused (
    log_partition integer NOT NULL, log_offset bigint NOT NULL, reason text NOT NULL, message text NOT NULL, value bytea,
    PRIMARY KEY (log_partition, log_offset)
);
"""
SCORE_COLUMNS = ("log_partition", "log_offset", "seq", "tx_id", "occurred_at", "model_version", "score")
ALERT_COLUMNS = ("log_partition", "log_offset", "tx_id", "seq", "model_version", "score", "threshold")
_LAYOUT_LOCK = 7_155_318_219


class StaleScores(Exception):
    """Another job has moved the position meanwhile."""


class ScoreStore:
    """One connection; not for several threads."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, connect_timeout=10, application_name="tidemark-spark")

    def prepare(self) -> None:
        """Make the tables where they are missing."""
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LAYOUT_LOCK,))
            self._connection.execute(LAYOUT)

    def position(self, topic: str) -> dict[int, int]:
        """The next offset of each partition."""
        with self._connection.transaction():
            query = f"SELECT partition, next_offset FROM {SCHEMA}.position WHERE topic = %s"
            return dict(self._connection.execute(query, (topic,)).fetchall())

    def keep(
        self, topic: str, before: Mapping[int, int], after: Mapping[int, int], scores: pa.Table, alerts: pa.Table, refused: Sequence[Any]
    ) -> None:
        """Add the rows of one batch and move the position, all or nothing.

        Raises:
            StaleScores: the stored position is not `before`.
        """
        with self._connection.transaction():
            for partition, end in sorted(after.items()):
                start = before.get(partition, 0)
                moved = self._connection.execute(
                    f"INSERT INTO {SCHEMA}.position AS p VALUES (%s, %s, %s) ON CONFLICT (topic, partition)"
                    " DO UPDATE SET next_offset = excluded.next_offset WHERE p.next_offset = %s",
                    (topic, partition, end, start),
                ).rowcount
                if not moved:
                    raise StaleScores(f"expected the scores of {topic}-{partition} to end at {start}: another job has moved them")
            self._copy("score", SCORE_COLUMNS, scores)
            self._copy("alert", ALERT_COLUMNS, alerts)
            if refused:
                with self._connection.cursor() as cursor:
                    cursor.executemany(f"INSERT INTO {SCHEMA}.refused VALUES (%s, %s, %s, %s, %s)", refused)

    def undelivered(self, most: int) -> list[dict[str, Any]]:
        """Alerts that DynamoDB may not have yet, at most so many, in order."""
        columns = ", ".join(ALERT_COLUMNS)
        query = f"SELECT {columns} FROM {SCHEMA}.alert WHERE NOT is_delivered ORDER BY log_partition, log_offset LIMIT %s"
        with self._connection.transaction():
            return [dict(zip(ALERT_COLUMNS, row, strict=True)) for row in self._connection.execute(query, (most,))]

    def delivered(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """Mark alerts as those that DynamoDB has."""
        keys = [[one["log_partition"] for one in alerts], [one["log_offset"] for one in alerts]]
        with self._connection.transaction():
            self._connection.execute(
                f"UPDATE {SCHEMA}.alert a SET is_delivered = true FROM unnest(%s::int[], %s::bigint[]) AS k (p, o)"
                " WHERE a.log_partition = k.p AND a.log_offset = k.o",
                keys,
            )

    def forget_deliveries(self) -> None:
        """Mark every alert as not delivered: DynamoDB has lost its table."""
        with self._connection.transaction():
            self._connection.execute(f"UPDATE {SCHEMA}.alert SET is_delivered = false WHERE is_delivered")

    def snapshot(self, topic: str) -> tuple[dict[int, int], list[tuple[int, int]], list[tuple[int, int]], int, int]:
        """At one moment: the position, places of scores and of refused records, how many alerts there are and how many of them were
        delivered."""
        with self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            query = f"SELECT partition, next_offset FROM {SCHEMA}.position WHERE topic = %s"
            position: dict[int, int] = dict(self._connection.execute(query, (topic,)).fetchall())
            scores, refused = self.places("score"), self.places("refused")
            row = self._connection.execute(f"SELECT count(*), count(*) FILTER (WHERE is_delivered) FROM {SCHEMA}.alert").fetchone()
            return position, scores, refused, *((int(row[0]), int(row[1])) if row else (0, 0))

    def places(self, table: str) -> list[tuple[int, int]]:
        """Partition and offset of every row of `score` or `refused`."""
        query = sql.SQL("SELECT log_partition, log_offset FROM {}").format(sql.Identifier(SCHEMA, table))
        with self._connection.transaction():
            return [(int(partition), int(offset)) for partition, offset in self._connection.execute(query)]

    def count(self, table: str) -> int:
        """How many rows `score`, `alert` or `refused` has."""
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(SCHEMA, table))
        with self._connection.transaction():
            row = self._connection.execute(query).fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _copy(self, table: str, columns: Sequence[str], rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        out = io.BytesIO()
        pa_csv.write_csv(rows.select(list(columns)), out, pa_csv.WriteOptions(include_header=False, quoting_style="needed"))
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(sql.Identifier(SCHEMA, table), names)
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(out.getbuffer())
