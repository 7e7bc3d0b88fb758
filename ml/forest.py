"""The baseline to beat: 500 trees on a wallet's 18 plain totals, pooled over k, a wallet's snapshots sharing the
weight 1.

It computes its totals from the transactions themselves, apart from the streaming features, so that an error there
cannot flatter us. A reverted transaction counts with the amount it tried, as in the published figures
(../shared/data/README.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graph.features_amount import amount_to_float, amount_words
from ml.datasets import SNAPSHOT_KS, KnownLabel, appearances

TREES: Final = 500
LEAVES: Final = (1, 5)  # smallest leaves of the two forests; the stronger one at each k is the one to beat
TOTAL_NAMES: Final = (
    "n", "n_in", "n_out", "sum_in", "max_in", "mean_in", "min_in", "std_in", "sum_out", "max_out", "mean_out",
    "min_out", "std_out", "parties_in", "parties_out", "lifetime_s", "mean_gap_s", "reverted",
)  # fmt: skip
_ABSENT: Final = -1.0


@dataclass(frozen=True, slots=True)
class WalletTotals:
    """Totals of the chosen wallets after each of their transactions: totals float64 [a, 18], group, k and row int64
    [a].
    """

    totals: NDArray[np.float64]
    group: NDArray[np.int64]
    k: NDArray[np.int64]
    row: NDArray[np.int64]
    wallets: tuple[str, ...]

    def at_maturity(self, k: int | None) -> tuple[NDArray[np.int64], list[str]]:
        """The row of `totals` at each wallet's min(k, n)-th transaction (k None: its last), and the wallets in that
        order.
        """
        chosen = self.k <= k if k is not None else np.ones(len(self.k), np.bool_)
        last = np.full(len(self.wallets), -1, np.int64)
        last[self.group[chosen]] = np.flatnonzero(chosen)
        return last[last >= 0], [wallet for wallet, at in zip(self.wallets, last, strict=True) if at >= 0]


def wallet_totals(transactions: pa.Table, wallets: Collection[str]) -> WalletTotals:
    """The 18 totals of `wallets` after each of their transactions; `transactions` in the order of seq, from the very
    first one.

    A total that does not exist yet (the largest amount sent by a wallet that never sent) is -1.
    """
    place, group, k, names = appearances(transactions["source_wallet_id"], transactions["target_wallet_id"], wallets)
    row, is_in = place // 2, place % 2 == 1
    low, high = amount_words(transactions["amount"])
    time_s = transactions["occurred_at"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy() // 1_000_000
    failed = pc.equal(transactions["status"].cast(pa.string()), "failed").to_numpy()
    party_column = [transactions["target_wallet_id"].to_pylist(), transactions["source_wallet_id"].to_pylist()]
    totals = np.full((len(place), len(TOTAL_NAMES)), _ABSENT)
    running: list[dict[str, Any]] = [
        {"n": [0, 0], "sum": [0.0, 0.0], "sq": [0.0, 0.0], "max": [0.0, 0.0], "min": [0.0, 0.0],
         "parties": (set(), set()),
         "first": 0, "failed": 0}
        for _ in names
    ]  # fmt: skip
    for at in range(len(place)):
        w, side, here = running[group[at]], int(not is_in[at]), row[at]
        value = amount_to_float(low[here], high[here])
        if k[at] == 1:
            w["first"] = time_s[here]
        fresh = w["n"][side] == 0
        w["n"][side] += 1
        w["sum"][side] += value
        w["sq"][side] += value * value
        w["max"][side] = value if fresh else max(w["max"][side], value)
        w["min"][side] = value if fresh else min(w["min"][side], value)
        w["parties"][side].add(party_column[1 - side][here])
        w["failed"] += bool(failed[here])
        out, n = totals[at], w["n"][0] + w["n"][1]
        out[0:3] = n, w["n"][0], w["n"][1]
        for direction in (0, 1):
            count, start = w["n"][direction], 3 + 5 * direction
            out[start] = w["sum"][direction]
            if count:
                mean = w["sum"][direction] / count
                spread = max(w["sq"][direction] / count - mean * mean, 0.0) ** 0.5
                out[start + 1 : start + 5] = w["max"][direction], mean, w["min"][direction], spread
        out[13:15] = len(w["parties"][0]), len(w["parties"][1])
        life = max(int(time_s[here] - w["first"]), 0)
        out[15] = life
        out[16] = life / (n - 1) if n > 1 else _ABSENT
        out[17] = w["failed"]
    return WalletTotals(totals, group, k, row, tuple(names))


def forest_scores(
    totals: WalletTotals, labels: Mapping[str, KnownLabel], cut_row: int, judged: NDArray[np.int64], seed: int
) -> dict[int, NDArray[np.float64]]:
    """Train on the labelled wallets as seen before `cut_row`, score the rows `judged` of `totals`: float64 [j] by
    smallest leaf.

    Raises ValueError where the labels hold one class only.
    """
    from sklearn.ensemble import RandomForestClassifier

    before = (totals.row < cut_row) & np.array([wallet in labels for wallet in totals.wallets])[totals.group]
    last = np.full(len(totals.wallets), -1, np.int64)
    last[totals.group[before]] = np.flatnonzero(before)
    chosen = before & np.isin(totals.k, SNAPSHOT_KS)
    chosen[last[last >= 0]] = True
    group = totals.group[chosen]
    label = np.array([wallet in labels and labels[wallet].is_positive for wallet in totals.wallets])[group]
    if len(np.unique(label)) < 2:
        raise ValueError("forest: expected labels of both classes before the cut, found one")
    weight = 1.0 / np.bincount(group, minlength=len(totals.wallets))[group]
    scores = {}
    for leaf in LEAVES:
        forest = RandomForestClassifier(TREES, min_samples_leaf=leaf, random_state=seed, n_jobs=2)
        forest.fit(totals.totals[chosen], label, sample_weight=weight)
        scores[leaf] = forest.predict_proba(totals.totals[judged])[:, 1] if len(judged) else np.zeros(0)
    return scores
