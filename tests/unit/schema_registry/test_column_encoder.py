"""The columnar encoder writes what the record codec writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.values import EPOCH
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec, arrow_schema, flatten
from schema_registry.column_encoder import ColumnEncoder
from schema_registry.errors import SchemaError
from schema_registry.record_codec import RecordCodec

CATALOG = SchemaCatalog.numbered()
ENCODER = ColumnEncoder(CATALOG)
RECORDS = RecordCodec(CATALOG)
SCHEMA = arrow_schema("TransactionRecorded")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.integers(-(10**16), 10**17).map(lambda micros: EPOCH + timedelta(microseconds=micros))
payments = st.fixed_dictionaries(
    {name: st.none() | texts for name in ("merchant_category", "location", "country", "payment_method", "device_id")}
)
features = st.fixed_dictionaries({f"v{i}": st.floats(allow_nan=False) for i in range(1, 29)})


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:

    number = st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: Decimal(n).scaleb(-18, Context(prec=60)))
    payment = draw(st.none() | payments)
    return {
        "tx_id": draw(texts), "network": draw(texts),
        "kind": draw(st.sampled_from(["unknown", "transfer", "refund"])),
        "status": draw(st.sampled_from(["settled", "failed", "declined"])),
        "source_wallet_id": draw(st.none() | texts), "target_wallet_id": draw(st.none() | texts),
        "amount": draw(number), "asset": draw(texts),
        "counter_amount": draw(st.none() | number), "counter_asset": draw(st.none() | texts),
        "fee": draw(st.none() | number), "fee_asset": draw(st.none() | texts), "occurred_at": draw(times),
        "block": draw(st.none() | st.integers(-(2**63), 2**63 - 1)),
        # a group of nothing but nulls has no trace in columns: it is written as a null group
        "payment": payment if payment and any(v is not None for v in payment.values()) else None,
        "card_features": draw(st.none() | features), "personal": draw(st.none() | st.binary(max_size=9)),
        "origin": {
            "source": draw(texts), "mapping": draw(texts), "ingest_id": draw(texts),
            "row": draw(st.integers(-1, 2**40)),
        },
    }  # fmt: skip


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([flatten(row) for row in rows], schema=SCHEMA)


@settings(deadline=None, max_examples=80)
@given(st.lists(records(), max_size=6))
def test_every_value_equals_that_of_the_record_codec(rows: list[dict[str, Any]]) -> None:
    assert ENCODER.encode(table_of(rows)) == [RECORDS.encode("TransactionRecorded", row) for row in rows]


@settings(deadline=None, max_examples=30)
@given(st.lists(records(), min_size=1, max_size=6), st.integers(0, 5))
def test_a_slice_of_chunks_decodes_to_itself(rows: list[dict[str, Any]], cut: int) -> None:
    table = pa.concat_tables([table_of(rows[:cut]), table_of(rows[cut:])]).slice(min(1, len(rows) - 1))
    decoded = ColumnCodec(CATALOG, {"TransactionRecorded": ()}).decode(ENCODER.encode(table))
    assert not decoded.failures
    assert decoded.tables["TransactionRecorded"].table.equals(table.combine_chunks())


def one(**changes: Any) -> pa.Table:
    row: dict[str, Any] = {
        "tx_id": "n:a:0", "network": "n", "kind": "transfer", "status": "settled", "amount": Decimal("1.5"),
        "asset": "A", "occurred_at": datetime(2020, 1, 1, tzinfo=UTC), "origin.source": "s", "origin.mapping": "",
        "origin.ingest_id": "i", "origin.row": 0,
    }  # fmt: skip
    row.update(changes)
    return pa.Table.from_pylist([row])


def test_columns_that_are_absent_are_null() -> None:
    name, record = RECORDS.decode(ENCODER.encode(one(amount=Decimal("1.500000000000000000")))[0])
    assert name == "TransactionRecorded"
    assert (record["payment"], record["card_features"], record["block"]) == (None, None, None)
    assert record["amount"] == Decimal("1.5")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tx_id": None}, "tx_id: expected a value, found null at row 0"),
        ({"kind": "bribe"}, "kind: row 0: expected one of"),
        ({"card_features.v1": 1.0}, "card_features.v2: expected a value, found null at row 0"),
        ({"occurred_at": datetime(2020, 1, 1)}, "a time with its zone is needed"),
        ({"block": "seven"}, "block: expected long"),
        ({"nonsense": 1}, r"expected columns of the schema, found \['nonsense'\]"),
    ],
    ids=["null", "symbol", "half-a-group", "naive-time", "wrong-type", "unknown-column"],
)
def test_what_the_schema_cannot_hold_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        ENCODER.encode(one(**changes))


def test_a_decimal_of_39_digits_in_a_raw_buffer_is_refused() -> None:
    raw = (10**38).to_bytes(16, "little")
    array = pa.Array.from_buffers(pa.decimal128(38, 18), 1, [None, pa.py_buffer(raw)])
    table = one().drop_columns(["amount"]).append_column("amount", array)
    with pytest.raises(SchemaError, match="at most 38 digits"):
        ENCODER.encode(table)


def test_no_rows_give_no_values() -> None:
    assert ENCODER.encode(SCHEMA.empty_table()) == []


@pytest.mark.parametrize("name", ["TransactionScored", "WalletLabelled", "WalletEmbedded"])
def test_other_contracts_are_encoded_by_their_own_schema(name: str) -> None:
    from schema_registry.avro_program import UnsupportedSchema

    try:
        encoder = ColumnEncoder(CATALOG, name)
    except UnsupportedSchema:
        pytest.skip(f"{name} holds arrays, which go record by record")
    assert encoder.encode(arrow_schema(name).empty_table()) == []
