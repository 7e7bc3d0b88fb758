"""Records as received, in columns: what the log's adapter gives the runner.

Keeping keys, values and headers as lists of the client's own objects costs no copy; coordinates are arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from domain.log import Headers, Record, TopicPartition

SEQ_HEADER = "seq"
"""Header of an event: its seq as eight bytes big-endian; on topics other than transaction-events that of the last transaction before it."""

NO_SEQ = -1


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records of one topic; within a partition in order of offset. All columns have the same length."""

    topic: str
    partitions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    timestamps_ms: npt.NDArray[np.int64]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Sequence[tuple[str, bytes | None]] | None]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indexes: npt.NDArray[np.int64]) -> RecordBatch:
        """The records at `indexes`, in that order."""
        places = indexes.tolist()
        return RecordBatch(
            self.topic,
            self.partitions[indexes],
            self.offsets[indexes],
            self.timestamps_ms[indexes],
            [self.keys[i] for i in places],
            [self.values[i] for i in places],
            [self.headers[i] for i in places],
        )

    def seqs(self) -> npt.NDArray[np.int64]:
        """The seq header of each record, `NO_SEQ` where it has none or one that is not eight bytes."""
        firsts = [headers[0] for headers in self.headers if headers]
        values = [value for name, value in firsts if name == SEQ_HEADER and value is not None]
        # The common case, several times as fast: the first header of every record is its seq.
        if len(values) == len(self) and set(map(len, values)) == {8}:
            return np.frombuffer(b"".join(values), ">i8").astype(np.int64)
        return np.fromiter(map(_seq_of, self.headers), np.int64, len(self.headers))

    def next_offsets(self) -> dict[TopicPartition, int]:
        """For each partition in the batch the offset after its last record."""
        position: dict[TopicPartition, int] = {}
        for partition in np.unique(self.partitions).tolist():
            position[(self.topic, partition)] = int(self.offsets[self.partitions == partition].max()) + 1
        return position

    def first_offsets(self) -> dict[TopicPartition, int]:
        """For each partition in the batch the offset of its first record."""
        return {
            (self.topic, partition): int(self.offsets[self.partitions == partition].min())
            for partition in np.unique(self.partitions).tolist()
        }

    def record(self, index: int) -> Record:
        """One record on its own."""
        headers: Headers = tuple((name, value) for name, value in self.headers[index] or ())
        return Record(
            self.topic,
            int(self.partitions[index]),
            int(self.offsets[index]),
            int(self.timestamps_ms[index]),
            self.keys[index],
            self.values[index],
            headers,
        )

    @classmethod
    def of(cls, records: Sequence[Record]) -> RecordBatch:
        """Single records of one topic as a batch."""
        return cls(
            records[0].topic,
            np.array([r.partition for r in records], np.int32),
            np.array([r.offset for r in records], np.int64),
            np.array([r.timestamp_ms for r in records], np.int64),
            [r.key for r in records],
            [r.value for r in records],
            [r.headers for r in records],
        )

    @classmethod
    def concat(cls, batches: Sequence[RecordBatch]) -> RecordBatch:
        """Batches of one topic, one after another."""
        if len(batches) == 1:
            return batches[0]
        return cls(
            batches[0].topic,
            np.concatenate([b.partitions for b in batches]),
            np.concatenate([b.offsets for b in batches]),
            np.concatenate([b.timestamps_ms for b in batches]),
            [key for b in batches for key in b.keys],
            [value for b in batches for value in b.values],
            [headers for b in batches for headers in b.headers],
        )


def by_topic(batches: Iterable[RecordBatch]) -> list[RecordBatch]:
    """One batch a topic, in order of arrival."""
    found: dict[str, list[RecordBatch]] = {}
    for batch in batches:
        found.setdefault(batch.topic, []).append(batch)
    return [RecordBatch.concat(parts) for parts in found.values()]


def seq_header(seq: int) -> tuple[str, bytes]:
    """The header that carries `seq`."""
    return (SEQ_HEADER, seq.to_bytes(8, "big", signed=True))


def seq_headers(first: int, count: int) -> list[Headers]:
    """The headers of `count` records whose seqs follow each other from `first`."""
    packed = np.arange(first, first + count, dtype=">i8").view("V8").tolist()
    return [((SEQ_HEADER, seq),) for seq in packed]


def _seq_of(headers: Sequence[tuple[str, bytes | None]] | None) -> int:
    for name, value in headers or ():
        if name == SEQ_HEADER and value is not None and len(value) == 8:
            return int.from_bytes(value, "big", signed=True)
    return NO_SEQ
