"""The worked example of docs/adding-a-projection.md: the sink suite, and its numbers worked out by hand."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from projections.protocol import EventBatch, Excluded
from tests.contracts.table_contract import TableContract
from tests.example_projection import FOLDER

sys.path.insert(0, str(FOLDER))
from net_flow import NetFlow

HOUR = datetime(2024, 5, 1, 12, tzinfo=UTC)


class TestNetFlow(TableContract):
    projection = NetFlow


def implied(*transactions: tuple[str, str | None, str | None, str, int]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
    """The rows of (status, source, target, amount, minute) on one network, in order of their keys; and what was excluded."""
    statuses, sources, targets, amounts, minutes = zip(*transactions, strict=True)
    table = pa.table(
        {
            "network": ["eth"] * len(statuses),
            "asset": ["ETH"] * len(statuses),
            "status": list(statuses),
            "source_wallet_id": pa.array(sources, pa.string()),
            "target_wallet_id": pa.array(targets, pa.string()),
            "amount": pa.array([Decimal(amount) for amount in amounts], pa.decimal128(38, 18)),
            "occurred_at": pa.array(
                [HOUR.replace(minute=minute % 60, hour=12 + minute // 60) for minute in minutes], pa.timestamp("us", "UTC")
            ),
        }
    )
    excluded, found = Excluded(), dict[str, list[dict[str, Any]]]()
    for name, rows in NetFlow("").expected(iter([EventBatch({"TransactionRecorded": table})]), excluded):
        found.setdefault(name, []).extend(rows.to_pylist())
    return {
        name: sorted(rows, key=lambda row: (row["hour"], row.get("wallet_id"))) for name, rows in found.items()
    }, excluded.count_by_reason


def test_value_in_and_out_by_hour_to_the_last_digit() -> None:
    found, _ = implied(
        ("settled", "a", "b", "10000000000000000000.000000000000000001", 0),
        ("settled", "b", "a", "0.000000000000000003", 59),
        ("settled", "a", "b", "5", 60),
    )
    assert [(row["hour"].hour, row["transactions"], row["volume"]) for row in found["asset_hour"]] == [
        (12, 2, "10000000000000000000.000000000000000004"),
        (13, 1, "5"),
    ]
    assert [(row["hour"].hour, row["wallet_id"], row["inflow"], row["outflow"], row["net"]) for row in found["wallet_hour"]] == [
        (12, "a", "0.000000000000000003", "10000000000000000000.000000000000000001", "-9999999999999999999.999999999999999998"),
        (12, "b", "10000000000000000000.000000000000000001", "0.000000000000000003", "9999999999999999999.999999999999999998"),
        (13, "a", "0", "5", "-5"),
        (13, "b", "5", "0", "5"),
    ]


def test_what_did_not_settle_moves_nothing_and_is_named() -> None:
    found, excluded = implied(("failed", "a", "b", "1", 0), ("declined", "a", "b", "1", 0), ("settled", "a", "b", "2", 0))
    assert found["asset_hour"][0]["transactions"] == 1
    assert excluded == {"not_settled": 2}


def test_who_pays_themselves_has_both_sides_and_an_unnamed_side_has_no_row() -> None:
    found, _ = implied(("settled", "a", "a", "3", 0), ("settled", None, "b", "4", 0))
    assert [(row["wallet_id"], row["inflow"], row["outflow"], row["net"]) for row in found["wallet_hour"]] == [
        ("a", "3", "3", "0"),
        ("b", "4", "0", "4"),
    ]
    assert found["asset_hour"][0]["volume"] == "7"
