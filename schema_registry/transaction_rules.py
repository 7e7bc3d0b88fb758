"""The rules of a transaction in columns: the same verdicts as `TransactionRecorded.validate`, for a whole table at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from domain import values
from domain.errors import InvalidValue
from schema_registry.rule_screen import suspects

FIELDS = (
    "tx_id", "network", "kind", "status", "source_wallet_id", "target_wallet_id", "amount", "asset", "counter_amount",
    "counter_asset", "fee", "fee_asset", "occurred_at", "block", "personal",
    "payment.merchant_category", "payment.location", "payment.country", "payment.payment_method", "payment.device_id",
)  # fmt: skip
"""The fields that the rules look at."""

_CONTROL = r"[\x00-\x1f\x7f-\x{9f}\x{2028}\x{2029}]"
_AHEAD_US = values.MAX_AHEAD // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """A row that breaks a rule: its index, the field, and a sentence."""

    index: int
    field: str
    message: str


def broken_rules(table: pa.Table, arrived_at_ms: npt.NDArray[np.int64] | None = None) -> list[BrokenRule]:
    """The first broken rule of each row that breaks one, ascending by index.

    Args:
        table: transactions, columns `FIELDS` as `column_codec` gives them (any others are ignored).
        arrived_at_ms: when each command arrived, for the check against the future; none leaves it out.
    """
    table = table.select(list(FIELDS))
    latest_us = arrived_at_ms * 1000 + _AHEAD_US if arrived_at_ms is not None else None
    networks = [value for value in pc.unique(table["network"]).drop_null().to_pylist() if not _passes(values.network, value)]
    rows = suspects(table, pa.array(networks, pa.string()), latest_us)
    if not len(rows):
        return []
    frame = pl.DataFrame(pl.from_arrow(table.take(pa.array(rows)))).with_columns(pl.Series("row", rows))
    checks: list[tuple[str, str, pl.Expr]] = [
        ("network", "expected lower-case letters, digits, _ or -, at most 32", pl.col("network").is_in(networks)),
        *_identifier("tx_id", "network"),
        ("kind", "expected a known kind, found unknown", pl.col("kind") == "unknown"),
        ("status", "expected a known status, found unknown", pl.col("status") == "unknown"),
        *_identifier("source_wallet_id", "network"),
        *_identifier("target_wallet_id", "network"),
        ("amount", "expected zero or more, found a negative number", pl.col("amount") < 0),
        *_identifier("asset"),
    ]
    for name in ("counter", "fee"):
        amount = "counter_amount" if name == "counter" else name
        pair = pl.col(amount).is_null() != pl.col(f"{name}_asset").is_null()
        checks += [
            (f"{name}_asset", "expected an amount and its asset together, found one of them", pair),
            (amount, "expected zero or more, found a negative number", pl.col(amount) < 0),
            *_identifier(f"{name}_asset"),
        ]
    moment = pl.col("occurred_at").dt.epoch("us")
    checks.append(("occurred_at", "expected 1970 or later", moment < 0))
    if latest_us is not None:
        frame = frame.with_columns(pl.Series("latest_us", latest_us[rows]))
        checks.append(("occurred_at", "expected a time not after its arrival", moment > pl.col("latest_us")))
    for name in (field for field in FIELDS if field.startswith("payment.")):
        is_long = pl.col(name).str.len_chars() > values.MAX_TEXT_LENGTH
        checks.append((name, f"expected at most {values.MAX_TEXT_LENGTH} characters", is_long))
    checks += [
        ("block", "expected zero or more", pl.col("block") < 0),
        ("personal", "expected nothing: sealing is not built, so nothing personal may be stored", pl.col("personal").is_not_null()),
    ]
    verdict = pl.coalesce(*(pl.when(failed).then(pl.lit(n, pl.Int32)) for n, (_, _, failed) in enumerate(checks)), pl.lit(-1, pl.Int32))
    broken = frame.select("row", verdict.alias("rule")).filter(pl.col("rule") >= 0)
    return [BrokenRule(row, checks[rule][0], f"{checks[rule][0]}: {checks[rule][1]}") for row, rule in broken.rows()]


def _identifier(field: str, network: str | None = None) -> list[tuple[str, str, pl.Expr]]:
    column = pl.col(field)
    length = column.str.len_chars()
    found = [
        (field, f"expected 1 to {values.MAX_ID_LENGTH} characters", (length == 0) | (length > values.MAX_ID_LENGTH)),
        (field, "expected no control characters", column.str.contains(_CONTROL)),
    ]
    if network is not None:
        is_other = ~column.str.starts_with(pl.col(network) + ":") | (length <= pl.col(network).str.len_chars() + 1)
        found.append((field, "expected to start with its network and a colon", is_other))
    return found


def _passes(rule: Callable[[str], str], value: str) -> bool:
    try:
        rule(value)
    except InvalidValue:
        return False
    return True
