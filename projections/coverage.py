"""Which offsets of the log a proof covers: half-open ranges, in which each offset is a committed record or a hole with a name.

Two things take an offset and are given to no reader of committed records: the marker that ends a transaction in a partition, and each
record of a transaction that was aborted. Kafka shows the latter to readers of uncommitted records, and the former to nobody: what
neither reader gets is a marker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from domain.log import Position, TopicPartition
from projections.records import RecordBatch

Show = Callable[[Position, Position], Iterator[RecordBatch]]
"""All that Kafka still holds between two positions below the last stable offset, records of aborted transactions included."""


@dataclass(frozen=True, slots=True)
class Covered:
    """[`first`, `until`) of a partition: records + markers + aborted + holes = until − first.

    `holes` are offsets that nobody can tell apart any more, because Kafka has forgotten them (or was not asked). `head` is the last
    stable offset; where no record lies between a store's position and the head, `until` is the head.
    """

    topic: str
    partition: int
    first: int
    until: int
    head: int
    records: int
    markers: int = 0
    aborted: int = 0
    holes: int = 0

    def as_json(self) -> dict[str, Any]:
        """The range as plain values."""
        return asdict(self)


class Visible:
    """Counts what Kafka shows between two offsets. What was read once is remembered as runs of offsets, so several stores cost one read."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._read: dict[TopicPartition, _Runs] = {}

    def counts(self, wanted: Mapping[TopicPartition, tuple[int, int]]) -> dict[TopicPartition, int]:
        """For each partition the records in [first, until), aborted ones included.

        Raises:
            LogError: Kafka does not answer.
        """
        start, end = dict[TopicPartition, int](), dict[TopicPartition, int]()
        for place, (first, until) in wanted.items():
            known = self._read.get(place)
            if known is None or first < known.first:
                known = self._read[place] = _Runs(first, first)
            if until > known.until:
                start[place], end[place] = known.until, until
        if end:
            for batch in self._show(start, end):
                for partition in np.unique(batch.partitions).tolist():
                    self._read[batch.topic, partition].add(batch.offsets[batch.partitions == partition])
        for place, until in end.items():
            self._read[place].until = until
        return {place: self._read[place].count(first, until) for place, (first, until) in wanted.items()}


@dataclass(slots=True)
class _Runs:
    """Offsets that follow each other, as [begin, end) of each run."""

    first: int
    until: int
    begins: list[npt.NDArray[np.int64]] = field(default_factory=list)
    ends: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def add(self, offsets: npt.NDArray[np.int64]) -> None:
        cuts = np.flatnonzero(np.diff(offsets) != 1)
        self.begins.append(offsets[np.concatenate([[0], cuts + 1])])
        self.ends.append(offsets[np.concatenate([cuts, [len(offsets) - 1]])] + 1)

    def count(self, first: int, until: int) -> int:
        if not self.begins:
            return 0
        begins, ends = np.concatenate(self.begins), np.concatenate(self.ends)
        return int(np.clip(np.minimum(ends, until) - np.maximum(begins, first), 0, None).sum())


class Coverage:
    """Takes note of what a proof reads of the log.

    Args:
        starts: the first offset that Kafka still holds of each partition.
    """

    def __init__(self, starts: Position) -> None:
        self._starts = starts
        self._records: dict[TopicPartition, int] = {}
        self._in_kafka: dict[TopicPartition, int] = {}
        self._next: dict[TopicPartition, int] = {}
        self.problems: list[str] = []

    def through(self, batches: Iterator[RecordBatch]) -> Iterator[RecordBatch]:
        """The same batches, taken note of one by one."""
        for batch in batches:
            for partition in np.unique(batch.partitions).tolist():
                self._add((batch.topic, partition), batch.offsets[batch.partitions == partition])
            yield batch

    def _add(self, place: TopicPartition, offsets: npt.NDArray[np.int64]) -> None:
        reached = self._next.get(place, 0)
        falls = np.flatnonzero(np.diff(offsets, prepend=reached - 1) < 1)
        if len(falls):
            self.problems.append(f"{place[0]}-{place[1]}: offset {int(offsets[falls[0]])} was read again or out of order")
        self._records[place] = self._records.get(place, 0) + len(offsets)
        kept = int((offsets >= self._starts.get(place, 0)).sum())
        self._in_kafka[place] = self._in_kafka.get(place, 0) + kept
        self._next[place] = max(reached, int(offsets[-1]) + 1)

    def ranges(self, topics: Sequence[str], position: Position, ends: Position, heads: Position, visible: Visible | None) -> list[Covered]:
        """What was read up to a position, by partition; `problems` names ranges that do not add up.

        Args:
            ends: the offset after the last committed record of each partition.
            heads: last stable offsets, taken before `ends` were.
            visible: tells markers from aborted records; without it they are holes.
        """
        bounds: dict[TopicPartition, tuple[int, int, int]] = {}
        for place, head in sorted(heads.items()):
            if place[0] in topics:
                start, reached = self._starts.get(place, 0), position.get(place, 0)
                is_archived = self._records.get(place, 0) > self._in_kafka.get(place, 0)
                first = 0 if is_archived else start
                until = max(reached, head) if ends.get(place, 0) <= reached else reached
                bounds[place] = first, max(first, start), max(first, until)
        with_holes = {
            place: (kept_from, max(kept_from, until))
            for place, (first, kept_from, until) in bounds.items()
            if until - first != self._records.get(place, 0)
        }
        seen = visible.counts(with_holes) if visible is not None and with_holes else {}
        # The log goes on: a store may be beyond the head that was noted.
        return [self._covered(place, *bounds[place], max(heads[place], bounds[place][2]), seen.get(place)) for place in bounds]

    def _covered(self, place: TopicPartition, first: int, kept_from: int, until: int, head: int, seen: int | None) -> Covered:
        records, in_kafka = self._records.get(place, 0), self._in_kafka.get(place, 0)
        missing = until - first - records
        if seen is None:
            found = Covered(*place, first, until, head, records, holes=missing)
        else:
            markers, aborted = max(0, until - kept_from) - seen, seen - in_kafka
            found = Covered(*place, first, until, head, records, markers, aborted, missing - markers - aborted)
        if min(found.markers, found.aborted, found.holes) < 0:
            self.problems.append(
                f"{place[0]}-{place[1]}: expected at most {until - first} records in [{first}, {until}), found {records}"
                + ("" if seen is None else f"; Kafka shows {seen} from {kept_from} on")
            )
        return found
