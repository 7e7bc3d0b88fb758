"""Figures: equal to scikit-learn's, None where impossible, and judged at the right transaction."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from ml.evaluation import (
    AtBudget,
    Judgements,
    at_budget,
    auroc,
    average_precision,
    by_maturity,
    f1,
    forest_judgements,
    paired_difference,
)
from tests.unit.ml.labelled import labelled_stream


def test_figures_equal_scikit_learns_with_ties() -> None:
    draw = np.random.default_rng(0)
    label, score = draw.integers(0, 2, 300), np.round(draw.random(300), 1)
    assert auroc(label, score) == pytest.approx(roc_auc_score(label, score))
    assert average_precision(label, score) == pytest.approx(average_precision_score(label, score))
    assert f1(label, score, 0.5) == pytest.approx(f1_score(label, score >= 0.5))


def test_what_cannot_exist_is_none() -> None:
    ones, scores = np.ones(3, np.int64), np.array([0.1, 0.2, 0.3])
    assert auroc(ones, scores) is None
    assert average_precision(ones * 0, scores) is None
    assert auroc(ones[:0], scores[:0]) is None
    assert f1(ones, scores, None) is None
    assert paired_difference(ones, scores, scores, 0) is None
    empty = Judgements((), np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    figures = by_maturity(empty, {"a": True}, {})
    assert figures["all"]["n"] == 0
    assert figures["1"]["auroc"] is None


def test_a_budget_looks_at_the_highest_scores_and_says_what_nobody_could_exceed() -> None:
    label, score = np.array([0, 1, 0, 1, 1, 0, 0, 0, 0, 0]), np.array([0.9, 0.8, 0.7, 0.7, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert at_budget(label, score, 0.2) == AtBudget(0.2, 2, 1, 1 / 3, 2 / 3, 0.5)
    assert at_budget(label, score, 0.3).found == 1, "of equal scores the first one"
    assert at_budget(label, score, 0.001).alerts == 1
    assert at_budget(label, score, 1.0) == AtBudget(1.0, 10, 3, 1.0, 1.0, 0.3)
    assert at_budget(np.zeros(10, np.int64), score, 0.2) == AtBudget(0.2, 2, 0, None, None, 0.0)


def test_a_wallet_is_judged_at_its_min_k_n() -> None:
    judgements = Judgements(("a", "b", "a", "a", "b"), np.array([1, 1, 3, 2, 2]), np.array([0.1, 0.2, 0.9, 0.1, 0.3]), np.zeros(5))
    figures = by_maturity(judgements, {"a": True, "b": False}, {"3": 0.5})
    assert [figures[k]["auroc"] for k in ("1", "3", "all")] == [0.0, 1.0, 1.0]
    assert figures["3"]["f1"] == 1.0
    assert figures["3"]["n_ge_k"] == 1


def test_a_better_score_has_an_interval_above_zero_and_an_equal_one_has_none() -> None:
    draw = np.random.default_rng(1)
    label = draw.integers(0, 2, 400)
    good, poor = label + draw.normal(size=400) * 0.5, label + draw.normal(size=400) * 3
    found = paired_difference(label, good, poor, seed=0)
    assert found is not None
    assert 0 < found["low"] < found["point"] < found["high"]
    assert paired_difference(label, good, good, seed=0) == {"point": 0.0, "low": 0.0, "high": 0.0}


def test_the_forest_judges_wallets_that_it_never_saw() -> None:
    table, labels = labelled_stream(40)
    wallets = list(labels)
    known, judged = {w: labels[w] for w in wallets[:28]}, set(wallets[28:])
    cut = 28 // 2 * 9
    forest = forest_judgements(table, known, cut, judged, seed=0)
    truth = {wallet: labels[wallet].is_positive for wallet in judged}
    ours = Judgements(tuple(judged), np.ones(len(judged), np.int64), np.full(len(judged), 0.5), np.full(len(judged), 0.5))
    figures = by_maturity(ours, truth, {}, forest)
    assert figures["1"]["auroc"] == 0.5
    assert (figures["all"]["forest_auroc"] or 0) > 0.9
    assert set(forest.scores["3"]) == {1, 5}
