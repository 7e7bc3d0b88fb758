"""The sink suite for a projection of one's own (`projections.table_projection`): name its class, and every test of the suite runs on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from projections.decoding import decode
from projections.fingerprint import canonical_lines
from projections.protocol import EventBatch, Excluded
from projections.records import RecordBatch
from projections.table_projection import TableProjection
from schema_registry.column_codec import ColumnCodec
from tests.contracts.test_sink import CATALOG, END, RECORDS, SinkContract, dies_after
from tests.unit.projections.warehouse.databases import fresh_database


def decoded(projection: type[TableProjection]) -> EventBatch:
    """The suite's ninety transactions as the projection reads them."""
    events, rejections = decode(ColumnCodec(CATALOG, projection.reads), [RecordBatch.of(RECORDS)])
    assert rejections == []
    return events


class TableContract(SinkContract):
    """On a Postgres of the tests' own. A subclass sets `projection`."""

    projection: ClassVar[type[TableProjection]]

    @pytest.fixture
    def open_sink(self, postgres_dsn: str) -> Iterator[Callable[[], TableProjection]]:
        opened: list[TableProjection] = []
        with fresh_database(postgres_dsn) as dsn:

            def one_more(generation: int = 1) -> TableProjection:
                opened.append(self.projection(dsn, generation))
                return opened[-1]

            self.open = one_more
            yield one_more
            for sink in opened:
                sink.close()

    def fresh(self, sink: TableProjection) -> TableProjection:
        return self.open(2)

    def crash_before_commit(self, sink: TableProjection, monkeypatch: pytest.MonkeyPatch) -> None:
        dies_after(sink, "_advance", monkeypatch)

    def whole(self, sink: Any) -> list[str]:
        """What the store holds, which must be what all of the log implies."""
        assert sink.load_position() == END
        rows = self.rows(sink)
        implied = sink.expected(iter([decoded(self.projection)]), Excluded())
        assert rows == sorted(f"{name} {line}" for name, table in implied for line in canonical_lines(table))
        assert rows
        return rows
