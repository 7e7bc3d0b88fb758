"""The warehouse projection: every event that says something about value, wallets, scores and cases becomes rows.

Reads the event types of `facts.FACTS`. A batch is one transaction: the checkpoint moves by compare-and-set, facts come
in by COPY, dimensions by anti-join; so a batch is applied once or not at all. How, is the `loader`'s of the database:
`postgres` or `redshift`. A rebuild is the same projection with the next generation number, in its own schema. A row
that breaks one of the `rules` goes to quarantine; a broken store stops the worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import pyarrow as pa

from domain.log import Position, TopicPartition
from projections.errors import ProjectionError, StalePosition
from projections.failpoints import APPLIED, reach
from projections.protocol import EventBatch, Excluded, Rejection
from projections.warehouse.canonical import expected_rows
from projections.warehouse.connection import Connect
from projections.warehouse.facts import FACTS, fact_rows, fields_read
from projections.warehouse.loader import Loader, Session
from projections.warehouse.postgres import PostgresLoader
from projections.warehouse.rules import broken_rules


def schema_of(generation: int) -> str:
    """The database schema of one generation."""
    return f"warehouse_g{generation:d}"


class WarehouseProjection:
    """A sink and a store that can be read back (`projections.protocol.Verifiable`), for one generation.

    Not thread-safe: one instance a worker. It connects at the first call and again after an error.

    Args:
        store: libpq URI or conninfo or what opens an ADBC connection, for Postgres; else the loader of the database.
        generation: which build of the warehouse, from 1.
    """

    name = "warehouse"
    topics: tuple[str, ...] = tuple(dict.fromkeys(fact.topic for fact in FACTS))
    reads: Mapping[str, tuple[str, ...]] = fields_read()

    def __init__(self, store: str | Connect | Loader, generation: int = 1) -> None:
        self.generation = generation
        self.schema = schema_of(generation)
        self._loader: Loader = store if isinstance(store, Loader) else PostgresLoader(store)
        self._session: Session | None = None

    def load_position(self) -> Position:
        """The stored checkpoint; makes the generation's tables if there are none.

        Raises:
            StoreUnavailable: the warehouse does not answer.
            ProjectionError: it refuses.
        """
        with self._transaction("reading the checkpoint") as session:
            return session.load_position()

    def clean_up(self) -> int:
        """Delete what a crash left of staged batches, when this generation's worker starts; returns how many objects.

        Raises:
            StoreUnavailable: where they are staged does not answer.
        """
        return self._loader.clean_up(self.schema)

    def screen(self, batch: EventBatch) -> Sequence[Rejection]:
        """Rows that break a rule of `rules.RULES` or that this database cannot hold, one rejection a row: the first rule broken."""
        broken = broken_rules(batch)
        places = {(one.topic, one.partition, one.offset) for one in broken}
        return [*broken, *(one for one in self._loader.screen(batch) if (one.topic, one.partition, one.offset) not in places)]

    def apply(self, batch: EventBatch, before: Position, after: Position) -> None:
        """Write the batch and move the checkpoint, in one transaction.

        Raises:
            StalePosition: the stored checkpoint is not `before`.
            StoreUnavailable: the warehouse does not answer. Whether the transaction was committed is then to be read
                from `load_position`, as its answer may have been lost.
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
        with self._loader.translated("reading the warehouse back"):
            yield from self._loader.read_back(self.schema)

    def close(self) -> None:
        """End the connection; the next call opens another."""
        session, self._session = self._session, None
        if session is not None:
            with self._loader.translated("closing the connection"):
                session.close()

    def _advance(self, session: Session, place: TopicPartition, before: int | None, after: int) -> None:
        topic, partition = place
        if after < (before or 0):
            raise ValueError(f"expected a checkpoint that rises, found {before} to {after} at {topic}-{partition}")
        if not session.advance(place, before, after):
            raise StalePosition(
                f"expected the warehouse's checkpoint of {topic}-{partition} at {before}, found another: a second worker has written"
            )

    @contextmanager
    def _transaction(self, what: str) -> Iterator[Session]:
        """A session whose work is committed on a clean exit; any error drops the connection, and with it the work."""
        try:
            with self._loader.translated(what):
                if self._session is None:
                    self._session = self._loader.open(self.schema)
                yield self._session
                self._session.commit()
        except BaseException:
            session, self._session = self._session, None
            if session is not None:
                with suppress(ProjectionError), self._loader.translated("closing the connection"):  # the first error is the one to hear of
                    session.close()
            raise
