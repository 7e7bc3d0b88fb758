"""A small labelled stream whose positives are learnable: they gather from many and pass everything on at once."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa

from ml.datasets import KnownLabel

KNOWN_AT = datetime(2018, 1, 1, tzinfo=UTC)


def labelled_stream(wallets: int = 60, seed: int = 0) -> tuple[pa.Table, dict[str, KnownLabel]]:
    """About 6 transactions a labelled wallet, and every second wallet a positive."""
    draw = np.random.default_rng(seed)
    rows: list[tuple[int, str, str, Decimal]] = []
    labels = {}
    for number in range(wallets):
        wallet, is_positive, start = f"test:w{number}", number % 2 == 0, 1_500_000_000 + 5000 * number
        labels[wallet] = KnownLabel(is_positive, KNOWN_AT)
        for i in range(4):
            party, amount = f"test:p{draw.integers(0, 200)}", Decimal(int(draw.integers(10, 900))).scaleb(-2)
            at = start + 600 * i
            rows.append((at, party, wallet, amount) if is_positive else (at, wallet, party, amount))
        if is_positive:
            rows.append((start + 2400, wallet, "test:exit", Decimal(5)))
    rows.sort(key=lambda row: row[0])
    table = pa.table(
        {
            "tx_id": [f"test:{i}:0" for i in range(len(rows))],
            "source_wallet_id": [row[1] for row in rows],
            "target_wallet_id": [row[2] for row in rows],
            "amount": pa.array([row[3] for row in rows], pa.decimal128(38, 18)),
            "asset": ["ETH"] * len(rows),
            "kind": ["transfer"] * len(rows),
            "status": ["settled"] * len(rows),
            "occurred_at": pa.array([row[0] * 1_000_000 for row in rows]).cast(pa.timestamp("us", "UTC")),
        }
    )
    return table, labels
