"""The fields of `TransactionRecorded` that logistic regression is made of: what else a record holds is skipped, not decoded."""

FIELDS = (
    "tx_id", "network", "kind", "status", "source_wallet_id", "target_wallet_id", "amount", "asset", "counter_asset", "fee", "occurred_at",
    "payment", "card_features",
)  # fmt: skip
FEATURES = "1"
"""Which features a model was made of (`infra.spark.jobs.features`): another number with each change of theirs."""
