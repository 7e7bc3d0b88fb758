"""The streaming features: causal, the same in any batches, bounded, and sane on odd input."""

from __future__ import annotations

import math
import time
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from graph.features import FEATURE_NAMES, FeatureState, Snapshot, TransactionColumns
from graph.neighbourhood import Neighbourhoods
from tests.unit.graph.streams import stream


def observed(table: pa.Table, batch: int) -> tuple[FeatureState, list[Snapshot]]:
    state = FeatureState()
    return state, [state.observe(TransactionColumns.from_arrow(table.slice(at, batch))) for at in range(0, len(table), batch)]


def joined(snapshots: list[Snapshot]) -> np.ndarray:
    return np.concatenate([snapshot.features for snapshot in snapshots])


def near(snapshots: list[Snapshot]) -> list[np.ndarray]:
    parts: list[Neighbourhoods] = [s.neighbourhoods for s in snapshots if s.neighbourhoods is not None]
    return [np.concatenate([getattr(part, name) for part in parts]) for name in ("roots", "legs", "hops")]


def column(snapshot: Snapshot, name: str) -> np.ndarray:
    return snapshot.features[:, FEATURE_NAMES.index(name)]


def transfers(*rows: tuple[str | None, str | None, str, int], status: str = "settled") -> TransactionColumns:
    """Rows of (source, target, amount, Unix s)."""
    return TransactionColumns.from_arrow(
        pa.table(
            {
                "source_wallet_id": pa.array([row[0] for row in rows], pa.string()),
                "target_wallet_id": pa.array([row[1] for row in rows], pa.string()),
                "amount": pa.array([Decimal(row[2]) for row in rows], pa.decimal128(38, 18)),
                "asset": ["ETH"] * len(rows),
                "kind": ["transfer"] * len(rows),
                "status": [status] * len(rows),
                "occurred_at": pa.array([row[3] * 1_000_000 for row in rows]).cast(pa.timestamp("us", "UTC")),
            }
        )
    )


def test_one_by_one_and_in_one_batch_give_the_same_bits() -> None:
    table = stream(1500)
    _, one = observed(table, 1)
    _, seven = observed(table, 7)
    _, all_at_once = observed(table, len(table))
    assert joined(one).tobytes() == joined(seven).tobytes() == joined(all_at_once).tobytes()
    for first, second in zip(near(one), near(all_at_once), strict=True):
        assert first.tobytes() == second.tobytes()


def test_poisoning_the_future_changes_nothing_up_to_the_cut_and_something_after() -> None:
    cut = 700
    table = stream(1200)
    poisoned = pa.concat_tables([table.slice(0, cut), stream(1200, seed=9).slice(cut)])
    _, clean = observed(table, 256)
    _, dirty = observed(poisoned, 300)
    rows = int(sum(len(s.transaction[s.transaction + at < cut]) for s, at in zip(clean, range(0, 1200, 256), strict=True)))
    assert rows > cut
    assert joined(clean)[:rows].tobytes() == joined(dirty)[:rows].tobytes()
    roots_clean, roots_dirty = near(clean)[0], near(dirty)[0]
    assert roots_clean[:rows].tobytes() == roots_dirty[:rows].tobytes()
    assert joined(clean)[rows:].tobytes() != joined(dirty)[rows:].tobytes(), "the control: a poisoned future must be seen after it"


def test_a_restored_state_goes_on_with_the_same_bits() -> None:
    table = stream(900)
    whole, _ = observed(table.slice(0, 600), 100)
    restored = FeatureState.from_bytes(whole.to_bytes())
    rest = TransactionColumns.from_arrow(table.slice(600))
    assert restored.seq == 600
    assert list(restored.wallet_ids) == list(whole.wallet_ids)
    assert restored.observe(rest).features.tobytes() == whole.observe(rest).features.tobytes()


def test_a_state_of_another_feature_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = FeatureState().to_bytes()
    monkeypatch.setattr("graph.features.FEATURE_SET_VERSION", 99)
    with pytest.raises(ValueError, match="expected feature set 99, found 1"):
        FeatureState.from_bytes(data)


def test_late_events_ties_and_oddities_give_no_nan_and_no_negative_time() -> None:
    _, snapshots = observed(stream(3000, seed=4, wallets=20), 500)
    features = joined(snapshots)
    wallet_part = [i for i, name in enumerate(FEATURE_NAMES) if not name.startswith(("card_", "pay_"))]
    assert not np.isnan(features[:, wallet_part]).any()
    assert not np.isinf(features[:, wallet_part]).any()
    for name in ("tx_gap", "gap", "gap_min", "life", "dwell_min"):
        values = features[:, FEATURE_NAMES.index(name)]
        assert ((values == -1) | (values >= 0)).all(), name


