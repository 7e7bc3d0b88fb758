"""Honest figures: scores read back from the log, judged at each maturity, beside the forest trained in the same run.

A wallet's k-th judgement is its score in its min(k, n)-th transaction. The difference to the forest comes with a
paired bootstrap interval over wallets. Where a figure cannot exist (one class, no wallet) it is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml.datasets import KnownLabel
from ml.forest import LEAVES, forest_scores, wallet_totals
from ml.thresholds import MATURITIES, at_maturity, best_threshold

RESAMPLES: Final = 2000
INTERVAL: Final = (2.5, 97.5)  # percentiles: 95 %
_WATCH_SHARE: Final = 0.15  # of the training wallets, the last: the forest's thresholds, as for our own


@dataclass(frozen=True, slots=True)
class Judgements:
    """Scores of wallets as their transactions happened, one row per (wallet, k), in any order; rows of one (wallet, k)
    are equal.

    wallet: ids [m]; k: int64 [m], the wallet's transaction count at that score; score, features_only: float64 [m].
    """

    wallet: tuple[str, ...]
    k: NDArray[np.int64]
    score: NDArray[np.float64]
    features_only: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ForestJudgements:
    """The forests' scores of judged wallets: by maturity, then by smallest leaf, score by wallet; thresholds
    likewise.
    """

    scores: Mapping[str, Mapping[int, Mapping[str, float]]]
    thresholds: Mapping[str, Mapping[int, float | None]]


def forest_judgements(
    transactions: pa.Table, known: Mapping[str, KnownLabel], cut_seq: int, judged: set[str], seed: int
) -> ForestJudgements:
    """Train the forests on `known` wallets before the cut and judge the wallets `judged` over all of `transactions`.

    `transactions` are in the order of seq from the first one. Thresholds come from forests that did not learn the last
    training wallets.
    Raises ValueError where the labels hold one class only.
    """
    totals = wallet_totals(transactions, set(known) | judged)
    by_name: dict[str, tuple[NDArray[np.int64], list[str]]] = {}
    for name, k in MATURITIES.items():
        rows, wallets = totals.at_maturity(k)
        mine = [i for i, wallet in enumerate(wallets) if wallet in judged]
        by_name[name] = rows[mine], [wallets[i] for i in mine]
    every = np.concatenate([rows for rows, _ in by_name.values()])
    found = forest_scores(totals, known, cut_seq, every, seed)
    scores: dict[str, dict[int, dict[str, float]]] = {}
    at = 0
    for name, (rows, wallets) in by_name.items():
        scores[name] = {leaf: dict(zip(wallets, map(float, found[leaf][at : at + len(rows)]), strict=True)) for leaf in LEAVES}
        at += len(rows)
    return ForestJudgements(scores, _forest_thresholds(transactions, known, cut_seq, seed))


def _forest_thresholds(
    transactions: pa.Table, known: Mapping[str, KnownLabel], cut_seq: int, seed: int
) -> dict[str, dict[int, float | None]]:
    totals = wallet_totals(transactions.slice(0, cut_seq), set(known))
    late = set(totals.wallets[len(totals.wallets) - max(1, int(_WATCH_SHARE * len(totals.wallets))) :])
    early = {wallet: label for wallet, label in known.items() if wallet not in late}
    thresholds: dict[str, dict[int, float | None]] = {}
    rows_by_name: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    for name, k in MATURITIES.items():
        rows, wallets = totals.at_maturity(k)
        mine = [i for i, wallet in enumerate(wallets) if wallet in late]
        rows_by_name[name] = rows[mine], np.array([known[wallets[i]].is_positive for i in mine], np.int64)
    try:
        found = forest_scores(totals, early, cut_seq, np.concatenate([rows for rows, _ in rows_by_name.values()]), seed)
    except ValueError:
        return {name: dict.fromkeys(LEAVES) for name in MATURITIES}
    at = 0
    for name, (rows, label) in rows_by_name.items():
        thresholds[name] = {leaf: best_threshold(label, found[leaf][at : at + len(rows)]) for leaf in LEAVES}
        at += len(rows)
    return thresholds


def by_maturity(
    judgements: Judgements,
    truth: Mapping[str, bool],
    thresholds: Mapping[str, float | None],
    forest: ForestJudgements | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """The figures at each maturity for the judged wallets that `truth` knows.

    Arguments: thresholds: ours by maturity, from the model card (`head_thresholds`); forest: None leaves its figures
    None.
    Returns by "1", "3", "5", "10", "all": n, n_positive, auroc, average_precision, f1, features_only_auroc,
    forest_auroc, forest_average_precision, forest_f1, forest_leaf, paired_difference {point, low, high}, n_ge_k,
    auroc_n_ge_k, forest_auroc_n_ge_k.
    """
    ids = sorted({wallet for wallet in judgements.wallet if wallet in truth})
    number = {wallet: i for i, wallet in enumerate(ids)}
    keep = np.array([wallet in number for wallet in judgements.wallet], np.bool_)
    group = np.array([number[wallet] for wallet in judgements.wallet if wallet in number], np.int64)
    k, score, plain = judgements.k[keep], judgements.score[keep], judgements.features_only[keep]
    label_of = np.array([truth[wallet] for wallet in ids], np.int64)
    figures = {}
    for name, maturity in MATURITIES.items():
        rows = at_maturity(group, k, maturity)
        label, ours, wallets = label_of[group[rows]], score[rows], [ids[i] for i in group[rows]]
        reached = k[rows] == maturity if maturity is not None else np.ones(len(rows), np.bool_)
        figures[name] = {
            "n": len(rows),
            "n_positive": int(label.sum()),
            "auroc": auroc(label, ours),
            "average_precision": average_precision(label, ours),
            "f1": f1(label, ours, thresholds.get(name)),
            "features_only_auroc": auroc(label, plain[rows]),
            "n_ge_k": int(reached.sum()),
            "auroc_n_ge_k": auroc(label[reached], ours[reached]),
            **_beside_forest(name, label, ours, wallets, reached, forest, seed),
        }
    return figures


def _beside_forest(
    name: str,
    label: NDArray[np.int64],
    ours: NDArray[np.float64],
    wallets: list[str],
    reached: NDArray[np.bool_],
    forest: ForestJudgements | None,
    seed: int,
) -> dict[str, Any]:
    keys = (
        "forest_auroc",
        "forest_average_precision",
        "forest_f1",
        "forest_leaf",
        "forest_auroc_n_ge_k",
        "paired_difference",
    )
    nothing: dict[str, Any] = dict.fromkeys(keys)
    if forest is None or auroc(label, ours) is None:
        return nothing
    theirs = {leaf: np.array([forest.scores[name][leaf][wallet] for wallet in wallets]) for leaf in LEAVES}
    leaf = max(LEAVES, key=lambda candidate: auroc(label, theirs[candidate]) or 0.0)
    return {
        "forest_auroc": auroc(label, theirs[leaf]),
        "forest_average_precision": average_precision(label, theirs[leaf]),
        "forest_f1": f1(label, theirs[leaf], forest.thresholds[name][leaf]),
        "forest_leaf": leaf,
        "forest_auroc_n_ge_k": auroc(label[reached], theirs[leaf][reached]),
        "paired_difference": paired_difference(label, ours, theirs[leaf], seed),
    }


def auroc(label: NDArray[np.int64], score: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve, ties counting half; None where a class is missing. Label and score [n]."""
    value = float(_weighted_auroc(label, score, np.ones((1, len(label))))[0]) if len(label) else np.nan
    return None if np.isnan(value) else value


