"""The event-log port: what the rest of the system may expect of the log, whoever keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

TopicPartition = tuple[str, int]
Position = Mapping[TopicPartition, int]
"""For each topic and partition the next offset to read; a partition that is absent starts at its earliest record."""

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to append. `key` decides the partition."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it stands in the log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class EventLog(Protocol):
    """An append-only log of topics with partitions.

    `append` is atomic: readers see all of its records or none, and it returns after they are durable. Records with the
    same key and topic keep their order; between partitions and topics no order is promised. Appending twice gives two
    records: the log does not deduplicate.
    """

    def append(self, records: Sequence[NewRecord]) -> None:
        """Append all records or none.

        Raises:
            LogError: the log does not answer or refuses.
            Fenced: a newer owner writes in this one's place.
        """

    def read(self, topics: Sequence[str], start: Position) -> Iterator[Record]:
        """The committed records from `start` to the end as it is when the call is made; within a partition in order of offset."""

    def end(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """The next offset that a reader of committed records will reach in each partition (the last stable offset)."""
