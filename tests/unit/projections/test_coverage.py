"""Ranges of offsets whose holes have names: against logs that hypothesis makes up, and against reads that went wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.log import Position
from projections.coverage import Coverage, Covered, Visible
from projections.records import RecordBatch
from tests.unit.projections.fakes import T, batch_of, record

RECORD, ABORTED, MARKER = "record", "aborted", "marker"
KINDS = st.lists(st.sampled_from([RECORD, ABORTED, MARKER]), max_size=30)


def batches(kinds: list[str], wanted: set[str], size: int = 3, start: int = 0, end: int | None = None) -> Iterator[RecordBatch]:
    """What a reader is given of a partition whose offsets are of these kinds."""
    offsets = [offset for offset, kind in enumerate(kinds) if kind in wanted and start <= offset < (len(kinds) if end is None else end)]
    for at in range(0, len(offsets), size):
        yield batch_of(*(record(offset) for offset in offsets[at : at + size]))


class Shown:
    """A Kafka that shows records of aborted transactions, and counts how many it was asked for."""

    def __init__(self, kinds: list[str]) -> None:
        self.kinds = kinds
        self.given = 0

    def __call__(self, start: Position, end: Position) -> Iterator[RecordBatch]:
        for batch in batches(self.kinds, {RECORD, ABORTED}, 4, start[T, 0], end[T, 0]):
            self.given += len(batch)
            yield batch


def covered(kinds: list[str], start: int, reached: int, visible: Visible | None, *, begin: int = 0) -> tuple[Covered, list[str]]:
    coverage = Coverage({(T, 0): start})
    for _ in coverage.through(batches(kinds, {RECORD}, start=begin, end=reached)):
        pass
    ends = {(T, 0): max((offset + 1 for offset, kind in enumerate(kinds) if kind == RECORD), default=0)}
    (found,) = coverage.ranges([T], {(T, 0): reached}, ends, {(T, 0): len(kinds)}, visible)
    return found, coverage.problems


@given(kinds=KINDS, data=st.data())
def test_each_offset_is_a_record_a_marker_or_aborted(kinds: list[str], data: st.DataObject) -> None:
    visible = Visible(Shown(kinds))
    for reached in sorted(data.draw(st.lists(st.integers(0, len(kinds)), min_size=1, max_size=3))):
        found, problems = covered(kinds, 0, reached, visible)
        assert problems == []
        assert found.until == (len(kinds) if RECORD not in kinds[reached:] else reached), "holes behind the last record are named too"
        part = kinds[: found.until]
        counts = (part.count(RECORD), part.count(MARKER), part.count(ABORTED), 0)
        assert (found.records, found.markers, found.aborted, found.holes) == counts


@given(kinds=KINDS, data=st.data())
def test_holes_that_kafka_has_forgotten_are_not_told_apart(kinds: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(kinds)))
    found, problems = covered(kinds, start, len(kinds), Visible(Shown(kinds)))
    assert problems == []
    old, new = (kinds[:start], kinds[start:]) if RECORD in kinds[:start] else ([], kinds[start:])
    assert found.first == (0 if old else start)
    assert (found.markers, found.aborted, found.holes) == (new.count(MARKER), new.count(ABORTED), len(old) - old.count(RECORD))
    assert found.records == (old + new).count(RECORD)


def test_what_was_shown_once_is_not_asked_for_again_by_the_next_store() -> None:
    shown = Shown([RECORD, MARKER] * 10)
    visible = Visible(shown)
    for reached in (12, 12, 20):
        covered(shown.kinds, 0, reached, visible)
    assert shown.given == 10


def test_without_anybody_to_ask_a_hole_is_a_hole() -> None:
    found, _ = covered([RECORD, MARKER, ABORTED, MARKER], 0, 4, None)
    assert (found.records, found.holes) == (1, 3)


def test_a_record_that_the_committed_read_lost_is_no_marker() -> None:
    kinds = [RECORD] * 6
    found, problems = covered(kinds, 0, 6, Visible(Shown(kinds)), begin=2)
    assert (found.records, found.aborted, found.markers, problems) == (4, 2, 0, [])


@pytest.mark.parametrize("offsets", [[[0, 1], [1, 2]], [[0, 2, 1]], [[3], [0]]])
def test_an_offset_that_is_read_again_is_named(offsets: list[list[int]]) -> None:
    coverage = Coverage({})
    parts = [batch_of(*(record(offset) for offset in part)) for part in offsets]
    for _ in coverage.through(iter(parts)):
        pass
    assert len(coverage.problems) == 1 and "was read again or out of order" in coverage.problems[0]


def test_more_records_than_offsets_are_named() -> None:
    coverage = Coverage({(T, 0): 0})
    for _ in coverage.through(iter([batch_of(*(record(offset) for offset in range(5)))])):
        pass
    coverage.ranges([T], {(T, 0): 3}, {(T, 0): 5}, {(T, 0): 5}, None)
    assert coverage.problems == [f"{T}-0: expected at most 3 records in [0, 3), found 5"]
