"""Where batch scoring reads transactions from, whether or not Kafka still holds them: the warehouse's facts, or the raw archive in S3.

Either gives every transaction in order of seq, or says which one is missing: features that skip one are others from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import pyarrow as pa

from domain.errors import TidemarkError
from domain.log import Position, TopicPartition
from infra.composition import Composition
from infra.history import in_order_of_seq
from ml.fields import TRANSACTION_FIELDS
from projections.archive_reading import ArchiveReader
from projections.records import NO_SEQ
from projections.warehouse.transaction_facts import PostgresTransactions, RedshiftTransactions, TransactionFacts
from schema_registry.catalog import SchemaCatalog
from schema_registry.contracts import TRANSACTION_EVENTS

WAREHOUSE, S3 = "warehouse", "s3"
SOURCES = (WAREHOUSE, S3)
_ASIDE = (
    "Is its record in quarantine (`tidemark quarantine list`), replay it; were rows deleted, `tidemark verify warehouse` says so and"
    " `tidemark rebuild warehouse` makes them anew. Or score from the archive: `--from s3`"
)
_LOST = (
    "An object was deleted, or the archive began after the log did. Bring the object back from a copy of the bucket; while Kafka has"
    " its records, `tidemark rebuild archive` makes a new one. Or score from the facts: `--from warehouse`"
)
_PIECE = 100_000  # rows in which a driver's large pieces are handed on, so that progress and Ctrl-C come through
_NEVER = int(np.iinfo(np.int64).max)

Told = Callable[[int], None]


class SourceIncomplete(TidemarkError):
    """A source lacks a transaction that lies before others which it has. The message names the seq and what to do."""


@dataclass(frozen=True, slots=True)
class Survey:
    """How far a source reaches: whole up to `end`, beyond it `waiting` transactions whose predecessors have not come yet.

    `since` has, for each time asked for, the first seq that Kafka took in then or later (`end` where there is none).
    """

    end: int
    waiting: int
    since: tuple[int, ...]
    position: Position


class TransactionSource(Protocol):
    """Transactions in order of seq."""

    kind: str
    generation: int

    def survey(self, times: Sequence[datetime], partitions: int, told: Told) -> Survey:
        """See how far it reaches.

        Args:
            times: of which the first seq is asked for.
            partitions: how many partitions the topic has.
            told: how many transactions were looked at.

        Raises:
            SourceIncomplete: a transaction is missing and will not come by waiting.
            StoreUnavailable: the store does not answer.
            StoreDisagrees: what it holds cannot be read.
        """

    def read(self, first: int, end: int) -> Generator[pa.Table]:
        """The transactions of [`first`, `end`), as `infra.history.transactions_in_order` gives them. Errors as `survey`."""


def transaction_source(composition: Composition, kind: str) -> TransactionSource:
    """The source of a name in `SOURCES`, its live generation."""
    if kind == S3:
        return ArchiveSource(composition.archive(), composition.generations.get("archive", 1), composition.clients.catalog)
    generation = composition.generations.get("warehouse", 1)
    database = composition.redshift
    facts = PostgresTransactions(composition.warehouse_dsn, generation) if database is None else RedshiftTransactions(database, generation)
    return FactSource(facts, generation)


class FactSource:
    """The warehouse's facts. See `TransactionSource`."""

    kind = WAREHOUSE

    def __init__(self, facts: TransactionFacts, generation: int) -> None:
        self._facts, self.generation = facts, generation

    def survey(self, times: Sequence[datetime], partitions: int, told: Told) -> Survey:
        """See `TransactionSource`."""
        position = self._facts.position()  # before the rows: it may be behind them, never ahead
        found = self._facts.partitions()
        rows = sum(one.rows for one in found)
        told(rows)
        last = max((one.last_seq for one in found), default=-1)
        gap = self._facts.first_gap() if rows != last + 1 else None
        end = last + 1 if gap is None else gap
        if gap is not None:
            _demand_that_it_may_come(gap, {one.partition: one.last_seq for one in found}, partitions, "the facts have", _ASIDE)
        since = [self._facts.seq_since(at) for at in times]
        kept = {place: offset for place, offset in position.items() if place[0] == TRANSACTION_EVENTS}
        return Survey(end, max(0, rows - end), tuple(end if seq is None else min(seq, end) for seq in since), kept)

    def read(self, first: int, end: int) -> Generator[pa.Table]:
        """See `TransactionSource`."""
        expected = first
        for table in self._facts.between(first, end):
            seqs = table["_seq"].to_numpy()
            wrong = np.flatnonzero(seqs != np.arange(expected, expected + len(seqs)))
            if len(wrong):
                at = expected + int(wrong[0])
                raise SourceIncomplete(f"the facts' next transaction should be seq {at}, found {int(seqs[wrong[0]])}. {_ASIDE}")
            expected += len(seqs)
            for start in range(0, len(seqs), _PIECE):
                yield table.slice(start, _PIECE)
        if expected < end:
            raise SourceIncomplete(f"the facts end at seq {expected}, expected {end}. {_ASIDE}")


