"""Fingerprints of sets of rows: equal for equal sets, in whatever order and pieces the rows come.

Rows become canonical text, each row two 64-bit hashes, the set their sums; the count and both sums must agree. The hashes are
polars' own and hold within one process, which is all that a comparison needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

_SEEDS = (1, 5)
_WORD = 1 << 64
_TEXT = "canonical"
_NULL = "∅"
_SHOWN = 2_000  # characters of a row in a message: the widest fact without embeddings


@dataclass(slots=True)
class Fingerprint:
    """Count and hash sums of a set of rows."""

    rows: int = 0
    first: int = 0
    second: int = 0

    def add(self, lines: pl.Series) -> None:
        """Take in rows as canonical text."""
        frame = lines.to_frame()
        self.rows += len(lines)
        self.first = (self.first + _sum(frame, _SEEDS[0])) % _WORD
        self.second = (self.second + _sum(frame, _SEEDS[1])) % _WORD


@dataclass(frozen=True, slots=True)
class Difference:
    """The first row, in order of its text, that only one side has."""

    table: str
    missing_in_store: str | None
    only_in_store: str | None

    def __str__(self) -> str:
        parts = [f"{self.table}:"]
        if self.missing_in_store is not None:
            parts.append(f"the log implies {self.missing_in_store[:_SHOWN]}")
        if self.only_in_store is not None:
            parts.append(f"the store holds {self.only_in_store[:_SHOWN]}")
        return " ".join(parts)


def fingerprints(tables: Iterable[tuple[str, pa.Table]]) -> dict[str, Fingerprint]:
    """The fingerprint of each table by name."""
    found: dict[str, Fingerprint] = {}
    for name, table in tables:
        found.setdefault(name, Fingerprint()).add(canonical_lines(table))
    return found


def first_difference(table: str, expected: Iterator[pa.Table], stored: Iterator[pa.Table]) -> Difference:
    """Which row differs. Holds the text of both sides: for the case that something is wrong already."""
    wanted = _lines(expected)
    found = _lines(stored)
    missing = wanted.filter(~wanted.is_in(found.implode())).sort()
    extra = found.filter(~found.is_in(wanted.implode())).sort()
    if not len(missing) and not len(extra):  # the same rows, one of them more often
        missing = _repeated(wanted)
        extra = _repeated(found)
    return Difference(table, missing[0] if len(missing) else None, extra[0] if len(extra) else None)


def canonical_lines(table: pa.Table) -> pl.Series:
    """Each row as `column=value` pairs in order of column name: text quoted, times in microseconds, bytes in
    hexadecimal, null as ∅."""
    frame = pl.DataFrame(pl.from_arrow(table))
    if not frame.width or not frame.height:
        return pl.Series(_TEXT, [], pl.String)
    cells = [_text(name, kind) for name, kind in sorted(frame.schema.items())]
    return frame.select(pl.concat_str(cells, separator=" ").alias(_TEXT)).to_series()


def _text(name: str, kind: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(kind, pl.Datetime):
        column = column.dt.epoch("us")
    elif isinstance(kind, pl.Binary):
        column = column.bin.encode("hex")
    elif isinstance(kind, pl.List):
        items = column.list.eval(_quoted(pl.element().cast(pl.String)).fill_null(_NULL)).list.join(",")
        column = pl.lit("[") + items + pl.lit("]")
    elif isinstance(kind, pl.String | pl.Categorical | pl.Enum):
        column = _quoted(column.cast(pl.String))
    return pl.lit(f"{name}=") + column.cast(pl.String).fill_null(_NULL)


def _quoted(text: pl.Expr) -> pl.Expr:
    """Text that cannot be taken for a null, for another text, or for the cells beside it."""
    escaped = text.str.replace_all("\\", "\\\\", literal=True).str.replace_all('"', '\\"', literal=True)
    return pl.lit('"') + escaped + pl.lit('"')


def _sum(frame: pl.DataFrame, seed: int) -> int:
    # Two halves of 32 bits: a sum of 64-bit numbers would wrap or lose digits.
    hashes = frame.hash_rows(seed)
    low, high = (hashes & 0xFFFF_FFFF).sum(), (hashes // (1 << 32)).sum()
    return int(low) + (int(high) << 32)


def _lines(tables: Iterator[pa.Table]) -> pl.Series:
    parts = [canonical_lines(table) for table in tables]
    return pl.concat(parts) if parts else pl.Series(_TEXT, [], pl.String)


def _repeated(lines: pl.Series) -> pl.Series:
    return lines.filter(lines.is_duplicated()).sort()
