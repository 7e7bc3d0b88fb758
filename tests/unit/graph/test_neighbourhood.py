"""The network's input: ragged, renumbered, bounded."""

from __future__ import annotations

import numpy as np

from graph.features import FeatureState, TransactionColumns
from graph.features_state import KEEP
from graph.neighbourhood import HOP_MOST, concatenate
from tests.unit.graph.streams import stream


def test_taking_rows_keeps_each_row_whole() -> None:
    state = FeatureState()
    near = state.observe(TransactionColumns.from_arrow(stream(400))).neighbourhoods
    assert near is not None
    rows = np.array([5, 300, 5, 0])
    taken = near.take(rows)
    for new, old in enumerate(rows):
        assert np.array_equal(taken.legs[taken.leg_root == new], near.legs[near.leg_root == old])
        new_legs, old_legs = np.flatnonzero(taken.leg_root == new), np.flatnonzero(near.leg_root == old)
        assert np.array_equal(taken.hops[np.isin(taken.hop_leg, new_legs)], near.hops[np.isin(near.hop_leg, old_legs)])


def test_parts_joined_are_the_whole() -> None:
    state = FeatureState()
    near = state.observe(TransactionColumns.from_arrow(stream(300))).neighbourhoods
    assert near is not None
    parts = [near.take(np.arange(0, 100)), near.take(np.arange(100, len(near)))]
    whole = concatenate(parts)
    assert np.array_equal(whole.leg_root, near.leg_root)
    assert np.array_equal(whole.hop_leg, near.hop_leg)
    assert np.array_equal(whole.hops, near.hops)
    assert len(concatenate([])) == 0


def test_a_hub_has_no_more_legs_and_hops_than_the_bounds() -> None:
    state = FeatureState()
    near = state.observe(TransactionColumns.from_arrow(stream(3000, wallets=30))).neighbourhoods
    assert near is not None
    assert np.bincount(near.leg_root).max() == KEEP
    assert np.bincount(near.leg_root[near.hop_leg]).max() <= HOP_MOST


def test_a_snapshot_now_equals_the_one_at_the_last_transaction() -> None:
    table = stream(200)
    state = FeatureState()
    snapshot = state.observe(TransactionColumns.from_arrow(table))
    last = len(snapshot.wallet) - 1
    assert snapshot.neighbourhoods is not None
    then = snapshot.neighbourhoods.take(np.array([last]))
    now = state.neighbourhoods_now(snapshot.wallet[[last]])
    assert np.array_equal(then.legs, now.legs)
    assert np.array_equal(then.hops, now.hops)
