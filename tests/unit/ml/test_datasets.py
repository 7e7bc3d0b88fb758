"""The training set: which transactions, which weights, whose partner."""

from __future__ import annotations

import numpy as np
import pytest

from graph.features import FEATURE_NAMES, FeatureState, TransactionColumns
from ml.datasets import transaction_training_set, wallet_training_set
from tests.unit.ml.labelled import labelled_stream


def test_a_wallets_snapshots_share_one_weight_and_stand_in_order() -> None:
    table, labels = labelled_stream(20)
    examples = wallet_training_set(table, labels, FeatureState(), ks=(1, 3))
    assert np.bincount(examples.group, examples.weight) == pytest.approx(np.ones(20))
    assert (np.diff(examples.seq) >= 0).all()
    assert sorted(examples.k[examples.group == 0].tolist()) == [1, 3, 5]
    assert np.array_equal(examples.features[:, FEATURE_NAMES.index("n")], examples.k)


def test_snapshots_equal_those_of_the_live_stream() -> None:
    table, labels = labelled_stream(20)
    examples = wallet_training_set(table, labels, FeatureState())
    state = FeatureState()
    live = state.observe(TransactionColumns.from_arrow(table))
    for row in range(0, len(examples), 7):
        wallet = state.wallet_index(examples.group_ids[examples.group[row]])
        at = np.flatnonzero((live.transaction == examples.seq[row]) & (live.wallet == wallet))[0]
        assert examples.features[row].tobytes() == live.features[at].tobytes()
        partner = live.partner()[at]
        assert live.neighbourhoods is not None
        expected = live.neighbourhoods.take(np.array([partner]))
        assert np.array_equal(examples.partners.take(np.array([row])).legs, expected.legs)


def test_labelled_transactions_have_one_row_each() -> None:
    table, labels = labelled_stream(10)
    some = {f"test:{i}:0": next(iter(labels.values())) for i in (3, 8)}
    examples = transaction_training_set(table, some, FeatureState())
    assert examples.group_ids == ("test:3:0", "test:8:0")
    assert examples.seq.tolist() == [3, 8]
    assert examples.weight.tolist() == [1.0, 1.0]
