"""The warehouse projection on Amazon Redshift: the rows, rules and proof of `sink.WarehouseProjection`, another way in and out.

A batch's Parquet files and manifest are put into S3 first. Then one transaction: lock and move the checkpoint, COPY into staging,
delete-insert, fold the dimensions. Redshift enforces no unique key, so the lock and the comparison under it are what makes a batch
count once; a lost answer to COMMIT is settled by reading the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import pyarrow as pa

from domain.log import Position, TopicPartition
from projections.errors import ProjectionError, StalePosition
from projections.failpoints import APPLIED, reach
from projections.fingerprint import Fingerprint, fingerprints
from projections.protocol import EventBatch, Excluded, ReadBack, Rejection
from projections.warehouse import redshift_statements as sql
from projections.warehouse.canonical import expected_rows
from projections.warehouse.facts import fact_rows
from projections.warehouse.redshift import RedshiftDatabase, RedshiftSession, run, stored_rows
from projections.warehouse.redshift_columns import too_long
from projections.warehouse.redshift_connection import redshift_translated
from projections.warehouse.rules import broken_rules
from projections.warehouse.sink import WarehouseProjection, schema_of


class RedshiftWarehouse:
    """A sink and a store that can be read back (`projections.protocol.Verifiable`), for one generation.

    Not thread-safe: one instance a worker. It connects at the first call and again after an error.

    Args:
        database: where it is, and from where it copies.
        generation: which build of the warehouse, from 1.
    """

    name = WarehouseProjection.name
    topics: tuple[str, ...] = WarehouseProjection.topics
    reads: Mapping[str, tuple[str, ...]] = WarehouseProjection.reads

    def __init__(self, database: RedshiftDatabase, generation: int = 1) -> None:
        self.generation = generation
        self.schema = schema_of(generation)
        self._database = database
        self._session: RedshiftSession | None = None

    def load_position(self) -> Position:
        """The stored checkpoint; makes the generation's tables if there are none.

        Raises:
            StoreUnavailable: the warehouse does not answer.
            ProjectionError: it refuses.
        """
        with self._transaction("reading the checkpoint") as session:
            return session.load_position()

    def clean_up(self) -> int:
        """Delete the staged files of this generation that a crash left; returns how many. For its worker, when it starts.

        Another worker of the same generation that is just loading stages its batch again.

        Raises:
            StoreUnavailable: S3 refused or did not answer.
        """
        return self._database.files.remove(self.schema)

    def screen(self, batch: EventBatch) -> Sequence[Rejection]:
        """Rows that break a rule of `rules.RULES`, or hold more than a column of Redshift takes: one rejection a row."""
        broken = {(one.partition, one.offset, one.topic): one for one in (*too_long(batch), *broken_rules(batch))}
        return list(broken.values())

    def apply(self, batch: EventBatch, before: Position, after: Position) -> None:
        """Write the batch and move the checkpoint, in one transaction.

        Raises:
            StalePosition: the stored checkpoint is not `before`.
            StoreUnavailable: Redshift or S3 does not answer, or another transaction came first (error 1023). Whether the
                transaction was committed is then to be read from `load_position`, as its answer may have been lost.
            ProjectionError: the warehouse refuses the rows.
            ValueError: `after` lies before `before`.
        """
        facts = list(fact_rows(batch))
        with self._transaction("applying a batch") as session:
            session.stage(facts, before, after)
            for place in sorted(after):
                self._advance(session, place, before.get(place), after[place])
            session.load(facts)
            reach(APPLIED)
        session.committed()

    def refresh(self) -> None:
        """Bring the materialised views to the facts; readers go on meanwhile.

        Raises:
            StoreUnavailable: the warehouse does not answer.
            ProjectionError: it refuses.
        """
        with self._transaction("refreshing the materialised views") as session:
            session.refresh()

    def expected(self, batches: Iterator[EventBatch], excluded: Excluded) -> Iterator[tuple[str, pa.Table]]:
        """The rows that the log implies, dimensions last. Every event read gives a row, so nothing is excluded."""
        return expected_rows(batches)

    def read_back(self) -> Iterator[tuple[str, pa.Table]]:
        """The rows of every table as of one snapshot, in pieces of bounded size.

        Raises:
            StoreUnavailable: the warehouse does not answer.
            StoreDisagrees: it holds a value that cannot be read as what was written.
            ProjectionError: it refuses.
        """
        with redshift_translated("reading the warehouse back"), self._database.connect(self.schema) as connection:
            yield from stored_rows(connection)

    @contextmanager
    def pinned(self) -> Iterator[tuple[Position, ReadBack]]:
        """The checkpoint, and what reads every row at that checkpoint. Errors as `read_back`."""
        with redshift_translated("reading a snapshot"), self._database.connect(self.schema) as connection:
            position = {(topic, partition): offset for topic, partition, offset in run(connection, sql.LOAD_CHECKPOINTS)}
            yield position, lambda: stored_rows(connection)

    def snapshot(self) -> tuple[Position, dict[str, Fingerprint]]:
        """The checkpoint and the fingerprint of each table at that checkpoint. Errors as `read_back`."""
        with self.pinned() as (position, read_back):
            return position, fingerprints(read_back())

    def stored_counts(self) -> dict[str, int]:
        """How many rows each table holds, by the server's catalog.

        Raises:
            StoreUnavailable: the warehouse does not answer.
            ProjectionError: it refuses.
        """
        with redshift_translated("counting rows"), self._database.engine.connect() as connection:
            return {name: int(rows) for name, rows in run(connection, sql.STORED_COUNTS, {"schema": self.schema})}

    def close(self) -> None:
        """End the connection; the next call opens another."""
        session, self._session = self._session, None
        if session is not None:
            with redshift_translated("closing the connection"):
                session.close()

    def _advance(self, session: RedshiftSession, place: TopicPartition, before: int | None, after: int) -> None:
        topic, partition = place
        if after < (before or 0):
            raise ValueError(f"expected a checkpoint that rises, found {before} to {after} at {topic}-{partition}")
        if not session.advance(place, before, after):
            raise StalePosition(
                f"expected the checkpoint of {self.name} at {before} for {topic}-{partition}, found another: a second worker has written"
            )

    @contextmanager
    def _transaction(self, what: str) -> Iterator[RedshiftSession]:
        """A session whose work is committed on a clean exit; any error drops the connection, and with it the work."""
        try:
            with redshift_translated(what):
                if self._session is None:
                    self._session = self._database.open(self.schema)
                yield self._session
                self._session.commit()
        except BaseException:
            session, self._session = self._session, None
            if session is not None:
                with suppress(ProjectionError), redshift_translated("closing the connection"):  # the first error is the one to hear of
                    session.close()
            raise
