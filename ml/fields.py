"""The fields of a transaction that learning and scoring read: one list, so that training and serving see the same."""

from __future__ import annotations

from graph.features_names import N_CARD, PAYMENT_FIELDS

TRANSACTION_FIELDS = (
    "tx_id", "network", "kind", "status", "source_wallet_id", "target_wallet_id", "amount", "asset", "occurred_at",
    *(f"payment.{field}" for field in PAYMENT_FIELDS), *(f"card_features.v{i}" for i in range(1, N_CARD + 1)),
)  # fmt: skip
