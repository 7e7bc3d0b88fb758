"""The curated projection: transactions, decoded, in an Iceberg table partitioned by day.

Reads `TransactionRecorded` in full. A batch is one Iceberg commit, which holds its rows and the position (a property of the
snapshot): applied once or not at all. The commit is refused if another snapshot has come meanwhile; the writer then reads the
position anew, and stops where it is no longer the one it started from. A rebuild is the next table. A transaction whose day no
calendar has goes to quarantine; a broken store stops the worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.table import Table

from domain.log import Position
from projections.curated.catalog import NAMESPACE, CuratedCatalog, translated
from projections.curated.table import EVENT_TYPE, canonical, columns, open_table, position_of, position_text, rows, table_name
from projections.curated.upkeep import Upkeep, delete_below, maintain
from projections.errors import ProjectionError, StalePosition, StoreDisagrees, StoreUnavailable
from projections.failpoints import APPLIED, reach
from projections.protocol import EventBatch, Excluded, ReadBack, Rejection
from schema_registry.column_codec import TIME
from schema_registry.contracts import TRANSACTION_EVENTS

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

log = structlog.get_logger(__name__)

COMMIT_ATTEMPTS = 10  # each lost one means that a worker of other partitions, or upkeep, has committed
_MICROS_FIRST, _MICROS_END = -62_135_596_800_000_000, 253_402_300_800_000_000  # the years 1 to 9999, as Iceberg's dates have them
READ_ROWS = 20_000  # that are compared at a time
TABLE = "transactions"
"""Name of the rows in a proof, the same for every generation."""


class CuratedProjection:
    """A sink and a store that can be read back (`projections.protocol.Verifiable`), for one generation.

    Not thread-safe: one instance a worker.

    Args:
        catalog: where the table is registered.
        s3: client of the object store that holds `bucket`; it deletes what no snapshot needs any more.
        generation: which build, from 1.
        upkeep: when files are compacted, snapshots expired and orphans deleted.
    """

    name = "curated"
    topics: tuple[str, ...] = (TRANSACTION_EVENTS,)
    reads: Mapping[str, tuple[str, ...]] = {EVENT_TYPE: ()}

    def __init__(self, catalog: CuratedCatalog, s3: S3Client, bucket: str, generation: int = 1, upkeep: Upkeep | None = None) -> None:
        self.generation = generation
        self._catalog, self._s3, self._bucket = catalog, s3, bucket
        self._upkeep = upkeep or Upkeep()
        self._table: Table | None = None
        self._commits: int | None = None

    @property
    def table_name(self) -> str:
        """The table's name within the namespace."""
        return table_name(self.generation)

    def load_position(self) -> Position:
        """The position of the current snapshot; makes the table if there is none, and adds columns that the contract has gained.

        Raises:
            StoreUnavailable: catalog or S3 does not answer.
            StoreDisagrees: no snapshot says how far the table is.
        """
        return position_of(self._reload())

    def exists(self) -> bool:
        """Whether the table is there; makes nothing.

        Raises:
            StoreUnavailable: the catalog does not answer.
        """
        return self._catalog.exists() and self.table_name in self._catalog.tables()

    def screen(self, batch: EventBatch) -> Sequence[Rejection]:
        """Transactions outside the years 1 to 9999: no reader could name their day."""
        events = batch.tables.get(EVENT_TYPE)
        if events is None:
            return []
        micros = events["occurred_at"].cast(TIME).cast(pa.int64())
        outside = pc.or_(pc.less(micros, _MICROS_FIRST), pc.greater_equal(micros, _MICROS_END))
        bad = events.filter(pc.fill_null(outside, False)).select(["_topic", "_partition", "_offset"])
        sentence = f"{EVENT_TYPE}: expected a time of the years 1 to 9999 in occurred_at, found another"
        return [
            Rejection(row["_topic"], row["_partition"], row["_offset"], "time_out_of_range", sentence) for row in bad.to_pylist()
        ]  # fmt: skip

    def apply(self, batch: EventBatch, before: Position, after: Position) -> None:
        """Add the batch's rows and move the position, in one commit; then, now and then, keep the table in order.

        Raises:
            StalePosition: the stored position is not `before`.
            StoreUnavailable: catalog or S3 does not answer. Whether the commit took place is then to be read from
                `load_position`, as its answer may have been lost.
            ValueError: `after` lies before `before`.
        """
        new = rows(batch.tables.get(EVENT_TYPE))
        table = self._table or self._reload()
        for _ in range(COMMIT_ATTEMPTS):
            if not _is_at(position_of(table), before, after):
                table = self._reload()  # perhaps what we hold is old
                stored = position_of(table)
                if not _is_at(stored, before, after):
                    raise StalePosition(
                        f"expected the curated table's position {dict(before)}, found {stored}: a second worker has written"
                    )
            try:
                with translated("committing a batch"), table.transaction() as change:
                    change.append(new, snapshot_properties=position_text({**position_of(table), **after}))
                    reach(APPLIED)
                break
            except CommitFailedException:
                table = self._reload()
        else:
            raise StoreUnavailable(f"curated: others committed {COMMIT_ATTEMPTS} times in a row; this batch found no gap between them")
        self._after_commit(table)

    def location(self) -> str:
        """The folder of the table's files; makes the table if there is none.

        Raises:
            StoreUnavailable: catalog or S3 does not answer.
        """
        return str(self._reload().location())

    def adopt(self, files: Sequence[str], position: Position) -> None:
        """Register Parquet files that somebody else wrote as the whole content up to a position, in one commit.

        Each file holds rows of one day, with the table's columns; nobody has written to the table before.

        Raises:
            StalePosition: somebody has.
            StoreUnavailable: catalog or S3 does not answer.
        """
        table = self._reload()
        if position_of(table):
            raise StalePosition(f"expected {self.table_name} without rows, found it at {position_of(table)}")
        try:
            with translated("registering files"), table.transaction() as change:
                if files:
                    change.add_files(list(files), snapshot_properties=position_text(position), check_duplicate_files=False)
                else:
                    change.append(rows(None), snapshot_properties=position_text(position))
        except CommitFailedException as error:
            raise StalePosition(f"{self.table_name}: a second worker has written meanwhile") from error

    def refresh(self) -> None:
        """Compact, expire and delete now, without waiting for the next turn.

        Raises:
            StoreUnavailable: catalog or S3 does not answer.
        """
        with translated("keeping the table in order"):
            done = maintain(self._reload(), self._s3, self._bucket, self._upkeep)
        log.info("kept_in_order", table=self.table_name, **done.as_json())

    def expected(self, batches: Iterator[EventBatch], excluded: Excluded) -> Iterator[tuple[str, pa.Table]]:
        """The rows that the log implies. Every transaction gives one, so nothing is excluded."""
        for batch in batches:
            events = batch.tables.get(EVENT_TYPE)
            if events is not None and events.num_rows:
                yield TABLE, canonical(rows(events))

    def read_back(self) -> Iterator[tuple[str, pa.Table]]:
        """The rows of the current snapshot, read from the data files in pieces.

        Raises:
            StoreUnavailable: catalog or S3 does not answer.
            StoreDisagrees: a data file that the snapshot names is gone.
        """
        return _rows_of(self._reload())

    @contextmanager
    def pinned(self) -> Iterator[tuple[Position, ReadBack]]:
        """The position of the current snapshot, and what reads its rows, whoever commits meanwhile. Errors as `read_back`."""
        table = self._reload()
        yield position_of(table), lambda: _rows_of(table)

    def publish(self) -> None:
        """Tell readers that this generation is the live one.

        Raises:
            StoreUnavailable: the catalog does not answer.
        """
        if self._catalog.live() != self.table_name:
            self._catalog.publish(self.table_name)

    def remove(self) -> int:
        """Drop the table and delete its files; returns how many there were.

        Raises:
            StoreUnavailable: catalog or S3 does not answer.
        """
        catalog = self._catalog.open()
        self._table = None
        with translated("removing the table"):
            try:
                location = catalog.load_table((NAMESPACE, self.table_name)).location()
                catalog.drop_table((NAMESPACE, self.table_name))
            except NoSuchTableError:
                return 0
            return delete_below(self._s3, self._bucket, location)

    def close(self) -> None:
        """Give its connections back; the next call opens others."""
        self._table = None
        self._catalog.close()

    def _reload(self) -> Table:
        catalog = self._catalog.open()
        if self._table is None:
            self._table = open_table(catalog, self.generation, self._bucket)
        else:
            with translated("reading the table's metadata"):
                self._table.refresh()
        return self._table

    def _after_commit(self, table: Table) -> None:
        """Upkeep every so many commits. The batch is durable by now: what goes wrong here is told and tried again at the next turn."""
        if self._commits is None:  # a worker that restarts often must get there too
            self._commits = table.last_sequence_number % self._upkeep.every_commits
        self._commits += 1
        if self._commits < self._upkeep.every_commits:
            return
        self._commits = 0
        try:
            self.refresh()
        except (ProjectionError, CommitFailedException) as error:
            log.warning("upkeep_failed", table=self.table_name, error=str(error))


