"""Records as received, in columns: what the log's adapter gives the runner.

Keys, values and headers are sequences: from the log and the archive they come as columns over one buffer (`ByteColumn`,
`HeaderColumn`), which cost no object a record; single records and tests give lists. Coordinates are arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from domain.log import Headers, Record, TopicPartition
from schema_registry.byte_column import ByteColumn

_T = TypeVar("_T")
HeaderPairs = Sequence[tuple[str, bytes | None]]

SEQ_HEADER = "seq"
"""Header of an event: its seq as eight bytes big-endian; on topics other than transaction-events that of the last transaction before it."""

NO_SEQ = -1
_SEQ_NAME = np.frombuffer(SEQ_HEADER.encode(), np.uint8)
_SEQ_BYTES = 8


@dataclass(frozen=True, slots=True, eq=False)
class HeaderColumn(Sequence[HeaderPairs | None]):
    """The headers of many records: row i has the pairs `ends[i]` to `ends[i + 1]`; a row without any is None.

    Args:
        ends: int64 [rows + 1], ascending.
        names: of every pair, UTF-8 without null; bytes that are no text are shown with replacement marks.
        contents: of every pair.
    """

    ends: npt.NDArray[np.int64]
    names: ByteColumn
    contents: ByteColumn

    @classmethod
    def concat(cls, columns: Sequence[HeaderColumn]) -> HeaderColumn:
        """Columns one after another."""
        if len(columns) == 1:
            return columns[0]
        whole = [column.bounded() for column in columns]
        counts = np.concatenate([np.diff(column.ends) for column in whole])
        return cls(
            _ends(counts), ByteColumn.concat([column.names for column in whole]), ByteColumn.concat([column.contents for column in whole])
        )

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> HeaderPairs | None: ...
    @overload
    def __getitem__(self, index: slice) -> HeaderColumn: ...

    def __getitem__(self, index: int | slice) -> HeaderPairs | HeaderColumn | None:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self._pairs(int(self.ends[at]), int(self.ends[at + 1])) or None

    def __iter__(self) -> Iterator[HeaderPairs | None]:
        pairs = self._pairs(0, len(self.names))
        return (pairs[start:end] or None for start, end in pairwise(self.ends.tolist()))

    def take(self, indexes: npt.NDArray[np.int64]) -> HeaderColumn:
        """The rows at `indexes`, in that order."""
        counts = np.diff(self.ends)[indexes]
        ends = _ends(counts)
        pairs = np.repeat(self.ends[:-1][indexes] - ends[:-1], counts) + np.arange(ends[-1])
        return HeaderColumn(ends, self.names.take(pairs), self.contents.take(pairs))

    def bounded(self) -> HeaderColumn:
        """The same rows without the pairs of others."""
        first, last = int(self.ends[0]), int(self.ends[-1])
        if first == 0 and last == len(self.names):
            return self
        return HeaderColumn(self.ends - first, self.names[first:last], self.contents[first:last])

    def seqs(self) -> npt.NDArray[np.int64]:
        """See `RecordBatch.seqs`."""
        if self._are_plain():
            return self.contents.data[self.contents.offsets[0] : self.contents.offsets[-1]].view(">i8").astype(np.int64)
        found = np.full(len(self), NO_SEQ, np.int64)
        starts = self.contents.offsets[:-1]
        named = np.flatnonzero((np.diff(self.names.offsets) == len(_SEQ_NAME)) & (np.diff(self.contents.offsets) == _SEQ_BYTES))
        for place, letter in enumerate(_SEQ_NAME):
            named = named[self.names.data[self.names.offsets[named] + place] == letter]
        if not len(named):
            return found
        seqs = np.zeros(len(named), np.uint64)
        for place in range(_SEQ_BYTES):
            seqs = (seqs << np.uint64(8)) | self.contents.data[starts[named] + place]
        rows = np.searchsorted(self.ends, named, "right") - 1
        inside = (rows >= 0) & (rows < len(self))
        # Backwards, so that of several the first one stays.
        found[rows[inside][::-1]] = seqs[inside][::-1].view(np.int64)
        return found

    def _are_plain(self) -> bool:
        """The common case: every record has one header, its seq."""
        names, contents = self.names.offsets, self.contents.offsets
        if len(self.names) != len(self) or not (np.diff(self.ends) == 1).all() or self.ends[0] != 0:
            return False
        if not (np.diff(names) == len(_SEQ_NAME)).all() or not (np.diff(contents) == _SEQ_BYTES).all():
            return False
        return bool((self.names.data[names[0] : names[-1]].reshape(-1, len(_SEQ_NAME)) == _SEQ_NAME).all())

    def _pairs(self, first: int, last: int) -> list[tuple[str, bytes | None]]:
        names = [(name or b"").decode("utf-8", "replace") for name in self.names[first:last]]
        return list(zip(names, self.contents[first:last], strict=True))


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records of one topic; within a partition in order of offset. All columns have the same length."""

    topic: str
    partitions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    timestamps_ms: npt.NDArray[np.int64]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[HeaderPairs | None]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indexes: npt.NDArray[np.int64]) -> RecordBatch:
        """The records at `indexes`, in that order."""
        return RecordBatch(
            self.topic,
            self.partitions[indexes],
            self.offsets[indexes],
            self.timestamps_ms[indexes],
            _taken(self.keys, indexes),
            _taken(self.values, indexes),
            _taken(self.headers, indexes),
        )

    def seqs(self) -> npt.NDArray[np.int64]:
        """The seq header of each record, `NO_SEQ` where it has none or one that is not eight bytes."""
        if isinstance(self.headers, HeaderColumn):
            return self.headers.seqs()
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
            _joined([b.keys for b in batches]),
            _joined([b.values for b in batches]),
            _joined([b.headers for b in batches]),
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


def _taken(column: Sequence[_T], indexes: npt.NDArray[np.int64]) -> Sequence[_T]:
    if isinstance(column, (ByteColumn, HeaderColumn)):
        return cast("Sequence[_T]", column.take(indexes))
    return [column[i] for i in indexes.tolist()]


def _joined(columns: Sequence[Sequence[_T]]) -> Sequence[_T]:
    for kind in (ByteColumn, HeaderColumn):
        if all(isinstance(column, kind) for column in columns):
            return cast("Sequence[_T]", kind.concat(cast(Any, columns)))
    return [value for column in columns for value in column]


def _ends(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    ends = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ends[1:])
    return ends


def _seq_of(headers: HeaderPairs | None) -> int:
    for name, value in headers or ():
        if name == SEQ_HEADER and value is not None and len(value) == 8:
            return int.from_bytes(value, "big", signed=True)
    return NO_SEQ
