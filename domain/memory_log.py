"""The event log's in-memory twin, for tests of the domain. It passes the same contract suite as Kafka."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from domain.log import NewRecord, Position, Record, TopicPartition


class MemoryLog:
    """Keeps every topic as lists, one a partition. `clock_ms` gives the records' time."""

    def __init__(self, partitions: int = 6, clock_ms: int = 0) -> None:
        self._partitions = partitions
        self._clock_ms = clock_ms
        self._records: dict[TopicPartition, list[Record]] = {}

    def append(self, records: Sequence[NewRecord]) -> None:
        for record in records:
            partition = zlib.crc32(record.key) % self._partitions if record.key is not None else 0
            kept = self._records.setdefault((record.topic, partition), [])
            kept.append(Record(record.topic, partition, len(kept), self._clock_ms, record.key, record.value, tuple(record.headers)))

    def read(self, topics: Sequence[str], start: Position) -> Iterator[Record]:
        snapshot = {tp: list(kept) for tp, kept in self._records.items() if tp[0] in topics}
        for topic_partition, kept in sorted(snapshot.items()):
            yield from kept[start.get(topic_partition, 0) :]

    def end(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        return {
            (topic, partition): len(self._records.get((topic, partition), ())) for topic in topics for partition in range(self._partitions)
        }
