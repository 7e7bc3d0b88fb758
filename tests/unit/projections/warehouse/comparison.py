"""Canonical rows as sets that compare, the way the verifier compares stores."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from projections.protocol import EventBatch, Excluded
from projections.warehouse import WarehouseProjection

Rows = dict[str, set[tuple[tuple[str, object], ...]]]


def rows_of(pieces: Iterable[tuple[str, pa.Table]]) -> Rows:
    """Rows by table; a row is its (column, value) pairs. Fails on a row that comes twice."""
    found: Rows = {}
    for name, table in pieces:
        for row in table.to_pylist():
            key = tuple(row.items())
            assert key not in found.setdefault(name, set()), f"{name} holds a row twice: {row}"
            found[name].add(key)
    return {name: rows for name, rows in found.items() if rows}


def expected_rows(projection: WarehouseProjection, *batches: EventBatch) -> Rows:
    """What the log implies."""
    excluded = Excluded()
    rows = rows_of(projection.expected(iter(batches), excluded))
    assert not excluded.count_by_reason
    return rows


def stored_rows(projection: WarehouseProjection) -> Rows:
    """What the store holds."""
    return rows_of(projection.read_back())
