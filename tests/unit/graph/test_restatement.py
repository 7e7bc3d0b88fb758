"""Features that leave out what was taken back are those of a history without it, bit by bit, and nothing before changes."""

from __future__ import annotations

import numpy as np
import pytest

from graph.features import FeatureState, TransactionColumns
from graph.restatement import Restatement, restate, void_up_to
from ml.datasets import wallet_training_set
from tests.unit.ml.labelled import labelled_stream

TABLE, LABELS = labelled_stream()
SEQS = np.arange(len(TABLE))
BAD = [3, 50, 51, 120]
FROM = 150
VOIDS = [(f"test:{seq}:0", 140) for seq in BAD] + [("test:9:0", FROM - 1), ("test:8:0", FROM + 4)]
RESTATEMENT = Restatement(FROM, void_up_to(VOIDS, FROM))


def test_only_voids_that_nobody_can_add_to_count() -> None:
    assert RESTATEMENT.void_up_to == {f"test:{seq}:0": 140 for seq in BAD}


def test_a_revision_behind_its_void_stays() -> None:
    found = Restatement(200, {"a": 10, "b": 300}).leaves_out(["a", "a", "b", "b", "c"], np.array([10, 11, 150, 250, 5]))
    assert found.tolist() == [True, False, True, False, False]


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_features_are_those_of_a_history_without_what_was_voided(cut: int) -> None:
    state = FeatureState()
    state.observe(TransactionColumns.from_arrow(TABLE.slice(0, FROM)))
    pieces = ((TABLE.slice(at, min(cut, FROM - at)), SEQS[at : min(at + cut, FROM)]) for at in range(0, FROM, cut))
    restate(state, pieces, RESTATEMENT)
    clean = FeatureState()
    clean.observe(TransactionColumns.from_arrow(TABLE.slice(0, FROM).take([i for i in range(FROM) if i not in BAD])))
    assert state.seq == FROM
    assert clean.seq == FROM - len(BAD)
    after = TransactionColumns.from_arrow(TABLE.slice(FROM))
    found, wanted = state.observe(after), clean.observe(after)
    assert found.features.tobytes() == wanted.features.tobytes()
    assert found.k.tolist() == wanted.k.tolist()


def test_training_sees_what_serving_saw() -> None:
    plain = wallet_training_set(TABLE, LABELS, FeatureState())
    state = FeatureState()
    found = wallet_training_set(TABLE, LABELS, state, restatements=[Restatement(60, void_up_to(VOIDS, 60)), RESTATEMENT])
    kept = ~np.isin(plain.seq, BAD)
    before = (plain.seq < FROM) & kept
    assert found.seq.tolist() == plain.seq[kept].tolist()
    assert found.features[found.seq < FROM].tobytes() == plain.features[before].tobytes()
    live = FeatureState()
    restate(live, [(TABLE.slice(0, FROM), SEQS[:FROM])], RESTATEMENT)
    later = live.observe(TransactionColumns.from_arrow(TABLE.slice(FROM)))
    row_of = {(int(t) + FROM, live.wallet_ids[w]): row for row, (t, w) in enumerate(zip(later.transaction, later.wallet, strict=True))}
    mine = [i for i, seq in enumerate(found.seq) if seq >= FROM]
    rows = [row_of[int(found.seq[i]), found.group_ids[found.group[i]]] for i in mine]
    assert len(rows) > 20
    assert found.features[mine].tobytes() == later.features[rows].tobytes()
    assert state.seq == len(TABLE)