def _is_at(stored: Position, before: Position, after: Position) -> bool:
    """Whether the partitions to be moved stand where the writer believes; nothing read yet is the same as no position."""
    for tp, offset in after.items():
        if offset < before.get(tp, 0):
            raise ValueError(f"expected a position that rises, found {before[tp]} to {offset} at {tp[0]}-{tp[1]}")
    return all(stored.get(tp, 0) == before.get(tp, 0) for tp in after)


def _gathered(pieces: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Pieces in lists of `READ_ROWS` rows or more, the last excepted: there is a piece a file, and files of a day may hold ten rows."""
    found: list[pa.RecordBatch] = []
    count = 0
    for piece in pieces:
        if piece.num_rows:
            found.append(piece)
            count += piece.num_rows
        if count >= READ_ROWS:
            yield found
            found, count = [], 0
    if found:
        yield found


def _rows_of(table: Table) -> Iterator[tuple[str, pa.Table]]:
    try:
        with translated("reading the table back"):
            scan = table.scan(selected_fields=tuple(columns().names))
            for pieces in _gathered(scan.to_arrow_batch_reader()):
                yield TABLE, canonical(pa.Table.from_batches(pieces))
    except StoreUnavailable as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise StoreDisagrees(f"curated: a file that the current snapshot names is gone: {error.__cause__}") from error
        raise
