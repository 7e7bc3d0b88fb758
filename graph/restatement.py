"""Leaving out of the features what was taken back, from a seq on.

A state that sums, ranks and remembers firsts cannot forget a transaction exactly, so it is made anew: the history is replayed without
what was voided. Who does that, and when, stands in the log (`FeaturesRestated`), so that training and every restart of the scorer come
to the same features, bit by bit. What was scored before keeps the features that it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph.features import FeatureState, TransactionColumns


def void_up_to(voids: Iterable[tuple[str, int]], from_seq: int) -> dict[str, int]:
    """Up to which seq each tx_id is void for features from `from_seq` on.

    Args:
        voids: (tx_id, seq of the last transaction before the void). One after the very last transaction before `from_seq` does not
            count yet: others with that seq may still come, and whoever reads later must find the same set.
    """
    found: dict[str, int] = {}
    for tx_id, seq in voids:
        if seq < from_seq - 1:
            found[tx_id] = max(seq, found.get(tx_id, -1))
    return found


@dataclass(frozen=True, slots=True)
class Restatement:
    """Features from `from_seq` on are computed without the transactions that `void_up_to` names: tx_id → the last seq that is void."""

    from_seq: int = 0
    void_up_to: Mapping[str, int] = field(default_factory=dict)

    def leaves_out(self, tx_ids: Sequence[str], seqs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these transactions it leaves out: bool [n]. A revision recorded behind its void stays."""
        if not self.void_up_to:
            return np.zeros(len(seqs), np.bool_)
        ends = np.fromiter((self.void_up_to.get(tx_id, -1) for tx_id in tx_ids), np.int64, len(seqs))
        is_out: NDArray[np.bool_] = (seqs <= ends) & (seqs < self.from_seq)
        return is_out

    def kept(self, transactions: pa.Table, seqs: NDArray[np.int64]) -> pa.Table:
        """The rows of a table with `tx_id` that it does not leave out."""
        is_out = self.leaves_out(transactions["tx_id"].to_pylist(), seqs) if self.void_up_to else np.zeros(len(seqs), np.bool_)
        return transactions.filter(pa.array(~is_out)) if is_out.any() else transactions


def restate(state: FeatureState, history: Iterable[tuple[pa.Table, NDArray[np.int64]]], restatement: Restatement) -> None:
    """Replace what `state` remembers by the history (tables in order of seq with the seq of each row, all before
    `restatement.from_seq`) without what the restatement leaves out."""
    state.forget()
    for table, seqs in history:
        columns = TransactionColumns.from_arrow(restatement.kept(table, seqs))
        state.observe(columns, emit="none", neighbourhoods=False)
    state.skip_to(restatement.from_seq)
