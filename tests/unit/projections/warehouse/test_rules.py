"""Rows that break a rule are named one by one; all others pass."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from projections.protocol import EventBatch, Rejection
from projections.warehouse.rules import RULES, broken_rules
from tests.unit.projections.warehouse.events import (
    ARRIVED_MS,
    Placed,
    batch_of,
    described,
    embedded,
    scored,
    transaction,
)


def changed(column: str, value: object, row: int = 2) -> list[Rejection]:
    """What is said of six transactions after one value of one row was changed."""
    events = batch_of(Placed(transaction(i), 3, 10 + i) for i in range(6)).tables["TransactionRecorded"]
    values = events[column].to_pylist()
    values[row] = value
    index = events.column_names.index(column)
    altered = events.set_column(index, column, pa.array(values, events[column].type))
    return broken_rules(EventBatch({"TransactionRecorded": altered}))


def test_good_rows_pass() -> None:
    placed = [Placed(transaction(i), i % 6, i // 6) for i in range(50)]
    others = [
        Placed(scored(3), 0, 0),
        Placed(embedded("a:b"), 0, 0),
        Placed(described("a:b", "name\nand more", 1), 0, 0),
    ]
    assert broken_rules(batch_of([*placed, *others])) == []


TOO_LATE = ARRIVED_MS * 1000 + 86_400_000_001


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        pytest.param("tx_id", "", "missing_value", id="empty id"),
        pytest.param("amount", Decimal(-1).scaleb(-18), "negative_amount", id="amount below zero"),
        pytest.param("fee", Decimal("-1"), "negative_amount", id="fee below zero"),
        pytest.param("kind", "unknown", "unknown_value", id="unknown kind"),
        pytest.param("status", "reverted", "unknown_value", id="unheard-of status"),
        pytest.param("counter_asset", "DAI", "incomplete_pair", id="asset without its amount"),
        pytest.param("fee", Decimal("1"), "incomplete_pair", id="fee without its asset"),
        pytest.param("occurred_at", -1, "time_out_of_range", id="before the epoch"),
        pytest.param("occurred_at", TOO_LATE, "time_out_of_range", id="more than a day ahead"),
        pytest.param("payment.location", "Gou\0da", "nul_in_text", id="NUL in text"),
        pytest.param("origin.source", "\0", "nul_in_text", id="NUL alone"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named_with_its_place(column: str, value: object, reason: str) -> None:
    (rejection,) = changed(column, value)
    assert (rejection.topic, rejection.partition, rejection.offset) == ("transaction-events", 3, 12)
    assert rejection.reason == reason
    assert column in rejection.message and rejection.message.startswith("TransactionRecorded: expected")


def test_a_time_a_day_ahead_of_its_arrival_passes() -> None:
    assert changed("occurred_at", TOO_LATE - 1) == []


def test_a_row_that_breaks_two_rules_is_rejected_once() -> None:
    placed = [Placed(scored(1, score=1.5, source_score=-0.5), 0, 0), Placed(scored(2, score=float("nan")), 0, 1)]
    rejections = broken_rules(batch_of(placed))
    assert [(one.offset, one.reason) for one in rejections] == [(0, "score_out_of_range"), (1, "score_out_of_range")]


def test_a_vector_of_another_length_is_rejected() -> None:
    placed = [Placed(embedded("a:b"), 0, 0), Placed(embedded("a:c", dimensions=5), 0, 1)]
    (rejection,) = broken_rules(batch_of(placed))
    assert (rejection.offset, rejection.reason) == (1, "vector_length")


def test_a_nul_is_found_in_sliced_and_chunked_columns() -> None:
    events = batch_of(Placed(described("a:b", name, 1), 0, i) for i, name in enumerate(["x", "y", "z\0"]))
    table = events.tables["WalletDescribed"]
    pieces = pa.concat_tables([table.slice(2, 1), table.slice(0, 1)])
    (rejection,) = broken_rules(EventBatch({"WalletDescribed": pieces}))
    assert (rejection.offset, rejection.reason) == (2, "nul_in_text")


def test_every_rule_names_columns_of_its_event_type() -> None:
    from schema_registry.contracts import contracts, fields

    for rule in RULES:
        assert rule.column in {field.path for field in fields(contracts()[rule.event_type].latest)}


def test_an_absent_amount_with_its_absent_asset_breaks_nothing() -> None:
    assert changed("counter_amount", None, row=0) == []