def average_precision(label: NDArray[np.int64], score: NDArray[np.float64]) -> float | None:
    """Average precision as scikit-learn defines it; None where a class is missing."""
    positives = int(label.sum())
    if positives in (0, len(label)):
        return None
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(label) - 1)  # last row of each group of equal scores
    found = np.cumsum(label[order])[ends]
    return float(np.sum(np.diff(found, prepend=0) * found / (ends + 1)) / positives)


@dataclass(frozen=True, slots=True)
class AtBudget:
    """What the highest scores hold where only so many can be looked at: `alerts` of them, `found` positives among them.

    `recall` is of all positives, none without any; `most_recall` what nobody could exceed with so many alerts.
    """

    share: float
    alerts: int
    found: int
    recall: float | None
    most_recall: float | None
    precision: float


def at_budget(label: NDArray[np.int64], score: NDArray[np.float64], share: float) -> AtBudget:
    """The highest `share` of the scores, at least one; among equal scores those that come first. Label and score [n], n > 0."""
    alerts = max(1, round(share * len(label)))
    found = int(label[np.argsort(-score, kind="stable")[:alerts]].sum())
    positives = int(label.sum())
    recall, most = (found / positives, min(1.0, alerts / positives)) if positives else (None, None)
    return AtBudget(share, alerts, found, recall, most, found / alerts)


def f1(label: NDArray[np.int64], score: NDArray[np.float64], threshold: float | None) -> float | None:
    """F1 of calling positive from `threshold` on; None without a threshold or without a positive."""
    if threshold is None or not label.sum():
        return None
    called = score >= threshold
    return float(2 * np.sum(called & (label == 1)) / (called.sum() + label.sum()))


def paired_difference(
    label: NDArray[np.int64],
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, float] | None:
    """AUROC of `ours` less AUROC of `theirs` on the same wallets, with the percentile bootstrap interval over wallets.

    Resamples that drew one class only are left out. Returns point, low, high; None where a class is missing.
    """
    ours_auroc, theirs_auroc = auroc(label, ours), auroc(label, theirs)
    if ours_auroc is None or theirs_auroc is None:
        return None
    n = len(label)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=resamples).astype(np.float64)
    differences = _weighted_auroc(label, ours, draws) - _weighted_auroc(label, theirs, draws)
    low, high = np.nanpercentile(differences, INTERVAL)
    return {"point": ours_auroc - theirs_auroc, "low": float(low), "high": float(high)}


def _weighted_auroc(label: NDArray[np.int64], score: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUROC for each row of weights [b, n]: float64 [b], NaN where a class has no weight."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(score[order]) != 0))
    positive = np.add.reduceat(weights[:, order] * (label[order] == 1), starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * (label[order] == 0), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(1) * negative.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        areas: NDArray[np.float64] = np.sum(positive * (below + 0.5 * negative), axis=1) / pairs
    return areas
