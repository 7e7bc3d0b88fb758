"""The baseline's totals, by hand."""

from __future__ import annotations

import pyarrow.compute as pc
import pytest

from ml.datasets import KnownLabel
from ml.forest import TOTAL_NAMES, forest_scores, wallet_totals
from tests.unit.ml.labelled import KNOWN_AT, labelled_stream


def test_the_eighteen_totals_of_one_wallet() -> None:
    table, _ = labelled_stream(2)
    totals = wallet_totals(table, {"test:w0"})
    last = dict(zip(TOTAL_NAMES, totals.totals[-1], strict=True))
    received = table.filter(pc.equal(table["target_wallet_id"], "test:w0"))
    amounts = [float(amount) for amount in received["amount"].to_pylist()]
    assert (last["n"], last["n_in"], last["n_out"], last["reverted"]) == (5, 4, 1, 0)
    assert last["sum_in"] == pytest.approx(sum(amounts))
    assert last["max_in"] == pytest.approx(max(amounts))
    assert last["std_out"] == 0
    assert (last["lifetime_s"], last["mean_gap_s"]) == (2400, 600)
    assert totals.at_maturity(3)[0].tolist() == [2]


def test_one_class_is_refused() -> None:
    table, labels = labelled_stream(4)
    totals = wallet_totals(table, set(labels))
    only = {"test:w0": KnownLabel(True, KNOWN_AT)}
    with pytest.raises(ValueError, match="expected labels of both classes"):
        forest_scores(totals, only, len(table), totals.row[:1], seed=0)
