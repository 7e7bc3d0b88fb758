"""What a projection is: a read model that is a pure function of the log, and the batches it is given.

The runner alone talks to the log; a projection only ever sees decoded batches and positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from domain.log import Position

COORDINATES = ("_topic", "_partition", "_offset", "_seq", "_timestamp_ms")
"""Columns that every decoded table carries beside the event's fields; `_seq` is -1 where a record has none."""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Decoded events by event type, each table in order of (partition, offset).

    Tables hold the fields that the projection reads (nested groups flattened with dots) and `COORDINATES`.
    """

    tables: Mapping[str, pa.Table]

    @property
    def rows(self) -> int:
        return sum(table.num_rows for table in self.tables.values())


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that cannot be applied: where it stands in the log, and why (a stable code and a sentence)."""

    topic: str
    partition: int
    offset: int
    reason: str
    message: str


class Projection(Protocol):
    """A sink whose store holds effects and checkpoint together.

    `apply` is atomic: after it returns, effects and the position `after` are durable; after it raises or the process
    dies, neither is. A second copy cannot write: the checkpoint moves by compare-and-set on `before`.

    A projection may declare `key_ordered`, the topics whose records of one key it must take in order: while one of a key stands in
    quarantine, the later ones are set aside too, and a replay keeps their order. One whose store may refuse a transaction for a moment
    (a deadlock) writes it again within a bound and counts that in `retries`: nobody else sees it.
    """

    name: str
    topics: tuple[str, ...]
    reads: Mapping[str, tuple[str, ...]]
    """Event type → fields used, empty for all. An event type that is not named here is skipped with that reason."""

    def load_position(self) -> Position:
        """The stored checkpoint, empty for a new store."""

    def screen(self, batch: EventBatch) -> Sequence[Rejection]:
        """Rows that break a rule of this store. The runner puts them into quarantine and drops them from the batch."""

    def apply(self, batch: EventBatch, before: Position, after: Position) -> None:
        """Write the batch and move the checkpoint of the partitions in `after` from `before`, in one transaction.

        Raises:
            StalePosition: the stored checkpoint is not `before`: another worker has written.
        """


@dataclass(slots=True)
class Excluded:
    """Records that a store does not hold, counted by a named reason."""

    count_by_reason: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, count: int = 1) -> None:
        """Count `count` records (nothing for zero)."""
        if count:
            self.count_by_reason[reason] = self.count_by_reason.get(reason, 0) + count


ReadBack = Callable[[], Iterator[tuple[str, pa.Table]]]
"""Reads the rows of a store, as often as one likes; see `Verifiable.read_back`."""


class Verifiable(Projection, Protocol):
    """A projection whose store can be proven equal to the log.

    Both methods yield (table name, Arrow table) with the same names and columns, in any order and any number of pieces. Every
    column must cast to text without loss. A projection may declare `read_first`, the topics that `expected` must be given before its
    others. Equal stores give equal sets of rows. A row that belongs to one record carries its
    `_topic`, `_partition` and `_offset`; a row folded from many (a dimension, a flow) has none and is named by its key columns.
    A store with snapshots has `pinned()`, a context of its position and a `ReadBack` at just that position, whoever writes meanwhile.
    """

    def expected(self, batches: Iterator[EventBatch], excluded: Excluded) -> Iterator[tuple[str, pa.Table]]:
        """The rows that the log implies. `batches` are the decoded events up to one position, quarantined records left out;
        a record that gives no row of its own is counted in `excluded` by reason."""

    def read_back(self) -> Iterator[tuple[str, pa.Table]]:
        """The rows that the store holds, read from the store itself.

        Raises:
            StoreUnavailable: it does not answer.
        """
