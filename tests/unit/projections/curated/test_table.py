"""The curated table's layout: columns from the contract, rows from decoded events, and who pays for importing Iceberg."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy

import pyarrow as pa
import pytest
from pyiceberg.table.snapshots import Operation, Snapshot, Summary

from domain.log import Position
from projections.curated.sink import _is_at
from projections.curated.table import POSITION, canonical, columns, position_of, position_text, rows
from projections.decoding import decode
from projections.records import RecordBatch
from schema_registry.column_codec import ColumnCodec, arrow_schema
from schema_registry.contracts import TRANSACTION_EVENTS, Contract, contracts
from tests.contracts.test_sink import CATALOG, RECORDS

T0 = (TRANSACTION_EVENTS, 0)


def test_every_field_of_the_contract_has_a_column_of_its_type_and_doc() -> None:
    found = columns()
    for field in arrow_schema("TransactionRecorded"):
        column = found.field(field.name.replace(".", "_"))
        assert (column.type, column.nullable) == (field.type, True)
        assert column.metadata[b"doc"]
    assert found.names[-5:] == ["log_topic", "log_partition", "log_offset", "seq", "ingested_at"]


def test_two_fields_that_would_share_a_column_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    first = contracts()["TransactionRecorded"]
    second = deepcopy(first.latest)
    second["fields"].append({"name": "payment_country", "type": ["null", "string"], "default": None, "doc": "d", "pii": "none"})
    monkeypatch.setitem(contracts(), "TransactionRecorded", Contract("TransactionRecorded", (second,)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two of one name"):
        columns()


def test_a_row_without_a_seq_has_none_and_rows_compare_by_their_place() -> None:
    bare = [RecordBatch.of(RECORDS[:2]), RecordBatch.of([RECORDS[2]])]
    bare[1].headers[0] = ()
    events, _ = decode(ColumnCodec(CATALOG, {"TransactionRecorded": ()}), bare)
    found = rows(events.tables["TransactionRecorded"])
    assert found["seq"].to_pylist() == [0, 1, None]
    assert found.schema.equals(columns())
    compared = canonical(found)
    assert compared["_topic"].to_pylist() == [TRANSACTION_EVENTS] * 3
    assert list(zip(compared["_partition"].to_pylist(), compared["_offset"].to_pylist(), strict=True)) == [(0, 0), (1, 0), (2, 0)]


def test_no_events_give_an_empty_table_of_the_same_columns() -> None:
    assert (rows(None).num_rows, rows(None).schema) == (0, columns())


@pytest.mark.parametrize("position", [{}, {T0: 7}, {T0: 7, (TRANSACTION_EVENTS, 5): 1, ("replay/transaction-events/3/4711", 0): 1}])
def test_a_position_comes_back_from_a_snapshot_as_it_was(position: Position) -> None:
    snapshot = Snapshot(
        snapshot_id=1, timestamp_ms=0, manifest_list="", summary=Summary(Operation.APPEND, **position_text(position))
    )  # fmt: skip

    class Table:
        metadata = None

        def current_snapshot(self) -> Snapshot:
            return snapshot

    assert POSITION in position_text(position)
    assert position_of(Table()) == position  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stored", "before", "after", "is_at"),
    [
        ({}, {}, {T0: 3}, True),
        ({}, {T0: 0}, {T0: 3}, True),
        ({T0: 3}, {T0: 3}, {T0: 5}, True),
        ({T0: 3}, {}, {T0: 5}, False),
        ({T0: 2}, {T0: 3}, {T0: 5}, False),
        ({(TRANSACTION_EVENTS, 1): 9}, {}, {T0: 3}, True),
    ],
    ids=["new", "zero-is-none", "goes-on", "taken-meanwhile", "fell-back", "other-partitions-do-not-count"],
)
def test_a_writer_may_write_where_it_believes_to_be(stored: Position, before: Position, after: Position, is_at: bool) -> None:
    assert _is_at(stored, before, after) is is_at


def test_a_position_that_falls_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a position that rises, found 5 to 3"):
        _is_at({T0: 5}, {T0: 5}, {T0: 3})


def test_only_those_who_use_the_table_import_iceberg() -> None:
    program = "import sys, infra.composition, infra.status, infra.rebuild_targets, infra.quarantine_replay, infra.cli.commands\n"
    program += "assert not [name for name in sys.modules if name.partition('.')[0] == 'pyiceberg']"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_times_and_amounts_keep_their_last_digit() -> None:
    events, _ = decode(ColumnCodec(CATALOG, {"TransactionRecorded": ()}), [RecordBatch.of(RECORDS[:1])])
    found = rows(events.tables["TransactionRecorded"])
    assert found.schema.field("amount").type == pa.decimal128(38, 18)
    assert found.schema.field("occurred_at").type == found.schema.field("ingested_at").type == pa.timestamp("us", "UTC")
