"""Where archive and Kafka are stitched: at the exact offset, and never over a hole that may hold records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from domain.log import Position, Record
from infra import history_source
from infra.history_source import History, HistoryIncomplete, HistorySource
from projections.archive_reading import ArchiveObject
from projections.errors import StoreDisagrees, StoreUnavailable
from projections.records import RecordBatch
from schema_registry.contracts import COMMANDS, WALLET_EVENTS

TP = (WALLET_EVENTS, 0)


def records(first: int, end: int, topic: str = WALLET_EVENTS) -> RecordBatch:
    """One record an offset."""
    return RecordBatch.of([Record(topic, 0, offset, offset, b"k", b"v") for offset in range(first, end)])


class Archive:
    """Objects of one partition as (first, end)."""

    def __init__(self, spans: Sequence[tuple[int, int]], beginning: Position | None) -> None:
        self.spans, self._beginning = spans, beginning

    def objects(self, topics: Sequence[str] = ()) -> dict[Any, list[ArchiveObject]]:
        return {TP: [ArchiveObject(str(end), TP, first, 10, 0.0) for first, end in self.spans]} if self.spans else {}

    def end_of(self, last: ArchiveObject) -> int:
        return int(last.key)

    def beginning(self) -> Position | None:
        return self._beginning

    def read_between(self, objects: Mapping[Any, Sequence[ArchiveObject]], start: Position, end: Position) -> Iterator[RecordBatch]:
        for first, last in self.spans:
            first, last = max(first, start.get(TP, 0)), min(last, end[TP])
            if first < last:
                yield records(first, last)


class Stitched(History):
    """A history over a Kafka that holds offsets from `start` to `end` and an archive; `None` for one that does not answer."""

    def __init__(self, start: int, end: int, archive: Archive | None) -> None:
        ends = lambda topics: {(t, 0): end for t in topics}  # noqa: E731
        admin = SimpleNamespace(starts=lambda topics: {(t, 0): start for t in topics}, ends=ends, written=ends)
        super().__init__(SimpleNamespace(admin=admin, kafka={}))  # type: ignore[arg-type]
        self._archive = archive

    def archive(self) -> Any:
        if self._archive is None:
            raise StoreUnavailable("S3: it is down")
        return self._archive


@pytest.fixture(autouse=True)
def _kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka's first record stands at its first offset."""

    def read(config: Any, topics: Sequence[str], start: Position, end: Position, *_: Any, **__: Any) -> Iterator[RecordBatch]:
        yield records(start[TP], end[TP])

    monkeypatch.setattr(history_source, "read_batches", read)


@pytest.mark.parametrize(
    ("kafka", "spans", "prefers", "position", "seam", "begin"),
    [
        pytest.param((0, 90), [], False, {}, None, None, id="nothing is cut and no archive is asked"),
        pytest.param((0, 90), [(0, 40)], True, {}, 40, 40, id="the archive is preferred as far as it goes"),
        pytest.param((30, 90), [(0, 40)], True, {}, 40, 40, id="the archive is preferred across the cut"),
        pytest.param((30, 90), [(0, 40)], False, {}, 30, 30, id="only what Kafka has no longer"),
        pytest.param((30, 90), [(0, 20), (25, 40)], False, {TP: 10}, 30, 30, id="from a position on"),
        pytest.param((30, 90), [(0, 40)], False, {TP: 35}, None, 35, id="a position that Kafka holds"),
        pytest.param((41, 90), [(0, 40)], False, {}, 40, 41, id="a marker stands between"),
        pytest.param((41, 41), [(0, 40)], False, {}, 40, 41, id="a marker was the last thing in Kafka"),
        pytest.param((41, 90), [(0, 40)], False, {TP: 40}, None, 41, id="all was read but the marker"),
        pytest.param((0, 90), [(50, 60)], True, {}, None, None, id="an archive that began late is not needed"),
    ],
)
def test_each_offset_comes_from_one_place(
    kafka: tuple[int, int], spans: list[tuple[int, int]], prefers: bool, position: Position, seam: int | None, begin: int | None
) -> None:
    beginning = {TP: spans[0][0] if spans else 0}
    plan = Stitched(*kafka, Archive(spans, beginning)).plan([WALLET_EVENTS], position, prefers_archive=prefers)
    assert plan.seams.get(TP) == seam
    assert plan.kafka.get(TP) == begin


