"""The shape of fact rows: exact amounts, hours, feature lists, and where each row stands in the log."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa

from projections.protocol import EventBatch
from projections.warehouse.facts import fact_rows
from tests.unit.projections.warehouse.events import ARRIVED_MS, Placed, batch_of, transaction


def rows(*placed: Placed) -> list[dict[str, object]]:
    ((_, table),) = fact_rows(batch_of(placed))
    found: list[dict[str, object]] = table.to_pylist()
    return found


def test_amounts_keep_every_digit() -> None:
    (row,) = rows(Placed(transaction(1, amount=Decimal("12345678901234567890.123456789012345678")), 0, 0))
    assert row["amount"] == Decimal("12345678901234567890.123456789012345678")
    assert row["counter_amount"] == Decimal("99999999999999999999.999999999999999999")


def test_the_hour_is_the_beginning_of_the_hour_in_utc() -> None:
    last = datetime(2020, 2, 29, 23, 59, 59, 999_999, UTC)
    (row,) = rows(Placed(transaction(1, occurred_at=last), 0, 0))
    assert row["occurred_hour"] == datetime(2020, 2, 29, 23, tzinfo=UTC)


def test_card_features_are_a_list_where_there_are_any() -> None:
    found = rows(*(Placed(transaction(i), 0, i) for i in range(6)))
    assert [row["card_features"] is not None for row in found] == [False, False, True, False, False, True]
    assert found[2]["card_features"] == [2 / i - 1 for i in range(1, 29)]


def test_a_row_keeps_its_place_and_time_of_arrival() -> None:
    (row,) = rows(Placed(transaction(1), 4, 77))
    assert (row["log_partition"], row["log_offset"], row["seq"]) == (4, 77, 77 * 6 + 4)
    assert row["ingested_at"] == datetime.fromtimestamp(ARRIVED_MS / 1000, UTC)


def test_a_record_without_seq_has_none() -> None:
    table = batch_of([Placed(transaction(1), 0, 0)]).tables["TransactionRecorded"]
    index = table.column_names.index("_seq")
    bare = table.set_column(index, "_seq", pa.array([-1], pa.int64()))
    ((_, found),) = fact_rows(EventBatch({"TransactionRecorded": bare}))
    assert found["seq"].to_pylist() == [None]


def test_a_batch_without_events_gives_no_rows() -> None:
    assert list(fact_rows(EventBatch({}))) == []
