"""The head: boosted trees on a scoring row, and what a scoring row is. No torch here: the endpoint imports this.

A row is one wallet's side of one transaction: its features, its own embedding, its counterparty's embedding; NaN where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from graph.features_names import FEATURE_NAMES

EMBEDDING_DIM: Final = 32
N_FEATURES: Final = len(FEATURE_NAMES)
ROW_NAMES: Final[tuple[str, ...]] = (
    *FEATURE_NAMES,
    *(f"own_embedding_{i}" for i in range(EMBEDDING_DIM)),
    *(f"partner_embedding_{i}" for i in range(EMBEDDING_DIM)),
)
ROW_WIDTH: Final = len(ROW_NAMES)
DECIMALS: Final = 6  # scores are rounded so that the last bits of a sum cannot make a replay differ

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


def scoring_rows(
    features: NDArray[np.float32], own: NDArray[np.float32], partner: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Features [m, F] and both embeddings [m, EMBEDDING_DIM] as rows float32 [m, ROW_WIDTH]."""
    return np.concatenate([features, own, partner], axis=1, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Head:
    """Boosters that see the columns `columns` of a row; their mean log-odds become a score in [0, 1]."""

    columns: tuple[int, ...]
    boosters: tuple[lgb.Booster, ...]

    def log_odds(self, rows: NDArray[np.float32], threads: int = 2) -> NDArray[np.float64]:
        """rows: float32 [m, ROW_WIDTH]; returns float64 [m]."""
        seen = np.ascontiguousarray(rows[:, list(self.columns)])
        total = np.zeros(len(rows))
        for booster in self.boosters:
            total += np.asarray(booster.predict(seen, raw_score=True, num_threads=threads), np.float64)
        return total / max(len(self.boosters), 1)

    def score(self, rows: NDArray[np.float32], threads: int = 2) -> NDArray[np.float64]:
        """Scores float64 [m] in [0, 1], rounded to DECIMALS."""
        if not len(rows):
            return np.zeros(0)
        return as_scores(self.log_odds(rows, threads))


def as_scores(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds as probabilities, rounded to DECIMALS."""
    scores: NDArray[np.float64] = np.round(1.0 / (1.0 + np.exp(-np.clip(log_odds, -50.0, 50.0))), DECIMALS)
    return scores


def fit_head(
    rows: NDArray[np.float32],
    label: NDArray[np.int64],
    weight: NDArray[np.float64],
    columns: Sequence[int],
    seeds: Sequence[int],
    trees: int,
) -> Head:
    """Boost `trees` trees per seed on the given columns of rows [m, ROW_WIDTH]; label and weight [m]."""
    chosen = tuple(columns)
    names = [ROW_NAMES[i] for i in chosen]
    seen = np.ascontiguousarray(rows[:, list(chosen)])
    boosters = []
    for seed in seeds:
        data = lgb.Dataset(seen, label, weight=weight, feature_name=names, params={"max_bin": PARAMETERS["max_bin"]})
        boosters.append(lgb.train({**PARAMETERS, "seed": seed}, data, trees))
    return Head(chosen, tuple(boosters))
