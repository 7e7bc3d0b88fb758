"""The warehouse projection: every event that says something about value, wallets, scores and cases becomes rows.

Reads the event types of `facts.FACTS`. A batch is one transaction: the checkpoint moves by compare-and-set, facts come
in by binary COPY, dimensions by anti-join; so a batch is applied once or not at all. Each place in the log is a fact's
primary key, which turns a mistake in that into an error. A rebuild is the same projection with the next generation
number, in its own Postgres schema. A row that breaks one of the `rules` goes to quarantine; a broken store stops the
worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
from adbc_driver_manager.dbapi import Cursor

from domain.log import Position
from projections.failpoints import APPLIED, reach
from projections.protocol import EventBatch, Excluded, Rejection
from projections.warehouse import statements as sql
from projections.warehouse.canonical import expected_rows, stored_rows
from projections.warehouse.connection import Connect, run
from projections.warehouse.ddl import create_index, create_table, create_view
from projections.warehouse.ddl import statements as layout
from projections.warehouse.dimensions import DimensionKeys, load_dimensions
from projections.warehouse.facts import FACTS, fact_rows, fields_read
from projections.warehouse.rules import broken_rules
from projections.warehouse.store import PostgresStore
from projections.warehouse.tables import LATER_INDEXES, LATER_TABLES, LATER_VIEWS
from projections.warehouse.views import MATERIALISED_VIEWS

# Rows that the driver encodes at once, some 1 MB: Postgres takes one piece in while the next is encoded. As one piece the two
# wait for each other, at 1.2 times the time; pieces below a thousand rows cost as much again in calls.
PIECE_ROWS = 4_096


def schema_of(generation: int) -> str:
    """The Postgres schema of one generation."""
    return f"warehouse_g{generation:d}"


class WarehouseProjection(PostgresStore):
    """A sink and a store that can be read back (`projections.protocol.Verifiable`), for one generation.

    Args:
        dsn: libpq URI or conninfo, or what opens an ADBC connection.
        generation: which build of the warehouse, from 1.
    """

    name = "warehouse"
    topics: tuple[str, ...] = tuple(dict.fromkeys(fact.topic for fact in FACTS))
    reads: Mapping[str, tuple[str, ...]] = fields_read()

    def __init__(self, dsn: str | Connect, generation: int = 1) -> None:
        super().__init__(dsn, schema_of(generation))
        self.generation = generation
        self._known = DimensionKeys()

    def screen(self, batch: EventBatch) -> Sequence[Rejection]:
        """Rows that break a rule of `rules.RULES`, one rejection a row: the first rule broken."""
        return broken_rules(batch)

    def apply(self, batch: EventBatch, before: Position, after: Position) -> None:
        """Write the batch and move the checkpoint, in one transaction.

        Raises:
            StalePosition: the stored checkpoint is not `before`.
            StoreUnavailable: the warehouse does not answer. Whether the transaction was committed is then to be read
                from `load_position`, as its answer may have been lost.
            ProjectionError: the warehouse refuses the rows.
            ValueError: `after` lies before `before`.
        """
        keys = DimensionKeys()
        described: set[str] = set()
        trained: set[str] = set()
        with self._transaction("applying a batch") as cursor:
            self._advance(cursor, before, after)
            for fact, rows in fact_rows(batch):
                cursor.adbc_ingest(fact.table, rows.to_reader(max_chunksize=PIECE_ROWS), mode="append")
                keys.add(fact, rows)
                if fact.table == "fact_wallet_description":
                    described.update(rows["wallet_id"].to_pylist())
                elif fact.table == "fact_model_training":
                    trained.update(rows["model_version"].to_pylist())
            new = keys.without(self._known)
            load_dimensions(cursor, new, described, trained)
            reach(APPLIED)
        self._known.remember(new)

    def refresh(self) -> None:
        """Bring the materialised views to the facts; readers go on meanwhile.

        Raises:
            StoreUnavailable: the warehouse does not answer.
            ProjectionError: it refuses.
        """
        with self._transaction("refreshing the materialised views") as cursor:
            for name in MATERIALISED_VIEWS:
                run(cursor, f"REFRESH MATERIALIZED VIEW CONCURRENTLY {name}")

    def expected(self, batches: Iterator[EventBatch], excluded: Excluded) -> Iterator[tuple[str, pa.Table]]:
        """The rows that the log implies, dimensions last. Every event read gives a row, so nothing is excluded."""
        return expected_rows(batches)

    def _layout(self) -> Iterator[str]:
        return layout("postgresql")

    def _later(self) -> Iterator[tuple[str, str]]:
        yield from ((name, create_table(name, "postgresql")) for name in LATER_TABLES)
        yield from ((name, create_index(name)) for name in LATER_INDEXES)
        yield from ((name, create_view(name, "postgresql")) for name in LATER_VIEWS)

    def _stages(self) -> Iterator[str]:
        return iter(sql.STAGES.split(";"))

    def _stored(self, cursor: Cursor) -> Iterator[tuple[str, pa.Table]]:
        return stored_rows(cursor)