def test_a_self_transfer_counts_once_and_a_null_side_has_no_row() -> None:
    state = FeatureState()
    snapshot = state.observe(transfers(("a", "a", "1", 10), ("a", None, "2", 20), (None, "a", "3", 30)))
    assert snapshot.transaction.tolist() == [0, 0, 1, 2]
    assert snapshot.side.tolist() == [0, 1, 0, 1]
    assert snapshot.k.tolist() == [1, 1, 2, 3]
    assert np.array_equal(snapshot.features[0], snapshot.features[1], equal_nan=True)


def test_a_failed_transaction_is_counted_but_moves_no_value() -> None:
    snapshot = FeatureState().observe(transfers(("a", "b", "5", 10), status="failed"))
    assert column(snapshot, "n").tolist() == [1, 1]
    assert column(snapshot, "value_out")[0] == 0
    assert column(snapshot, "failed").tolist() == [1, 1]


def test_totals_follow_the_transactions() -> None:
    state = FeatureState()
    snapshot = state.observe(transfers(("a", "b", "1", 100), ("a", "b", "1", 160), ("b", "c", "2", 400)))
    last = np.flatnonzero((snapshot.transaction == 2) & (snapshot.side == 0))[0]
    assert column(snapshot, "n_in")[last] == 2
    assert column(snapshot, "parties_in")[last] == 1
    assert column(snapshot, "forwarded")[last] == pytest.approx(1.0)
    assert column(snapshot, "sweeps")[last] == 1
    assert column(snapshot, "wait_before_out")[last] == pytest.approx(math.log1p(300))
    assert state.transaction_count(state.wallet_index("b")) == 3


def test_a_transaction_without_wallets_is_a_row_of_its_own_columns() -> None:
    columns = transfers((None, None, "7.25", 10))
    card = np.arange(28, dtype=np.float32)[None]
    snapshot = FeatureState().observe(
        TransactionColumns(
            columns.source, columns.target, columns.asset, columns.amount_low, columns.amount_high,
            columns.occurred_at_s, columns.kind, columns.is_failed, card,
        )
    )  # fmt: skip
    assert snapshot.wallet.tolist() == [-1]
    assert column(snapshot, "card_v28")[0] == 27
    assert column(snapshot, "tx_decimals")[0] == 2
    assert np.isnan(column(snapshot, "n")[0])


def test_payment_fields_are_shares_of_earlier_payments() -> None:
    columns = transfers(*[("a", "b", "1", i) for i in range(3)])
    payment = [["shop", "shop", "bar"], *[[None] * 3] * 4]
    snapshot = FeatureState().observe(
        TransactionColumns(
            columns.source, columns.target, columns.asset, columns.amount_low, columns.amount_high,
            columns.occurred_at_s, columns.kind, columns.is_failed, None, payment,
        )
    )  # fmt: skip
    shares = 10 ** column(snapshot, "pay_merchant_category")[::2]
    assert shares.tolist() == pytest.approx([1.0, 1.0, 1 / 3])
    assert np.isnan(column(snapshot, "pay_location")).all()


def test_amounts_of_two_assets_never_meet_unscaled() -> None:
    """A wallet that holds a million of a cheap asset looks like one that holds one of a dear asset."""
    cheap = FeatureState().observe(transfers(*[("a", "b", "1000000", i) for i in range(9)])).features
    dear = FeatureState().observe(transfers(*[("a", "b", "1", i) for i in range(9)])).features
    column_of = FEATURE_NAMES.index("value_in")
    assert cheap[:, column_of] == pytest.approx(dear[:, column_of])


def test_columns_that_are_missing_are_named() -> None:
    with pytest.raises(KeyError, match="missing columns target_wallet_id, asset"):
        TransactionColumns.from_arrow(stream(3).drop_columns(["target_wallet_id", "asset"]))


def test_emit_must_have_a_row_for_each_transaction() -> None:
    with pytest.raises(ValueError, match=r"expected shape \(1, 2\)"):
        FeatureState().observe(transfers(("a", "b", "1", 1)), np.ones((2, 2), np.bool_))


def test_a_hub_costs_no_more_as_history_grows() -> None:
    """Generous bound: the second half of a hub-heavy stream may not take three times the first."""
    table = stream(6000, wallets=2000)
    seconds = [float("inf")] * 2
    for _ in range(3):  # the best of three: whoever shares the processor's caches slows a single run
        state = FeatureState()
        state.observe(TransactionColumns.from_arrow(table.slice(0, 100)))
        for half, at in enumerate((100, 3050)):
            columns = TransactionColumns.from_arrow(table.slice(at, 2950))
            start = time.process_time()
            state.observe(columns)
            seconds[half] = min(seconds[half], time.process_time() - start)
    assert seconds[1] < 3 * seconds[0] + 0.05
