"""How one database takes a batch in and gives its rows back: what differs between PostgreSQL and Redshift, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import pyarrow as pa

from domain.log import Position, TopicPartition
from projections.protocol import EventBatch, Rejection
from projections.warehouse.facts import Fact

Facts = Sequence[tuple[Fact, pa.Table]]


class Session(Protocol):
    """One open connection in one generation's schema. What is done between two commits is one transaction."""

    def load_position(self) -> Position:
        """The stored checkpoint."""

    def stage(self, facts: Facts, before: Position, after: Position) -> None:
        """Bring the rows to where the database can take them from, outside of the transaction. The same again changes nothing."""

    def advance(self, place: TopicPartition, before: int | None, after: int) -> bool:
        """Move one checkpoint by compare-and-set; false where it does not stand at `before`. No second writer passes until the commit."""

    def load(self, facts: Facts) -> None:
        """Write the staged facts and fold their dimensions."""

    def refresh(self) -> None:
        """Bring the materialised views to the facts."""

    def commit(self) -> None:
        """Make everything since the last commit durable."""

    def committed(self) -> None:
        """The last commit was acknowledged: what it staged may go."""

    def close(self) -> None:
        """End the connection; what was not committed is undone."""


@runtime_checkable
class Loader(Protocol):
    """Opens sessions on one database. Nothing is opened before it is asked for."""

    def open(self, schema: str) -> Session:
        """A session in this schema, which exists afterwards with all of its tables and views."""

    def screen(self, batch: EventBatch) -> Sequence[Rejection]:
        """Rows that this database cannot hold, beside those that break a rule."""

    def read_back(self, schema: str) -> Iterator[tuple[str, pa.Table]]:
        """Every table's canonical rows as of one snapshot, in pieces of bounded size."""

    def clean_up(self, schema: str) -> int:
        """Delete what a crash left of staged batches, when a writer starts; returns how many objects."""

    def translated(self, what: str) -> AbstractContextManager[None]:
        """Run a step; the driver's errors come out as `StoreUnavailable` where time may cure them, else as `ProjectionError`."""
