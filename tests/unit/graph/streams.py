"""Made-up streams for tests of features: hubs, ties, late events, self-transfers, failures, missing sides."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa


def stream(rows: int, seed: int = 0, wallets: int = 60) -> pa.Table:
    """`rows` transactions in the order of seq, with two assets and every oddity that a source may hold."""
    draw = np.random.default_rng(seed)
    time_s = 1_500_000_000 + np.cumsum(draw.integers(0, 400, rows)) - 3000 * (draw.random(rows) < 0.05)
    hub = draw.random((rows, 2)) < 0.2
    ends = np.where(hub, 0, draw.integers(0, wallets, (rows, 2)))
    names = [[None if draw.random() < 0.02 else f"test:{end}" for end in ends[:, side]] for side in (0, 1)]
    digits = draw.integers(0, 19, rows)
    amounts = [Decimal(int(draw.integers(0, 10**6))).scaleb(-int(d)) for d in digits]
    return pa.table(
        {
            "tx_id": [f"test:{i}:0" for i in range(rows)],
            "source_wallet_id": pa.array(names[0], pa.string()),
            "target_wallet_id": pa.array(names[1], pa.string()),
            "amount": pa.array(amounts, pa.decimal128(38, 18)),
            "asset": pa.array(draw.choice(["ETH", "EUR"], rows)),
            "kind": pa.array(["transfer"] * rows),
            "status": pa.array(np.where(draw.random(rows) < 0.05, "failed", "settled")),
            "occurred_at": pa.array(time_s * 1_000_000).cast(pa.timestamp("us", "UTC")),
        }
    )
