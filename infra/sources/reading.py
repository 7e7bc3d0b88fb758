"""Reads a source through a mapping: chunks of framed commands, labels, and the rows that were refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from domain.commands import LabelTransaction
from infra.sources.byte_blocks import file_digest
from infra.sources.conversion import TransactionConverter
from infra.sources.mapping import LabelField, TransactionMapping
from infra.sources.pseudonyms import Pseudonyms
from infra.sources.raw_rows import RawRows
from infra.sources.readers import open_rows
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_encoder import ColumnEncoder

CHUNK_ROWS = 50_000  # 20 MB of commands; a chunk of a live stream is what has arrived
Source = str | Path | BinaryIO


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A source row that became no command: its place from 0, its bytes as they were, a stable code, a sentence."""

    row: int
    raw: bytes
    reason: str
    message: str


def rejected_rows(raw: RawRows) -> list[RejectedRow]:
    """The rows of a run that have a problem, in order."""
    problems = raw.problems.by_row
    return [RejectedRow(raw.first_row + row, raw.raw(row), *problems[row]) for row in sorted(problems)]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a source has been read, in bytes as stored; `bytes_total` and the estimate are none on a stream."""

    rows_read: int
    bytes_read: int
    bytes_total: int | None

    @property
    def rows_estimate(self) -> int | None:
        """Rows of the whole source if the rest is like what was read."""
        if self.bytes_total is None or not self.bytes_read:
            return None
        return max(self.rows_read, round(self.rows_read * self.bytes_total / self.bytes_read))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Source rows in order: `values[i]` is a `RecordTransaction` command, `keys[i]` its source wallet or tx_id.

    `rows_read` counts the chunk's rows: values and rejected together. `table` holds the accepted rows as columns.
    `first_occurred_at` and `last_occurred_at` are the earliest and the latest time, none without an accepted row.
    """

    values: list[bytes]
    keys: list[bytes]
    labels: list[LabelTransaction]
    rejected: list[RejectedRow]
    rows_read: int
    first_row: int
    first_occurred_at: datetime | None
    last_occurred_at: datetime | None
    progress: Progress
    table: pa.Table = field(repr=False)


def read(
    source: Source,
    mapping: TransactionMapping,
    *,
    ingest_id: str,
    catalog: SchemaCatalog,
    key: bytes | None = None,
    name: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
    first_row: int = 0,
    last_row: int | None = None,
    labels_known_at: datetime | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Chunk]:
    """Read transactions in the order of the source. Reading again gives the same commands, so a repeat records nothing.

    Args:
        source: a path, `-` for standard input, or a binary stream.
        mapping: what becomes of which column.
        ingest_id: the run that brings it in.
        catalog: schema ids for the frames.
        key: 16 to 64 secret bytes, where the mapping makes pseudonyms.
        name: how the origin calls the source; the file's name where none is given.
        chunk_rows: rows of a chunk at most.
        first_row: rows before this place (from 0, without the header) are passed over.
        last_row: the place after the last row to read.
        labels_known_at: when labels in the source's rows became known; without it the labels are left out, so that
            truth never enters by accident.
        now: the clock for the check against times in the future.

    Raises:
        UnreadableSource, WrongColumns, MappingError: before the first chunk.
        SourceCutShort: after every whole row before the break was delivered.
    """
    encoder = ColumnEncoder(catalog)
    runs = converted(
        source, mapping, ingest_id=ingest_id, key=key, name=name, chunk_rows=chunk_rows, first_row=first_row,
        last_row=last_row, with_labels=labels_known_at is not None, now=now,
    )  # fmt: skip
    label = mapping.label if labels_known_at is not None else None
    for run in runs:
        table, truth, rejected = _sifted(run, label)
        yield _assembled(table, truth, rejected, run.raw.first_row, run.progress, label, encoder, labels_known_at)


def read_in_time_order(
    source: Source,
    mapping: TransactionMapping,
    *,
    ingest_id: str,
    catalog: SchemaCatalog,
    key: bytes | None = None,
    name: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
    first_row: int = 0,
    last_row: int | None = None,
    labels_known_at: datetime | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Chunk]:
    """Read a source that is not in order of time: as `read`, sorted by event time, ties in file order.

    Holds all accepted rows in memory (about 0.4 GB a million). `first_row` and `last_row` are places in the new order,
    refused rows not counted; these come with the chunk that begins at 0. `origin.row` stays the file's.

    Raises:
        SourceError: as `read`, but before the first chunk: what follows a break might belong before what stands there.
    """
    tables: list[pa.Table] = []
    truths: list[pa.Array] = []
    rejected: list[RejectedRow] = []
    progress = Progress(0, 0, None)
    label = mapping.label if labels_known_at is not None else None
    for run in converted(
        source, mapping, ingest_id=ingest_id, key=key, name=name, chunk_rows=chunk_rows,
        with_labels=label is not None, now=now,
    ):  # fmt: skip
        table, truth, refused = _sifted(run, label)
        tables.append(table)
        truths += [truth] if truth is not None else []
        rejected += refused
        progress = run.progress
    if not tables:
        return
    whole = pa.concat_tables(tables, promote_options="permissive")
    order = np.argsort(np.array(whole.column("occurred_at").cast(pa.int64())), kind="stable")
    stop = len(order) if last_row is None else min(last_row, len(order))
    encoder = ColumnEncoder(catalog)
    texts = pa.concat_arrays(truths) if truths else None
    for start in range(first_row, max(stop, first_row + 1), chunk_rows):
        places = pa.array(order[start : min(start + chunk_rows, stop)])
        refused = rejected if start == 0 else []
        table = whole.take(places).combine_chunks()
        truth = texts.take(places) if texts is not None else None
        yield _assembled(table, truth, refused, start, progress, label, encoder, labels_known_at)


