"""Thresholds and maturities."""

from __future__ import annotations

import numpy as np

from ml.thresholds import at_maturity, best_threshold


def test_the_best_threshold_is_the_lowest_score_called_positive() -> None:
    assert best_threshold(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.3, 0.8])) == 0.4
    assert best_threshold(np.array([1, 1]), np.array([0.1, 0.4])) is None


def test_the_last_judgement_not_above_k_counts() -> None:
    group, k = np.array([0, 1, 0, 0]), np.array([1, 1, 2, 9])
    assert at_maturity(group, k, 3).tolist() == [2, 1]
    assert at_maturity(group, k, None).tolist() == [3, 1]
    assert at_maturity(group[:0], k[:0], 1).tolist() == []
