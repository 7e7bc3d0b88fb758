"""Transactions in order, each with the features before it as the scorer had them, from whatever holds the transactions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing

import numpy as np
import pyarrow as pa

from graph.features import FeatureState
from graph.restatement import Restatement, restate

ReadInOrder = Callable[[int], Generator[pa.Table]]
"""Tables of `TransactionRecorded` in order of `_seq`, from a seq on; see `infra.history.transactions_in_order`."""


def counted_from(left_out: Sequence[Restatement], first: int) -> int:
    """From which seq on transactions are counted as they come, before the first one to score."""
    return max((r.from_seq for r in left_out if r.from_seq <= first), default=0)


def restated_history(
    read: ReadInOrder, state: FeatureState, left_out: Sequence[Restatement], first: int, end: int, step: int
) -> Iterator[pa.Table]:
    """Transactions up to `end` in tables of at most `step`, beginning at or before `first`; `state` is restated where the log says so.

    Whoever reads this counts each table into `state` before asking for the next.
    """
    begin = counted_from(left_out, first)
    marks = [r for r in left_out if begin <= r.from_seq < end]
    at = marks[0].from_seq if marks and marks[0].from_seq <= first else 0
    for mark in marks:
        if at < mark.from_seq:
            yield from _between(read, at, mark.from_seq, step)
        history = ((table, table["_seq"].to_numpy()) for table in _between(read, 0, mark.from_seq, step))
        restate(state, history, mark)
        at = mark.from_seq
    yield from _between(read, at, end, step)


def _between(read: ReadInOrder, first: int, end: int, step: int) -> Iterator[pa.Table]:
    with closing(read(first)) as tables:
        for table in tables:
            seqs = table["_seq"].to_numpy()
            for at in range(0, int(np.searchsorted(seqs, end)), step):
                yield table.slice(at, min(step, int(np.searchsorted(seqs, end)) - at))
            if len(seqs) and seqs[-1] >= end - 1:
                return
