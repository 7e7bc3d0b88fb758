"""Which events the wallet graph cannot hold: rows that go to quarantine before a batch is written."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from domain.values import MAX_ID_LENGTH
from projections.protocol import EventBatch, Rejection
from projections.wallet_graph_rows import READS, frame

IDENTIFIERS: Final = ("tx_id", "wallet_id", "source_wallet_id", "target_wallet_id", "case_id")
_CONTROL: Final = r"[\x00-\x1f\x7f-\x9f]"
_SHOWN_CHARS: Final = 60


def screen_batch(batch: EventBatch) -> list[Rejection]:
    """Rows that break a rule, each named once.

    `unsafe_identifier`: an id is empty, longer than an index key may be here, or holds control characters.
    `negative_amount`: the sums of flows are of what moved.
    `invalid_score`: not a finite number. `invalid_vector`: not `dimensions` finite float32 numbers, or all zeros: the
    index compares angles.
    """
    rejections = []
    for name in READS:
        events = frame(batch, name)
        if events is None:
            continue
        reason = pl.lit(None, pl.String)
        for column in IDENTIFIERS:
            if column in events.columns:
                reason = pl.when(_is_unsafe(column)).then(pl.lit("unsafe_identifier")).otherwise(reason)
        if name == "TransactionRecorded":
            reason = pl.when(pl.col("amount") < 0).then(pl.lit("negative_amount")).otherwise(reason)
        if "score" in events.columns:
            reason = pl.when(pl.col("score").is_finite().not_()).then(pl.lit("invalid_score")).otherwise(reason)
        events = events.with_columns(reason.alias("@reason"))
        if name == "WalletEmbedded":
            events = _screen_vectors(events)
        for row in events.filter(pl.col("@reason").is_not_null()).iter_rows(named=True):
            shown = {key: str(row[key])[:_SHOWN_CHARS] for key in events.columns if key in IDENTIFIERS}
            message = f"{name}: {row['@reason']} in {shown!r}"
            rejections.append(Rejection(row["_topic"], row["_partition"], row["_offset"], row["@reason"], message))
    return rejections


def _is_unsafe(column: str) -> pl.Expr:
    length = pl.col(column).str.len_chars()
    return (length == 0) | (length > MAX_ID_LENGTH) | pl.col(column).str.contains(_CONTROL)


def _screen_vectors(events: pl.DataFrame) -> pl.DataFrame:
    reasons = [
        reason if _is_vector(vector, dimensions) else "invalid_vector"
        for vector, dimensions, reason in events.select("vector", "dimensions", "@reason").iter_rows()
    ]
    return events.with_columns(pl.Series("@reason", reasons, pl.String))


def _is_vector(vector: bytes, dimensions: int) -> bool:
    if not vector or len(vector) != 4 * dimensions:
        return False
    numbers = np.frombuffer(vector, "<f4")
    return bool(np.isfinite(numbers).all() and numbers.any())
