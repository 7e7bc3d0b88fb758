"""Merging partitions into the one total order: records leave in order of seq, waiting for nothing but the next number.

Nothing here goes record by record: the seqs that may be next are marked in a window, and what stands in it without a gap leaves at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from projections.records import NO_SEQ, RecordBatch

_Ints = NDArray[np.int64]
WINDOW = 1 << 16  # seqs looked at in one go
MOST_HELD = 64  # pushes held apart; each is looked at whenever the next seq comes


@dataclass(slots=True)
class _Held:
    """Records of one push that wait: `seqs` [n] ascending, equal ones in order of arrival, and their places in `batch`; those before
    `start` have left."""

    batch: RecordBatch
    seqs: _Ints
    places: _Ints
    start: int = 0


class SeqMerge:
    """Holds records back until every smaller seq has come.

    Args:
        next_seq: the first seq to let through.
    """

    def __init__(self, next_seq: int) -> None:
        self.next_seq = next_seq
        self.waiting = 0
        """How many records wait for a smaller seq."""
        self._held: list[_Held] = []

    def first_waiting(self) -> dict[int, int]:
        """For each partition the smallest offset that waits for a smaller seq."""
        found: dict[int, int] = {}
        for held in self._held:
            places = held.places[held.start :]
            partitions, offsets = held.batch.partitions[places], held.batch.offsets[places]
            for partition in np.unique(partitions).tolist():
                least = int(offsets[partitions == partition].min())
                found[partition] = min(found.get(partition, least), least)
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
        apart = [batch.take(strays)] if len(strays) else []
        # The common case: nothing waits and the batch is the next run.
        if not self._held and len(order) and self._is_next_run(seqs[order]):
            self.next_seq += len(order)
            return [batch.take(order)], apart[0] if apart else None
        if len(order):
            self._held.append(_Held(batch, seqs[order], order))
            self.waiting += len(order)
            if len(self._held) > MOST_HELD:
                self._join()
        ready = []
        while (run := self._next_run()) is not None:
            ready.append(run)
            apart += self._repeated()
        return ready, RecordBatch.concat(apart) if apart else None

    def _is_next_run(self, ordered: _Ints) -> bool:
        return bool(ordered[0] == self.next_seq and ordered[-1] == self.next_seq + len(ordered) - 1 and (np.diff(ordered) == 1).all())

    def _join(self) -> None:
        """Make one of the last pushes, and of as many before them as are no larger: so each record is moved a few times at most."""
        sizes = [len(held.seqs) - held.start for held in self._held]
        first = len(sizes) - MOST_HELD // 2
        total = sum(sizes[first:])
        while first and sizes[first - 1] <= total:
            first -= 1
            total += sizes[first]
        parts = self._held[first:]
        batch = RecordBatch.concat([held.batch.take(held.places[held.start :]) for held in parts])
        seqs = np.concatenate([held.seqs[held.start :] for held in parts])
        order = np.argsort(seqs, kind="stable")
        self._held[first:] = [_Held(batch, seqs[order], order)]

    def _next_run(self) -> RecordBatch | None:
        """The records from the next seq on, up to the first that has not come or the window's end; none where the next has not come."""
        first = self.next_seq
        if all(held.seqs[held.start] > first for held in self._held):
            return None
        size = min(WINDOW, max(int(held.seqs[-1]) for held in self._held) - first + 1)
        owner = np.full(size, -1, np.int64)
        place = np.empty(size, np.int64)
        for number, held in enumerate(self._held):
            stop = int(np.searchsorted(held.seqs, first + size))
            slots = held.seqs[held.start : stop] - first
            # Of equal seqs the one that came first has the slot: of one push backwards, so that the first one stays.
            is_free = owner[slots] < 0
            slots, places = slots[is_free][::-1], held.places[held.start : stop][is_free][::-1]
            owner[slots], place[slots] = number, places
        gaps = np.flatnonzero(owner < 0)
        length = int(gaps[0]) if len(gaps) else size
        owner, place = owner[:length], place[:length]
        self.next_seq += length
        self.waiting -= length
        # The first of each push's equal seqs has left; the others are found as repeated.
        parts, slots_of = [], []
        for number in np.unique(owner).tolist():
            mine = np.flatnonzero(owner == number)
            parts.append(self._held[number].batch.take(place[mine]))
            slots_of.append(mine)
            self._forget(self._held[number], first + mine)
        whole = RecordBatch.concat(parts)
        return whole if len(parts) == 1 else whole.take(np.argsort(np.concatenate(slots_of)))

    @staticmethod
    def _forget(held: _Held, left: _Ints) -> None:
        """Take the first record of each of these seqs out of those that wait."""
        gone = np.searchsorted(held.seqs[held.start :], left) + held.start
        if len(gone) and gone[-1] == held.start + len(gone) - 1:  # they stand at its beginning: nothing has to be moved
            held.start += len(gone)
            return
        stays = np.ones(len(held.seqs), np.bool_)
        stays[: held.start] = False
        stays[gone] = False
        held.seqs, held.places, held.start = held.seqs[stays], held.places[stays], 0

    def _repeated(self) -> list[RecordBatch]:
        """Records whose seq another has taken, and no more pushes than still hold some."""
        found = []
        for held in self._held:
            stop = int(np.searchsorted(held.seqs, self.next_seq))
            if stop > held.start:
                found.append(held.batch.take(held.places[held.start : stop]))
                self.waiting -= stop - held.start
                held.start = stop
        self._held = [held for held in self._held if held.start < len(held.seqs)]
        return found
