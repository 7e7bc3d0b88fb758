"""The head: boosted trees on the features mixed with both embeddings, and what a scoring row is. No torch here: the
endpoint imports this.

A row is one wallet's side of one transaction: its features, its own embedding, its counterparty's embedding; NaN where
there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from graph.features_names import FEATURE_NAMES
from ml.network import EMBEDDING_DIM

if TYPE_CHECKING:
    import lightgbm as lgb

N_FEATURES: Final = len(FEATURE_NAMES)
ROW_NAMES: Final[tuple[str, ...]] = (
    *FEATURE_NAMES,
    *(f"own_embedding_{i}" for i in range(EMBEDDING_DIM)),
    *(f"partner_embedding_{i}" for i in range(EMBEDDING_DIM)),
)
ROW_WIDTH: Final = len(ROW_NAMES)
DECIMALS: Final = 6  # scores are rounded so that the last bits of a sum cannot make a replay differ

MIX_RIDGE: Final = 3.0  # wallets' worth of belief in the trees alone
LOG_ODDS_CUT: Final = 8.0

# Tuned on the validation span only (wallets 64 % to 80 % by first transaction), never on the test span.
PARAMETERS: Final[dict[str, Any]] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 5,
    "min_sum_hessian_in_leaf": 0.1,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "extra_trees": True,
    "max_bin": 127,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 2,
    "verbose": -1,
}


def scoring_rows(features: NDArray[np.float32], own: NDArray[np.float32], partner: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features [m, F] and both embeddings [m, EMBEDDING_DIM] as rows float32 [m, ROW_WIDTH]."""
    return np.concatenate([features, own, partner], axis=1, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Mix:
    """How much the trees' log-odds and both encoders' log-odds (coordinate 0 of an embedding) weigh in the score."""

    trees: float = 1.0
    own: float = 0.0
    partner: float = 0.0


@dataclass(frozen=True, slots=True)
class Head:
    """Boosted trees on the features, mixed with what both embeddings say.

    The trees see the columns `columns` of a row; their mean log-odds are the score on features alone. The mix was
    learned on wallets that neither trees nor encoder had learned from, so it trusts the embeddings as far as they held
    for later wallets.
    """

    columns: tuple[int, ...]
    boosters: tuple[lgb.Booster, ...]
    mix: Mix = Mix()

    def scores(self, rows: NDArray[np.float32], threads: int = 2) -> NDArray[np.float64]:
        """Scores float64 [m, 2] of rows float32 [m, ROW_WIDTH]: with embeddings, and on features alone; in [0, 1],
        rounded.
        """
        if not len(rows):
            return np.zeros((0, 2))
        plain = self.tree_log_odds(rows, threads)
        own, partner = rows[:, N_FEATURES], rows[:, N_FEATURES + EMBEDDING_DIM]
        return np.stack([as_scores(mixed(self.mix, plain, own, partner)), as_scores(plain)], axis=1)

    def tree_log_odds(self, rows: NDArray[np.float32], threads: int = 2) -> NDArray[np.float64]:
        """The trees' mean log-odds float64 [m] of rows [m, at least the columns seen]."""
        seen = np.ascontiguousarray(rows[:, list(self.columns)])
        total = np.zeros(len(rows))
        for booster in self.boosters:
            total += np.asarray(booster.predict(seen, raw_score=True, num_threads=threads), np.float64)
        return total / max(len(self.boosters), 1)


def mixed(mix: Mix, plain: NDArray[np.float64], own: NDArray[np.float32], partner: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-odds [m] of trees and embeddings together; an embedding that does not exist (NaN) says nothing."""
    return mix.trees * plain + mix.own * _bounded(own) + mix.partner * _bounded(partner)


def fit_mix(
    plain: NDArray[np.float64],
    own: NDArray[np.float32],
    partner: NDArray[np.float32],
    label: NDArray[np.int64],
    weight: NDArray[np.float64],
) -> Mix:
    """Weighted logistic regression with an intercept (not kept: it orders nothing), drawn towards the trees alone by
    MIX_RIDGE.

    All arguments [m], of wallets that nothing else has learned from. Negative weights are cut to 0.
    """
    if len(np.unique(label)) < 2:
        return Mix()
    inputs = np.stack([plain, _bounded(own), _bounded(partner), np.ones(len(plain))], axis=1)
    prior = np.array([1.0, 0.0, 0.0, 0.0])
    ridge = MIX_RIDGE * np.array([1.0, 1.0, 1.0, 0.01])
    theta = prior.copy()
    for _ in range(50):
        chance = 1.0 / (1.0 + np.exp(-np.clip(inputs @ theta, -30.0, 30.0)))
        gradient = inputs.T @ (weight * (chance - label)) + ridge * (theta - prior)
        curvature = (inputs * (weight * chance * (1.0 - chance))[:, None]).T @ inputs + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        theta -= step
        if np.abs(step).max() < 1e-9:
            break
    trees, from_own, from_partner = (round(float(max(value, 0.0)), 4) for value in theta[:3])
    return Mix(max(trees, 0.1), from_own, from_partner)


def _bounded(log_odds: NDArray[np.float32]) -> NDArray[np.float64]:
    """An encoder's log-odds, cut where it is sure beyond what its data can say; absent becomes 0."""
    bounded: NDArray[np.float64] = np.clip(np.nan_to_num(log_odds.astype(np.float64), nan=0.0), -LOG_ODDS_CUT, LOG_ODDS_CUT)
    return bounded


def as_scores(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds as probabilities, rounded to DECIMALS."""
    scores: NDArray[np.float64] = np.round(1.0 / (1.0 + np.exp(-np.clip(log_odds, -50.0, 50.0))), DECIMALS)
    return scores


def fit_boosters(
    features: NDArray[np.float32],
    label: NDArray[np.int64],
    weight: NDArray[np.float64],
    columns: Sequence[int],
    seeds: Sequence[int],
    trees: int,
) -> Head:
    """Boost `trees` trees per seed on the given columns of features [m, F]; label and weight [m]. The mix is the
    trees alone.
    """
    import lightgbm as lgb  # with scikit-learn behind it three seconds, which the scorer, who reads only what a row is, need not wait

    chosen = tuple(columns)
    names = [ROW_NAMES[i] for i in chosen]
    seen = np.ascontiguousarray(features[:, list(chosen)])
    boosters = []
    for seed in seeds:
        data = lgb.Dataset(seen, label, weight=weight, feature_name=names, params={"max_bin": PARAMETERS["max_bin"]})
        boosters.append(lgb.train({**PARAMETERS, "seed": seed}, data, trees))
    return Head(chosen, tuple(boosters))
