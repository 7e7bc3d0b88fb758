"""The recorded scores of a transaction or a wallet, as the log holds them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from infra.cli.model_commands import _line, recorded_scores
from projections.records import RecordBatch
from schema_registry.catalog import SchemaCatalog
from schema_registry.contracts import SCORE_EVENTS
from schema_registry.record_codec import RecordCodec

CATALOG = SchemaCatalog.numbered()


def scored(n: int, source: str | None, target: str | None) -> bytes:
    value: dict[str, Any] = {
        "tx_id": f"ethereum:{n}:0", "tx_seq": n, "network": "ethereum", "source_wallet_id": source, "target_wallet_id": target,
        "score": n / 10, "source_score": n / 10, "target_score": None, "features_only_score": 0.1, "source_k": n, "target_k": None,
        "source_features_only_score": None, "target_features_only_score": None, "source_embedding_seq": None,
        "target_embedding_seq": None, "features": b"", "feature_set": "1", "model_version": "m",
    }  # fmt: skip
    return RecordCodec(CATALOG).encode("TransactionScored", value)


def composition(values: list[bytes]) -> Any:
    """A log that holds these records, the last one foreign bytes."""
    values = [*values, b"foreign"]
    n = len(values)
    batch = RecordBatch(
        SCORE_EVENTS, np.zeros(n, np.int32), np.arange(n, dtype=np.int64), np.zeros(n, np.int64), [None] * n, list(values), [None] * n
    )
    log = SimpleNamespace(read=lambda topics, start: iter([batch]))
    return SimpleNamespace(clients=SimpleNamespace(catalog=CATALOG), log=log)


def test_a_transaction_has_its_score() -> None:
    found = recorded_scores(composition([scored(2, "ethereum:a", "ethereum:b"), scored(1, "ethereum:b", None)]), "ethereum:1:0", None)
    assert [row["score"] for row in found] == [0.1]


def test_a_wallets_scores_come_in_order_whatever_its_side() -> None:
    log = composition([scored(3, "ethereum:b", "ethereum:a"), scored(1, "ethereum:a", None), scored(2, None, "ethereum:c")])
    found = recorded_scores(log, None, "ethereum:a")
    assert [row["tx_seq"] for row in found] == [1, 3]
    assert [_line(row, "ethereum:a")[2] for row in found] == ["source", "target"]
    assert recorded_scores(log, None, "ethereum:nobody") == []
