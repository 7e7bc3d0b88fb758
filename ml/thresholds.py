"""Judgements at a maturity, and the threshold that would have served best there: chosen on training wallets, applied
to others.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MATURITIES: Final[dict[str, int | None]] = {"1": 1, "3": 3, "5": 5, "10": 10, "all": None}


def at_maturity(group: NDArray[np.int64], k: NDArray[np.int64], maturity: int | None) -> NDArray[np.int64]:
    """Row of each group's judgement at min(maturity, n): int64 [groups present], of rows with group and k int64 [m].

    Each group has at most one row for a k; the row with the largest k not above `maturity` counts (None: the largest
    of all).
    """
    eligible = np.flatnonzero(k <= maturity) if maturity is not None else np.arange(len(k))
    order = eligible[np.lexsort((k[eligible], group[eligible]))]
    is_last = np.append(group[order][1:] != group[order][:-1], True) if len(order) else np.zeros(0, np.bool_)
    rows: NDArray[np.int64] = order[is_last]
    return rows


def best_threshold(label: NDArray[np.int64], score: NDArray[np.float64]) -> float | None:
    """The score from which calling positive gives the best F1; None where one class is missing. Label and score [m]."""
    positives = int(label.sum())
    if positives == 0 or positives == len(label):
        return None
    order = np.argsort(-score, kind="stable")
    found = np.cumsum(label[order])
    f1 = 2 * found / (np.arange(1, len(label) + 1) + positives)
    f1[:-1][score[order][1:] == score[order][:-1]] = -1.0  # no threshold lies between equal scores
    return float(score[order][int(np.argmax(f1))])


def best_thresholds(
    group: NDArray[np.int64], k: NDArray[np.int64], label: NDArray[np.int64], score: NDArray[np.float64]
) -> dict[str, float | None]:
    """The best threshold at each maturity."""
    found = {}
    for name, maturity in MATURITIES.items():
        rows = at_maturity(group, k, maturity)
        found[name] = best_threshold(label[rows], score[rows])
    return found
