"""Rows out of CSV, JSON lines and Parquet in bounded memory; gzip is unpacked on the way.

The format follows from the name (.parquet, .jsonl, .ndjson, .json, else CSV) or, on a stream, from its first byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from infra.sources.byte_blocks import BrokenStream, ByteBlocks, open_blocks
from infra.sources.csv_scan import TEXT_AFTER_QUOTE, UNCLOSED_QUOTE, find_newlines, scan_csv
from infra.sources.errors import SourceCutShort, UnreadableSource, WrongColumns
from infra.sources.raw_rows import Problems, RawRows, text_column

MAX_ROW_BYTES = 16 << 20  # a longer row is refused and skipped, so a bomb of one endless line costs no more than this
KEPT_OF_LONG_ROW = 64 << 10  # bytes of a longer row that go to the quarantine: a Kafka record holds about a MiB

_Uint8 = npt.NDArray[np.uint8]


class RowReader(Protocol):
    """A source as rows. `bytes_read` of `size` bytes as stored are behind it; `size` is none where nobody knows."""

    header: tuple[str, ...]

    @property
    def size(self) -> int | None: ...

    @property
    def bytes_read(self) -> int: ...

    def runs(self, rows: int) -> Iterator[RawRows]:
        """Runs of at most `rows` rows in the order of the source.

        Raises:
            SourceCutShort: the source breaks off; the rows before it were handed on.
        """


def open_rows(source: str | Path | BinaryIO, wanted: Callable[[tuple[str, ...]], Iterable[str]], delimiter: str = ",") -> RowReader:
    """A reader for a source.

    Args:
        source: a path, `-` for standard input, or a binary stream.
        wanted: given the header, the columns to read (empty header: JSON lines, whose rows name their own).
        delimiter: between the fields of CSV.

    Raises:
        UnreadableSource: nothing can be read, or it is empty.
        WrongColumns: a wanted column is not in the header.
    """
    where = str(source) if isinstance(source, (str, Path)) else "stream"
    if where.lower().endswith((".parquet", ".pq")):
        return ParquetRows(where, wanted)
    blocks = open_blocks(source)
    stream = iter(blocks)
    first = _first_block(stream, where)
    name = where.lower().removesuffix(".gz")
    opening = first.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if name.endswith((".jsonl", ".ndjson", ".json")) or opening == b"{":
        if opening == b"[" and not blocks.is_live:
            raise UnreadableSource(f"{where}: one JSON array, expected one object a line: jq -c '.[]' makes them")
        return JsonRows(where, blocks, stream, first, tuple(wanted(())))
    return CsvRows(where, blocks, stream, first, wanted, ord(delimiter))


def _first_block(stream: Iterator[bytes], where: str) -> bytes:
    try:
        first = next(stream, b"")
    except BrokenStream as error:
        raise UnreadableSource(f"{where}: {error}") from error
    if not first:
        raise UnreadableSource(f"{where}: empty, expected a header or a first row")
    return first


class _Buffered:
    """What both text formats share: the part of the stream not yet used, and how it ends."""

    def __init__(self, where: str, blocks: ByteBlocks, stream: Iterator[bytes], first: bytes) -> None:
        self.where, self._blocks, self._stream = where, blocks, stream
        self.pending = first.removeprefix(b"\xef\xbb\xbf")
        self.is_final = False
        self.broken: BrokenStream | None = None
        self.row = 0  # the next row's place
        self._is_skipping = False  # inside a row that was too long

    @property
    def size(self) -> int | None:
        return self._blocks.size

    @property
    def bytes_read(self) -> int:
        return self._blocks.bytes_read

    def more(self) -> None:
        """Take in one block, or learn that there is none."""
        try:
            block = next(self._stream, b"")
        except BrokenStream as error:
            self.broken = error
            block = b""
        if block:
            self.pending += block
        else:
            self.is_final = True

    def skip_rest_of_long_row(self) -> bool:
        """Whether a row that was too long is behind us; while false, `pending` was thrown away."""
        if self._is_skipping:
            end = self.pending.find(b"\n")
            self.pending = self.pending[end + 1 :] if end >= 0 else b""
            self._is_skipping = end < 0 and not self.is_final
        return not self._is_skipping

    def long_row(self, columns: Iterable[str]) -> RawRows:
        """The row that is too long, as a run of its own with its problem; the rest of it will be skipped."""
        kept = self.pending[:KEPT_OF_LONG_ROW]
        end = self.pending.find(b"\n")
        self.pending = self.pending[end + 1 :] if end >= 0 else b""
        self._is_skipping = end < 0
        message = f"expected at most {MAX_ROW_BYTES} bytes a row, found more; the first {len(kept)} are kept"
        rows = RawRows(
            self.row, 1, {name: pa.nulls(1, pa.string()) for name in columns}, lambda row: kept,
            Problems(1, {0: ("row_too_long", message)}),
        )  # fmt: skip
        self.row += 1
        return rows

    def check_end(self) -> None:
        if self.broken is not None:
            raise SourceCutShort(self.where, self.row, str(self.broken)) from self.broken


class CsvRows(_Buffered):
    """CSV with a header; repeated names get `.1`, `.2` behind them."""

    def __init__(
        self, where: str, blocks: ByteBlocks, stream: Iterator[bytes], first: bytes,
        wanted: Callable[[tuple[str, ...]], Iterable[str]], delimiter: int,
    ) -> None:  # fmt: skip
        super().__init__(where, blocks, stream, first)
        self._delimiter = delimiter
        self.header = self._read_header()
        self._wanted = tuple(wanted(self.header))
        missing = [name for name in self._wanted if name not in self.header]
        if missing:
            raise WrongColumns(where, missing, self.header)

    def _read_header(self) -> tuple[str, ...]:
        scan = _Scan(1 << 12, 1)
        while True:
            buffer = np.frombuffer(self.pending, np.uint8)
            found, after = scan.run(buffer, 0, self._delimiter, self.is_final)
            if found or self.is_final or len(self.pending) > MAX_ROW_BYTES:
                break
            self.more()
        if not found or scan.counts[0] < 0:
            raise UnreadableSource(f"{self.where}: expected a header line, found {self.pending[:60]!r}")
        names: list[str] = []
        for field in range(min(int(scan.counts[0]), len(scan.starts))):
            start = int(scan.starts[field, 0])
            name = buffer[start : start + int(scan.lengths[field, 0])].tobytes().decode("utf-8", "replace").strip()
            name = name.replace('""', '"')
            repeats = sum(1 for other in names if other == name or other.rpartition(".")[0] == name)
            names.append(f"{name}.{repeats}" if name in names else name)
        self.pending = self.pending[after:]
        return tuple(names)

    def runs(self, rows: int) -> Iterator[RawRows]:
        width = len(self.header)
        at = 0
        while True:
            if at == 0 and not self.skip_rest_of_long_row():
                self.more()
                continue
            buffer = np.frombuffer(self.pending, np.uint8)
            scan = _Scan(width, min(rows, max(16, (len(buffer) - at) // max(1, width))))
            is_final = self.is_final and self.broken is None
            found, after = scan.run(buffer, at, self._delimiter, is_final)
            if not found and after == at and not is_final and len(buffer) - at > MAX_ROW_BYTES:
                # An unclosed quote may be all that is wrong: its first line alone is the row then.
                found, after = _Scan.first_line(scan, buffer, at, self._delimiter)
                if not found:
                    self.pending, at = self.pending[at:], 0
                    yield self.long_row(self._wanted)
                    continue
            if found:
                yield self._run(buffer, scan, found)
                self.row += found
            at = after
            if found == len(scan.counts) or (found and at < len(buffer) and is_final):
                continue  # there was no room for the rest
            if self.is_final:
                self.check_end()
                return
            self.pending, at = self.pending[at:], 0
            self.more()

    def _run(self, buffer: _Uint8, scan: _Scan, found: int) -> RawRows:
        counts, starts, ends = scan.counts[:found], scan.row_starts[:found], scan.row_ends[:found]
        width = len(self.header)
        problems = Problems(found)
        problems.add(counts == UNCLOSED_QUOTE, "malformed_row", "a quote opens and never closes")
        problems.add(counts == TEXT_AFTER_QUOTE, "malformed_row", "text follows a closing quote")
        problems.add(counts != width, "malformed_row", lambda row: f"expected {width} fields, found {int(counts[row])}")
        is_good = problems.good()
        columns = {}
        for name in self._wanted:
            field = self.header.index(name)
            lengths = np.where(is_good, scan.lengths[field, :found], 0)
            escapes = np.where(is_good, scan.escapes[field, :found], 0).astype(np.uint8)
            columns[name] = text_column(buffer, scan.starts[field, :found], lengths, escapes, problems, name)
        return RawRows(self.row, found, columns, lambda row: buffer[int(starts[row]) : int(ends[row])].tobytes(), problems)


class _Scan:
    """Room for the places of `rows` rows of `width` fields."""

    def __init__(self, width: int, rows: int) -> None:
        self.starts = np.zeros((width, rows), np.int64)
        self.lengths = np.zeros((width, rows), np.int64)
        self.escapes = np.zeros((width, rows), np.uint8)
        self.row_starts = np.zeros(rows, np.int64)
        self.row_ends = np.zeros(rows, np.int64)
        self.counts = np.zeros(rows, np.int64)

    def run(self, buffer: _Uint8, at: int, delimiter: int, is_final: bool) -> tuple[int, int]:
        found, after = scan_csv(
            buffer, at, delimiter, is_final, self.starts, self.lengths, self.escapes, self.row_starts, self.row_ends,
            self.counts,
        )  # fmt: skip
        return int(found), int(after)

    def first_line(self, buffer: _Uint8, at: int, delimiter: int) -> tuple[int, int]:
        """The rows of the text up to the first newline after `at`, nothing where there is none."""
        newlines = np.flatnonzero(buffer[at : at + MAX_ROW_BYTES] == 10)
        if not len(newlines):
            return 0, at
        return self.run(buffer[: at + int(newlines[0]) + 1], at, delimiter, True)


class JsonRows(_Buffered):
    """JSON lines: one object a line; nested objects are named with dots. Numbers keep their text, so stay exact."""

    header: tuple[str, ...] = ()

    def __init__(self, where: str, blocks: ByteBlocks, stream: Iterator[bytes], first: bytes, wanted: tuple[str, ...]) -> None:
        super().__init__(where, blocks, stream, first)
        self._wanted = wanted
        self._is_checked = blocks.is_live  # one odd row must not end a stream

    def runs(self, rows: int) -> Iterator[RawRows]:
        at = 0
        while True:
            if at == 0 and not self.skip_rest_of_long_row():
                self.more()
                continue
            buffer = np.frombuffer(self.pending, np.uint8)
            starts, ends = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
            found, after = find_newlines(buffer, at, self.is_final and self.broken is None, starts, ends)
            found, after = int(found), int(after)
            if not found and after == at and not self.is_final and len(buffer) - at > MAX_ROW_BYTES:
                self.pending, at = self.pending[at:], 0
                yield self.long_row(self._wanted)
                continue
            if found:
                yield self._run(self.pending, starts[:found].tolist(), ends[:found].tolist())
                self.row += found
            at = after
            if found == rows:
                continue
            if self.is_final:
                self.check_end()
                return
            self.pending, at = self.pending[at:], 0
            self.more()

    def _run(self, buffer: bytes, starts: list[int], ends: list[int]) -> RawRows:
        problems = Problems(len(starts))
        values: dict[str, list[str | None]] = {name: [None] * len(starts) for name in self._wanted}
        seen: dict[str, None] = {}
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            try:
                record = parse_json_row(buffer[start:end])
            except ValueError as error:
                problems.by_row[row] = ("malformed_row", f"expected a JSON object, found {error}")
                continue
            if not self._is_checked:
                seen.update(dict.fromkeys(record))
            for name in self._wanted:
                values[name][row] = record.get(name)
        if not self._is_checked:
            missing = [name for name in self._wanted if name not in seen]
            if missing and seen:
                raise WrongColumns(self.where, missing, tuple(seen))
            self._is_checked = bool(seen)
        columns = {name: pa.array(found, pa.string()) for name, found in values.items()}
        return RawRows(self.row, len(starts), columns, lambda row: buffer[starts[row] : ends[row]], problems)


def parse_json_row(line: bytes) -> dict[str, str | None]:
    """An object's leaves as text by their names, nested names joined with dots; numbers as written.

    Raises:
        ValueError: no JSON object, or text that is not Unicode.
    """
    try:
        record = json.loads(line.decode(), parse_float=str, parse_int=str, parse_constant=str)
    except UnicodeDecodeError as error:
        raise ValueError(f"bytes that are not UTF-8: {error.reason} at {error.start}") from error
    except RecursionError as error:
        raise ValueError("nesting without end") from error
    if not isinstance(record, dict):
        raise ValueError(type(record).__name__)
    flat: dict[str, str | None] = {}
    _flatten(record, "", flat, 8)
    return flat


def _flatten(record: dict[str, Any], prefix: str, flat: dict[str, str | None], depth: int) -> None:
    for key, value in record.items():
        if isinstance(value, dict) and depth:
            _flatten(value, f"{prefix}{key}.", flat, depth - 1)
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif value is not None and not isinstance(value, str):
            value = json.dumps(value)
        if value is not None and not value.isascii():
            value.encode()  # a lone surrogate (\ud800) is no text: UnicodeEncodeError is a ValueError
        flat[prefix + key] = value


class ParquetRows:
    """Parquet, a batch of rows at a time; a refused row's raw bytes are its fields as JSON."""

    def __init__(self, where: str, wanted: Callable[[tuple[str, ...]], Iterable[str]]) -> None:
        self.where = where
        try:
            self._file = pq.ParquetFile(where)
            self._size = Path(where).stat().st_size
        except (OSError, pa.ArrowException) as error:
            raise UnreadableSource(f"{where}: no readable Parquet: {error}") from error
        self.header = tuple(self._file.schema_arrow.names)
        self._wanted = tuple(wanted(self.header))
        missing = [name for name in self._wanted if name not in self.header]
        if missing:
            raise WrongColumns(where, missing, self.header)
        self._row = 0

    @property
    def size(self) -> int | None:
        return self._size

    @property
    def bytes_read(self) -> int:
        total = self._file.metadata.num_rows
        return int(self._size * self._row / total) if total else self._size

    def runs(self, rows: int) -> Iterator[RawRows]:
        try:
            for batch in self._file.iter_batches(rows):
                columns = {name: _plain(batch.column(name)) for name in self._wanted}
                yield RawRows(self._row, batch.num_rows, columns, _as_json(batch), Problems(batch.num_rows))
                self._row += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise SourceCutShort(self.where, self._row, str(error)) from error


def _as_json(batch: pa.RecordBatch) -> Callable[[int], bytes]:
    return lambda row: json.dumps(batch.slice(row, 1).to_pylist()[0], default=str).encode()


def _plain(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type) or pa.types.is_string(column.type):
        return column
    if pa.types.is_decimal(column.type):
        return pa.array([None if v is None else format(v, "f") for v in column.to_pylist()], pa.string())
    if pa.types.is_binary(column.type) or pa.types.is_nested(column.type):
        return pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())
    return column.cast(pa.string())
