"""Which control event is the last one: by the log's own order, whatever the broker's clock did meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from domain.log import Record
from infra.log_view import LogView
from projections.records import RecordBatch
from schema_registry.contracts import CONTROL_EVENTS
from tests.unit.projections.fakes import CATALOG, CODEC


class Control(LogView):
    """A view on swaps of the graph to these generations, appended at these times in milliseconds."""

    def __init__(self, *swaps: tuple[int, int], partition: int = 0) -> None:
        super().__init__(SimpleNamespace(catalog=CATALOG))  # type: ignore[arg-type]
        self._records = [
            Record(CONTROL_EVENTS, partition, offset, at, b"graph", CODEC.encode("GenerationSwapped", _swap(generation)))
            for offset, (generation, at) in enumerate(swaps)
        ]

    def read(self, topics: Any, start: Any, end: Any = None) -> Iterator[RecordBatch]:
        yield RecordBatch.of(self._records)


def _swap(generation: int) -> dict[str, Any]:
    return {"projection": "graph", "generation": generation, "replaced": generation - 1, "known_at": datetime(2020, 1, 1, tzinfo=UTC)}


def test_the_last_swap_is_the_last_one_appended_also_where_the_brokers_clock_stepped_back() -> None:
    log = Control((2, 5_000), (3, 1_000), (4, 900))
    assert log.generations() == {"graph": 4}
    assert log.last_swap("graph") == (4, 3)


def test_with_a_clock_that_only_rises_it_is_the_same() -> None:
    assert Control((2, 1_000), (3, 5_000)).last_swap("graph") == (3, 2)