class ArchiveSource:
    """The raw archive, its objects as they were listed first. See `TransactionSource`."""

    kind = S3

    def __init__(self, archive: ArchiveReader, generation: int, catalog: SchemaCatalog) -> None:
        self._archive, self.generation, self._catalog = archive, generation, catalog
        self._objects = archive.objects([TRANSACTION_EVENTS])
        self._ends: dict[TopicPartition, int] = {place: archive.end_of(found[-1]) for place, found in self._objects.items()}

    def survey(self, times: Sequence[datetime], partitions: int, told: Told) -> Survey:
        """See `TransactionSource`. Reads every object once, so that a damaged one is found before anything is scored."""
        next_seq, looked_at = 0, 0
        pending = np.zeros(0, np.int64)
        last: dict[int, int] = {}
        bounds = [round(at.astimezone(UTC).timestamp() * 1000) for at in times]
        since = [_NEVER] * len(bounds)
        for batch in self._archive.read_between(self._objects, {}, self._ends):
            seqs = batch.seqs()
            is_placed = seqs != NO_SEQ
            if is_placed.any():
                partition = int(batch.partitions[0])
                last[partition] = max(last.get(partition, -1), int(seqs.max()))
            for number, bound in enumerate(bounds):
                late = seqs[is_placed & (batch.timestamps_ms >= bound)]
                since[number] = min(since[number], int(late.min(initial=_NEVER)))
            pending = np.union1d(pending, seqs[is_placed & (seqs >= next_seq)])
            in_order = int((pending == np.arange(next_seq, next_seq + len(pending))).sum())  # they rise: what follows a gap never fits
            next_seq, pending = next_seq + in_order, pending[in_order:]
            looked_at += len(seqs)
            told(looked_at)
        if len(pending):
            _demand_that_it_may_come(next_seq, last, partitions, "the archive has", _LOST)
        found = tuple(min(seq, next_seq) for seq in since)
        return Survey(next_seq, len(pending), found, dict(self._ends))

    def read(self, first: int, end: int, fields: tuple[str, ...] = TRANSACTION_FIELDS) -> Generator[pa.Table]:
        """See `TransactionSource`; `fields` without any are all of `TransactionRecorded`."""
        yield from in_order_of_seq(self._catalog, self._archive.read_between(self._objects, {}, self._ends), first, fields)


def _demand_that_it_may_come(gap: int, last_by_partition: dict[int, int], partitions: int, has: str, advice: str) -> None:
    """A gap that every partition has passed will not be filled by what is still under way: within a partition seqs rise."""
    if len(last_by_partition) >= partitions and gap < min(last_by_partition.values()):
        raise SourceIncomplete(f"{has} no transaction with seq {gap}, and later ones of every partition. {advice}")