@pytest.mark.parametrize(
    ("kafka", "spans", "beginning", "said"),
    [
        pytest.param((30, 90), [], {TP: 0}, "ends at 0 and Kafka begins at 30", id="nothing was archived"),
        pytest.param((30, 90), [(0, 20)], {TP: 0}, "ends at 20 and Kafka begins at 30", id="the archive ends before the cut"),
        pytest.param((30, 90), [(5, 40)], {TP: 5}, "offsets 0 to 30 are wanted", id="the archive began late"),
        pytest.param((30, 90), [(5, 40)], None, "holds 5 to 40", id="nobody wrote down where it began"),
    ],
)
def test_what_neither_has_is_named(kafka: tuple[int, int], spans: list[tuple[int, int]], beginning: Position | None, said: str) -> None:
    with pytest.raises(HistoryIncomplete, match=said):
        Stitched(*kafka, Archive(spans, beginning)).plan([WALLET_EVENTS], {}, prefers_archive=True)


def test_an_offset_between_that_may_be_a_record_is_not_read_over(monkeypatch: pytest.MonkeyPatch) -> None:
    # Kafka's first record stands after its first offset: that is a marker, and the one before may be its transaction's record.
    monkeypatch.setattr(history_source, "read_batches", lambda *_, **__: iter([records(43, 90)]))
    with pytest.raises(HistoryIncomplete, match="offsets between are in neither"):
        Stitched(41, 90, Archive([(0, 40)], {TP: 0})).plan([WALLET_EVENTS], {}, prefers_archive=False)


def test_an_archive_ahead_of_the_log_is_of_another_log() -> None:
    with pytest.raises(StoreDisagrees, match="of different logs"):
        Stitched(0, 30, Archive([(0, 40)], {TP: 0})).plan([WALLET_EVENTS], {}, prefers_archive=True)


def test_an_archive_that_does_not_answer_matters_only_where_it_is_needed() -> None:
    assert Stitched(0, 90, None).plan([WALLET_EVENTS], {}, prefers_archive=True).seams == {}
    with pytest.raises(StoreUnavailable):
        Stitched(30, 90, None).plan([WALLET_EVENTS], {}, prefers_archive=True)


def test_commands_are_not_archived_and_read_from_what_is_left() -> None:
    assert Stitched(30, 90, None).plan([COMMANDS], {}, prefers_archive=False).seams == {}


def test_a_live_worker_is_moved_over_a_marker_but_not_over_records() -> None:
    history = Stitched(41, 90, Archive([(0, 40)], {TP: 0}))
    assert history.lifted([WALLET_EVENTS], {TP: 40}) == {TP: 41}
    assert history.lifted([WALLET_EVENTS], {TP: 60}) == {TP: 60}
    with pytest.raises(HistoryIncomplete, match="records from 30 on were not read before"):
        history.lifted([WALLET_EVENTS], {TP: 30})
    with pytest.raises(HistoryIncomplete, match="records from 0 on"):
        history.lifted([WALLET_EVENTS], {})
    assert history.lifted([WALLET_EVENTS], {}, may_begin_late=True) == {}
    later = Stitched(41, 90, Archive([(0, 40), (41, 60)], {TP: 0}))
    assert later.lifted([WALLET_EVENTS], {TP: 40}) == {TP: 41}, "the archive has gone on past the marker since"


def test_the_source_goes_on_in_kafka_where_the_archive_ends_and_stops_where_it_is_told() -> None:
    class Kafka:
        def open(self, load_position: Any, on_revoked: Any, on_lost: Any) -> None:
            self.at = load_position()[TP]

        def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
            first, self.at = self.at, min(90, self.at + max_records)
            return [records(first, self.at)] if first < self.at else []

        def close(self) -> None: ...

    history = Stitched(30, 90, Archive([(0, 20), (20, 40)], {TP: 0}))
    source = HistorySource(history, Kafka(), [WALLET_EVENTS], prefers_archive=True, end={TP: 77})
    source.open(lambda: {TP: 3}, lambda: None, lambda: None)
    found: list[int] = []
    while batches := source.poll(16, 0.0):
        assert all(len(batch) <= 16 for batch in batches)
        found += [offset for batch in batches for offset in batch.offsets.tolist()]
    source.close()
    assert found == list(np.arange(3, 77))