@dataclass(frozen=True, slots=True)
class Run:
    """Source rows [n] and what became of them: `table` [n] has a row for each, `raw.problems` names those refused."""

    raw: RawRows
    table: pa.Table
    progress: Progress


def converted(
    source: Source,
    mapping: TransactionMapping,
    *,
    ingest_id: str,
    key: bytes | None = None,
    name: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
    first_row: int = 0,
    last_row: int | None = None,
    with_labels: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Run]:
    """The rows of a source as columns, not yet encoded; arguments and errors as `read`."""
    pseudonyms = Pseudonyms(key) if key is not None else None
    converter = TransactionConverter(mapping, name or _name_of(source), ingest_id, _digest(source, mapping), pseudonyms)
    columns = [column for column in mapping.columns() if with_labels or not _is_label_only(mapping, column)]
    reader = open_rows(source, lambda header: columns, mapping.delimiter)
    for raw in reader.runs(chunk_rows):
        if last_row is not None and raw.first_row >= last_row:
            return
        if raw.first_row + raw.count <= first_row:
            continue
        stop = raw.count if last_row is None else last_row - raw.first_row
        part = raw.sliced(first_row - raw.first_row, stop)
        progress = Progress(raw.first_row + raw.count, reader.bytes_read, reader.size)
        yield Run(part, converter.convert(part, now()), progress)


def _sifted(run: Run, label: LabelField | None) -> tuple[pa.Table, pa.Array | None, list[RejectedRow]]:
    """A run's accepted rows, the text of their truth, and its refused rows."""
    raw, table = run.raw, run.table
    problems = raw.problems.by_row
    truth = raw.columns[label.column].cast(pa.string()) if label is not None else None
    if problems:
        good = pa.array(np.flatnonzero(raw.problems.good()))
        table = table.take(good)
        truth = truth.take(good) if truth is not None else None
    rejected = rejected_rows(raw)
    return table, truth, rejected


def _assembled(
    table: pa.Table, truth: pa.Array | None, rejected: list[RejectedRow], first_row: int, progress: Progress,
    label: LabelField | None, encoder: ColumnEncoder, labels_known_at: datetime | None,
) -> Chunk:  # fmt: skip
    keys = pc.coalesce(table.column("source_wallet_id"), table.column("tx_id")).cast(pa.binary()).to_pylist()
    labels: list[LabelTransaction] = []
    if truth is not None and label is not None and labels_known_at is not None:
        labels = transaction_labels(table, truth, label, labels_known_at)
    span = pc.min_max(table.column("occurred_at")).as_py()
    return Chunk(
        encoder.encode(table), keys, labels, rejected, table.num_rows + len(rejected), first_row, span["min"],
        span["max"], progress, table,
    )  # fmt: skip


def transaction_labels(table: pa.Table, truth: pa.Array, field: LabelField, known_at: datetime) -> list[LabelTransaction]:
    """Commands for the rows of `table` [n] whose `truth` [n] says something; each transaction's label once."""
    found: list[LabelTransaction] = []
    for tx_id, value in zip(table.column("tx_id").to_pylist(), truth.cast(pa.string()).to_pylist(), strict=True):
        label = field.label(value)
        if label is not None:
            found.append(LabelTransaction(tx_id, label.value, field.source, known_at))
    return found


def _is_label_only(mapping: TransactionMapping, column: str) -> bool:
    return mapping.label is not None and column == mapping.label.column


def _name_of(source: Source) -> str:
    if isinstance(source, (str, Path)):
        return "stdin" if str(source) == "-" else Path(source).name
    return "stream"


def _digest(source: Source, mapping: TransactionMapping) -> str | None:
    if not mapping.needs_file or not isinstance(source, (str, Path)) or str(source) == "-":
        return None
    return file_digest(source)


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a mapping would make of a source: the first accepted rows as columns, and refusals by reason."""

    accepted: list[dict[str, Any]]
    rows_read: int
    refusals: dict[str, int]
    examples: list[RejectedRow]


def dry_run(
    source: Source,
    mapping: TransactionMapping,
    *,
    catalog: SchemaCatalog,
    key: bytes | None = None,
    rows: int = 20,
    count_rows: int | None = None,
) -> DryRun:
    """Read without sending anything.

    Args:
        rows: accepted rows to show.
        count_rows: rows to count refusals in; the whole source where none is given, which never ends on a stream.

    Raises:
        SourceError: as `read`.
    """
    shown: list[dict[str, Any]] = []
    refusals: Counter[str] = Counter()
    examples: list[RejectedRow] = []
    total = 0
    for chunk in read(source, mapping, ingest_id="dry-run", catalog=catalog, key=key, last_row=count_rows):
        total += chunk.rows_read
        refusals.update(row.reason for row in chunk.rejected)
        examples += chunk.rejected[: 5 - len(examples)]
        if len(shown) < rows:
            shown += [
                {name: value for name, value in row.items() if value is not None}
                for row in chunk.table.slice(0, rows - len(shown)).to_pylist()
            ]
    return DryRun(shown, total, dict(refusals.most_common()), examples)
