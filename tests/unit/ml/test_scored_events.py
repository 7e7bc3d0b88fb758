"""Scores as events: in columns byte for byte what single records give."""

from __future__ import annotations

from typing import Any

import pytest

from ml.scorer import FEATURE_SET, FEW_ROWS, ScoreEncoder
from schema_registry.catalog import SchemaCatalog
from schema_registry.record_codec import RecordCodec

CATALOG = SchemaCatalog.numbered()


def row(number: int) -> dict[str, Any]:
    """What is said of a transaction; every second one names no target, every fifth no wallet at all."""
    source = None if number % 5 == 0 else f"ethereum:0x{number:x}"
    target = None if number % 2 or number % 5 == 0 else f"ethereum:0xf{number:x}"
    score = (number % 1000) / 1000
    found: dict[str, Any] = {
        "tx_id": f"ethereum:tx{number}:0", "network": "ethereum", "source_wallet_id": source, "target_wallet_id": target,
        "tx_seq": number, "score": score, "features_only_score": score / 2, "feature_set": FEATURE_SET, "model_version": "m-1",
        "features": bytes(range(number % 7 * 4)),
    }  # fmt: skip
    for name, wallet in (("source", source), ("target", target)):
        has = wallet is not None
        found |= {
            f"{name}_score": score if has else None, f"{name}_features_only_score": score / 3 if has else None,
            f"{name}_k": number if has else None, f"{name}_embedding_seq": number if has else None,
        }  # fmt: skip
    return found


@pytest.mark.parametrize("event_type", ["TransactionScored", "TransactionRescored"])
@pytest.mark.parametrize("count", [1, FEW_ROWS - 1, FEW_ROWS, 5 * FEW_ROWS])
def test_many_are_encoded_as_one_by_one(event_type: str, count: int) -> None:
    rows = [row(number) for number in range(count)]
    found = ScoreEncoder(CATALOG, event_type).events(rows)
    codec = RecordCodec(CATALOG)
    assert list(found.values) == [codec.encode(event_type, one) for one in rows]
    assert found.keys[0] == b"ethereum:tx0:0" and (count < 2 or found.keys[1] == b"ethereum:0x1")
    assert len(found.headers) == count and found.topic.endswith("score-events" if event_type == "TransactionScored" else "rescore-events")
