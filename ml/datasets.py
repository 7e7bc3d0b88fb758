"""The training set: labelled wallets' vectors as of some of their transactions, in the order of seq, up to a cut.

Which transactions: the k-th for k in SNAPSHOT_KS and the wallet's last before the cut, because a wallet is judged
early and late by one model. A wallet's snapshots share the weight 1, so a busy wallet teaches no more than a quiet one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph.features import FeatureState, Snapshot, TransactionColumns
from graph.neighbourhood import Neighbourhoods, concatenate
from graph.restatement import Restatement, restate

# Dense early, where judgements are hard and most alerts are won, sparse later. Past 30 a vector hardly changes.
SNAPSHOT_KS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 50, 100, 200, 400, 800, 1600)
READ_ROWS: Final = 8192


@dataclass(frozen=True, slots=True)
class KnownLabel:
    """A label and when it became known (UTC): nothing may use it before."""

    is_positive: bool
    known_at: datetime


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """`m` snapshots in the order of seq.

    features: float32 [m, F]; neighbourhoods, partners: encoder input of the wallet and of the transaction's other side
    (roots only where there is none); has_partner: bool [m]; group: int64 [m], which labelled wallet (or transaction),
    numbered in the order of first appearance; k: int64 [m]; seq: int64 [m]; label: int64 [m], 1 positive; weight:
    float64 [m], sums to 1 in a group.
    """

    features: NDArray[np.float32]
    neighbourhoods: Neighbourhoods
    partners: Neighbourhoods
    has_partner: NDArray[np.bool_]
    group: NDArray[np.int64]
    group_ids: tuple[str, ...]
    k: NDArray[np.int64]
    seq: NDArray[np.int64]
    label: NDArray[np.int64]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label)


def appearances(
    source: pa.ChunkedArray, target: pa.ChunkedArray, wallets: Collection[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Each transaction of each of `wallets`, in order: row, side (0 source, 1 target), k, and the wallets by first
    appearance.

    Returns int64 [a, 4]-like columns row * 2 + side, group, k and the ids by group. A self-transfer appears once, as
    its source.
    """
    rows: list[int] = []
    groups: list[int] = []
    ks: list[int] = []
    group_by_wallet: dict[str, int] = {}
    counts: list[int] = []
    for row, (sender, receiver) in enumerate(zip(source.to_pylist(), target.to_pylist(), strict=True)):
        for side, wallet in ((0, sender), (1, receiver)):
            if wallet not in wallets or (side == 1 and sender == receiver):
                continue
            group = group_by_wallet.get(wallet)
            if group is None:
                group = group_by_wallet[wallet] = len(counts)
                counts.append(0)
            counts[group] += 1
            rows.append(2 * row + side)
            groups.append(group)
            ks.append(counts[group])
    return np.array(rows, np.int64), np.array(groups, np.int64), np.array(ks, np.int64), list(group_by_wallet)


def wallet_training_set(
    transactions: pa.Table,
    labels: Mapping[str, KnownLabel],
    state: FeatureState,
    ks: Iterable[int] = SNAPSHOT_KS,
    restatements: Sequence[Restatement] = (),
) -> TrainingSet:
    """Stream `transactions` (in the order of seq) through `state` and keep the labelled wallets' snapshots.

    The state has observed every transaction afterwards: its embeddings and totals are those as of the cut. What the last of the
    `restatements` leaves out teaches nothing.
    """
    places, groups, counts, wallets = appearances(transactions["source_wallet_id"], transactions["target_wallet_id"], labels)
    stays = ~_left_out(transactions, restatements)[places // 2]
    places, groups, counts = places[stays], groups[stays], counts[stays]
    wanted = np.isin(counts, np.fromiter(ks, np.int64))
    if len(groups):
        last = np.zeros(len(wallets), np.int64)
        last[groups] = np.arange(len(groups))
        wanted[last] = True
    places, groups = places[wanted], groups[wanted]
    label = np.array([labels[wallet].is_positive for wallet in wallets], np.int64)
    return _streamed(transactions, state, places, groups, tuple(wallets), label, restatements)


def transaction_training_set(
    transactions: pa.Table, labels: Mapping[str, KnownLabel], state: FeatureState, restatements: Sequence[Restatement] = ()
) -> TrainingSet:
    """The same for labels of transactions (by tx_id): one row each, its source's side, or its target's where no
    source is named.
    """
    places: list[int] = []
    ids: list[str] = []
    columns = (transactions[name].to_pylist() for name in ("tx_id", "source_wallet_id", "target_wallet_id"))
    is_out = _left_out(transactions, restatements)
    for row, (tx_id, source, target) in enumerate(zip(*columns, strict=True)):
        if tx_id in labels and not is_out[row]:
            places.append(2 * row + (source is None and target is not None))
            ids.append(tx_id)
    label = np.array([labels[tx_id].is_positive for tx_id in ids], np.int64)
    return _streamed(transactions, state, np.array(places, np.int64), np.arange(len(ids)), tuple(ids), label, restatements)


def _streamed(
    transactions: pa.Table,
    state: FeatureState,
    places: NDArray[np.int64],
    groups: NDArray[np.int64],
    group_ids: tuple[str, ...],
    label: NDArray[np.int64],
    restatements: Sequence[Restatement],
) -> TrainingSet:
    first_seq, n = state.seq, len(transactions)
    own = np.zeros((n, 2), np.bool_)
    own.reshape(-1)[places] = True
    emit = own | own[:, ::-1]  # the other side too: its embedding is an input of the head
    kept: list[Snapshot] = []
    by_row = {restatement.from_seq - first_seq: restatement for restatement in restatements}
    starts = sorted({*range(0, n, READ_ROWS), *(row for row in by_row if 0 < row < n)})
    for start, end in zip(starts, [*starts[1:], n], strict=True):
        if start in by_row:
            pieces = range(0, start, READ_ROWS)
            history = ((transactions.slice(at, min(READ_ROWS, start - at)), np.arange(at, min(at + READ_ROWS, start))) for at in pieces)
            restate(state, history, by_row[start])
        columns = TransactionColumns.from_arrow(transactions.slice(start, end - start))
        kept.append(state.observe(columns, emit[start:end]))
    place = np.concatenate([2 * (s.transaction + at) + s.side for s, at in zip(kept, starts, strict=True)])
    partner_of = np.concatenate([np.where(s.partner() >= 0, s.partner() + at, -1) for s, at in zip(kept, _starts(kept), strict=True)])
    rows = np.searchsorted(place, places)
    near = concatenate([s.neighbourhoods for s in kept if s.neighbourhoods is not None])
    partner = partner_of[rows]
    share = np.bincount(groups, minlength=len(group_ids))
    return TrainingSet(
        features=np.concatenate([s.features for s in kept])[rows],
        neighbourhoods=near.take(rows),
        partners=near.take(np.maximum(partner, 0)) if len(near) else near,
        has_partner=partner >= 0,
        group=groups,
        group_ids=group_ids,
        k=np.concatenate([s.k for s in kept])[rows],
        seq=places // 2 + first_seq,
        label=label[groups],
        weight=1.0 / share[groups],
    )


def _left_out(transactions: pa.Table, restatements: Sequence[Restatement]) -> NDArray[np.bool_]:
    if not restatements:
        return np.zeros(len(transactions), np.bool_)
    return restatements[-1].leaves_out(transactions["tx_id"].to_pylist(), np.arange(len(transactions)))


def _starts(kept: list[Snapshot]) -> NDArray[np.int64]:
    return np.cumsum([0, *(len(s.k) for s in kept)])[:-1]
