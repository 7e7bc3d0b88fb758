"""Rows as a source gave them: columns of text, each row's bytes for the quarantine, and what is no row at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schema_registry.avro_program import gather_spans

_Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Problems:
    """What is wrong with the rows of one chunk: the first problem of each row, as (reason code, sentence)."""

    rows: int
    by_row: dict[int, tuple[str, str]] = field(default_factory=dict)

    def add(self, is_bad: npt.NDArray[np.bool_], reason: str, message: str | Callable[[int], str]) -> None:
        """Note a problem where `is_bad` [rows]; a row that has one already keeps it."""
        for row in np.flatnonzero(is_bad).tolist():
            if row not in self.by_row:
                self.by_row[row] = (reason, message if isinstance(message, str) else message(row))

    def good(self) -> npt.NDArray[np.bool_]:
        """Rows [rows] without a problem."""
        flags = np.ones(self.rows, np.bool_)
        if self.by_row:
            flags[np.fromiter(self.by_row, np.int64, len(self.by_row))] = False
        return flags


@dataclass(frozen=True, slots=True)
class RawRows:
    """A run of source rows.

    `columns` holds text (pa.string, null where the row lacks it) or, from Parquet, the file's own type. `problems`
    holds rows that are no rows, or whose text is no text; `raw` gives a row's bytes; `first_row` counts from 0 after
    the header.
    """

    first_row: int
    count: int
    columns: Mapping[str, pa.Array]
    raw: Callable[[int], bytes]
    problems: Problems

    def sliced(self, start: int, stop: int) -> RawRows:
        """Rows `start` to `stop` - 1 of this run."""
        if start <= 0 and stop >= self.count:
            return self
        start, stop = max(0, start), min(stop, self.count)
        problems = Problems(
            stop - start,
            {row - start: problem for row, problem in self.problems.by_row.items() if start <= row < stop},
        )
        columns = {name: column.slice(start, stop - start) for name, column in self.columns.items()}
        return RawRows(self.first_row + start, stop - start, columns, lambda row: self.raw(row + start), problems)


def text_column(
    buffer: npt.NDArray[np.uint8],
    starts: _Ints,
    lengths: _Ints,
    escapes: npt.NDArray[np.uint8],
    problems: Problems,
    name: str,
) -> pa.Array:
    """The spans as pa.string; a row whose bytes are not UTF-8 is noted in `problems` and blanked."""
    n = len(starts)
    if escapes.any():
        return _with_escapes(buffer, starts, lengths, escapes, problems, name)
    offsets = np.zeros(n + 1, np.int64)
    out = np.empty(int(lengths.sum()), np.uint8)
    is_ascii = np.ones(n, np.bool_)
    gather_spans(buffer, starts, lengths, offsets, out, is_ascii)
    if not is_ascii.all():
        bad = np.zeros(n, np.bool_)
        for row in np.flatnonzero(~is_ascii).tolist():
            bad[row] = _is_no_text(out[offsets[row] : offsets[row + 1]].tobytes())
        if bad.any():
            _note(bad, problems, name)
            return text_column(buffer, starts, np.where(bad, 0, lengths), escapes, problems, name)
    if offsets[-1] >= 1 << 31:
        return pa.Array.from_buffers(pa.large_string(), n, [None, pa.py_buffer(offsets), pa.py_buffer(out)])
    narrow = offsets.astype(np.int32)
    return pa.Array.from_buffers(pa.string(), n, [None, pa.py_buffer(narrow), pa.py_buffer(out)])


def _with_escapes(
    buffer: npt.NDArray[np.uint8],
    starts: _Ints,
    lengths: _Ints,
    escapes: npt.NDArray[np.uint8],
    problems: Problems,
    name: str,
) -> pa.Array:
    values: list[bytes] = []
    bad = np.zeros(len(starts), np.bool_)
    for row, (start, length, is_escaped) in enumerate(zip(starts.tolist(), lengths.tolist(), escapes.tolist(), strict=True)):
        value = buffer[start : start + length].tobytes()
        if is_escaped:
            value = value.replace(b'""', b'"')
        bad[row] = not value.isascii() and _is_no_text(value)
        values.append(b"" if bad[row] else value)
    _note(bad, problems, name)
    return pa.array(values, pa.binary()).cast(pa.string())


def _note(bad: npt.NDArray[np.bool_], problems: Problems, name: str) -> None:
    problems.add(bad, "not_utf8", f"{name[:60]}: expected UTF-8 text, found other bytes")


def _is_no_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return True
    return False
