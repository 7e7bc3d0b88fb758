"""Merging partitions into the one total order: records leave in order of seq, waiting for nothing but the next number."""

from __future__ import annotations

import heapq

import numpy as np

from projections.records import NO_SEQ, RecordBatch


class SeqMerge:
    """Holds records back until every smaller seq has come.

    Args:
        next_seq: the first seq to let through.
    """

    def __init__(self, next_seq: int) -> None:
        self.next_seq = next_seq
        self._waiting: list[tuple[int, int, RecordBatch, int]] = []
        self._pushed = 0

    @property
    def waiting(self) -> int:
        """How many records wait for a smaller seq."""
        return len(self._waiting)

    def first_waiting(self) -> dict[int, int]:
        """For each partition the smallest offset that waits for a smaller seq."""
        found: dict[int, int] = {}
        for _, _, batch, index in self._waiting:
            partition, offset = int(batch.partitions[index]), int(batch.offsets[index])
            found[partition] = min(found.get(partition, offset), offset)
        return found

    def push(self, batch: RecordBatch) -> tuple[list[RecordBatch], RecordBatch | None]:
        """Take records in.

        Returns:
            The records that are now in order, as batches of consecutive seqs (mostly one); and those that have no place in
            the order: no seq, or one that was let through before.
        """
        seqs = batch.seqs()
        strays = np.flatnonzero((seqs == NO_SEQ) | (seqs < self.next_seq))
        places = np.flatnonzero(seqs >= max(self.next_seq, 0))
        order = places[np.argsort(seqs[places], kind="stable")]
        # The common case: nothing waits and the batch is the next run; no heap is touched.
        if not self._waiting and len(order) and self._is_next_run(seqs[order]):
            self.next_seq += len(order)
            return [batch.take(order)], batch.take(strays) if len(strays) else None
        for index in order.tolist():
            self._pushed += 1
            heapq.heappush(self._waiting, (int(seqs[index]), self._pushed, batch, index))
        repeated: list[tuple[RecordBatch, int]] = []
        ready: list[tuple[RecordBatch, int]] = []
        while self._waiting and self._waiting[0][0] <= self.next_seq:
            seq, _, source, index = heapq.heappop(self._waiting)
            if seq < self.next_seq:
                repeated.append((source, index))
                continue
            ready.append((source, index))
            self.next_seq += 1
        stray = [batch.take(strays)] if len(strays) else []
        stray += [source.take(np.array([index])) for source, index in repeated]
        return ([_collect(ready)] if ready else []), (RecordBatch.concat(stray) if stray else None)

    def _is_next_run(self, ordered: np.ndarray) -> bool:
        return bool(ordered[0] == self.next_seq and ordered[-1] == self.next_seq + len(ordered) - 1 and (np.diff(ordered) == 1).all())


def _collect(rows: list[tuple[RecordBatch, int]]) -> RecordBatch:
    """Rows of several batches, in the order given, by taking runs of the same batch together."""
    if len({id(batch) for batch, _ in rows}) == 1:
        return rows[0][0].take(np.array([index for _, index in rows]))
    return RecordBatch(
        rows[0][0].topic,
        np.array([batch.partitions[i] for batch, i in rows], np.int32),
        np.array([batch.offsets[i] for batch, i in rows], np.int64),
        np.array([batch.timestamps_ms[i] for batch, i in rows], np.int64),
        [batch.keys[i] for batch, i in rows],
        [batch.values[i] for batch, i in rows],
        [batch.headers[i] for batch, i in rows],
    )
