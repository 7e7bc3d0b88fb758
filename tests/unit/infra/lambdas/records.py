"""Kinesis records as tests of the ingestion need them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from infra.lambdas.kinesis_ingestion import KinesisRecord

ARRIVED = datetime(2026, 11, 28, 12, tzinfo=UTC)


def transaction(n: int) -> bytes:
    """The JSON of a transaction of its own."""
    return json.dumps(
        {
            "version": 1, "tx_id": f"bank:{n}:0", "network": "bank", "kind": "transfer", "source_wallet_id": "bank:a",
            "target_wallet_id": f"bank:{n}", "amount": "1.5", "asset": "EUR", "occurred_at": "2026-11-28T11:00:00Z",
        }
    ).encode()  # fmt: skip


def record(n: int, data: bytes | None = None) -> KinesisRecord:
    """The n-th record of shard 3."""
    arrived_at = ARRIVED + timedelta(milliseconds=n)
    return KinesisRecord("s", "shardId-000000000003", str(n), "k", arrived_at, transaction(n) if data is None else data)
