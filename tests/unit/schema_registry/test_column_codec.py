"""In columns: the same values as the record codec, the same refusals, and a batch survives its worst record."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema_registry import catalog as catalog_module
from schema_registry import column_codec
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec, arrow_schema
from schema_registry.contracts import Contract, contracts
from schema_registry.record_codec import RecordCodec, as_record
from schema_registry.wire import frame
from tests.unit.domain.facts import AT, transaction
from tests.unit.schema_registry.generated import CATALOG, COLUMNS, RECORDS, by_column, by_record, damaged, values_of

TX = RECORDS.encode_event(transaction())
LABEL = RECORDS.encode("LabelWallet", {"wallet_id": "a:b", "label": "licit", "source": "s", "known_at": AT})
NAMES = sorted(contracts())


@pytest.mark.parametrize("name", NAMES)
def test_both_codecs_give_equal_values(name: str) -> None:
    @settings(max_examples=6, deadline=None)
    @given(st.lists(values_of(contracts()[name].latest), min_size=1, max_size=4))
    def check(records: list[dict[str, Any]]) -> None:
        values: list[bytes | None] = [RECORDS.encode(name, record) for record in records]
        assert by_column(COLUMNS, values) == [by_record(value) for value in values]

    check()


@pytest.mark.parametrize("name", NAMES)
def test_both_codecs_agree_on_damaged_bytes(name: str) -> None:
    @settings(max_examples=12, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        whole = RECORDS.encode(name, data.draw(values_of(contracts()[name].latest)))
        values: list[bytes | None] = [data.draw(damaged(whole)), whole, data.draw(damaged(whole))]
        assert by_column(COLUMNS, values) == [by_record(value) for value in values]

    check()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | st.binary(max_size=40) | st.tuples(st.sampled_from(NAMES), st.binary(max_size=40)), max_size=6))
def test_random_bytes_are_a_record_or_a_failure_in_both(noise: list[Any]) -> None:
    values = [frame(CATALOG.latest_id(n[0]), n[1]) if isinstance(n, tuple) else n for n in noise]
    assert by_column(COLUMNS, values) == [by_record(value) for value in values]


@pytest.mark.parametrize(("name", "rest"), [("RecordQuarantined", 11), ("QuarantineReplayed", 4)], ids=["by-record", "by-column"])
def test_an_int_of_more_than_32_bits_is_a_failure_in_both(name: str, rest: int) -> None:
    fitting, beyond = b"\xfe\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x10"  # 2^31 - 1 and 2^31
    values: list[bytes | None] = [frame(CATALOG.latest_id(name), b"\0\0" + number + bytes(rest)) for number in (fitting, beyond)]
    found = by_column(COLUMNS, values)
    assert found == [by_record(value) for value in values]
    assert isinstance(found[0], dict)
    assert found[0]["partition"] == (1 << 31) - 1
    assert found[1] == "undecodable"


def test_a_malformed_record_beside_text_beyond_ascii_is_one_failure() -> None:
    good = RECORDS.encode_event(transaction(asset="€"))
    decoded = COLUMNS.decode([TX[:5] + b"\xff" * 10, good, TX[:6] + b"\xff" + TX[7:]])
    assert [(f.index, f.reason) for f in decoded.failures] == [(0, "malformed"), (2, "malformed")]
    assert decoded.tables["TransactionRecorded"].table["asset"].to_pylist() == ["€"]


def test_a_batch_of_everything_names_each_failure_by_its_place() -> None:
    bad_text = TX[:6] + b"\xff" + TX[7:]
    values = [TX, None, b"", b"noise", frame(999, b"x"), TX[:-1], TX + b"!", bad_text, TX[:5] + b"\xff" * 10, LABEL, TX]
    decoded = COLUMNS.decode(values)
    assert [(f.index, f.reason) for f in decoded.failures] == [
        (1, "no_value"), (2, "not_framed"), (3, "not_framed"), (4, "unknown_schema_id"), (5, "truncated"), (6, "trailing_bytes"),
        (7, "malformed"), (8, "malformed"),
    ]  # fmt: skip
    assert decoded.tables["TransactionRecorded"].indexes.tolist() == [0, 10]
    assert decoded.tables["LabelWallet"].indexes.tolist() == [9]


def test_only_the_fields_that_a_reader_names_are_decoded_and_other_contracts_are_skipped() -> None:
    codec = ColumnCodec(CATALOG, {"TransactionRecorded": ("amount", "origin.row", "payment.country")})
    decoded = codec.decode([LABEL, TX, b"noise"])
    assert list(decoded.tables) == ["TransactionRecorded"]
    assert decoded.tables["TransactionRecorded"].table.to_pylist() == [
        {"amount": transaction().amount, "payment.country": None, "origin.row": 0}
    ]
    assert [f.index for f in decoded.failures] == [2]


@settings(max_examples=60, deadline=None)
@given(
    values_of(contracts()["TransactionRecorded"].latest),
    st.sets(st.sampled_from(arrow_schema("TransactionRecorded").names), min_size=1),
)
def test_a_field_has_the_same_value_whatever_else_is_read(record: dict[str, Any], fields: set[str]) -> None:
    value: bytes | None = RECORDS.encode("TransactionRecorded", record)
    (narrow,) = by_column(ColumnCodec(CATALOG, {"TransactionRecorded": tuple(fields)}), [value])
    (full,) = by_column(COLUMNS, [value])
    assert isinstance(full, dict)
    assert narrow == {path: found for path, found in full.items() if path in fields}


def test_a_missing_group_is_null_in_each_of_its_fields() -> None:
    record = {
        **as_record(transaction()),
        "payment": {"merchant_category": None, "location": "here", "country": None, "payment_method": None, "device_id": None},
    }
    table = COLUMNS.decode([TX, RECORDS.encode("TransactionRecorded", record)]).tables["TransactionRecorded"].table
    assert table["payment.location"].to_pylist() == [None, "here"]
    assert table["card_features.v28"].to_pylist() == [None, None]


def test_the_mark_tells_where_a_field_begins_counted_from_the_value() -> None:
    codec = ColumnCodec(CATALOG, {"TransactionRecorded": ("tx_id",)}, mark="origin")
    table = codec.decode([TX]).tables["TransactionRecorded"].table
    at = table["@origin"][0].as_py()
    assert TX[at:] == b"\x0af.csv\x14ethereum@1\x06run\x00"


def test_an_empty_batch_gives_nothing() -> None:
    assert COLUMNS.decode([]).tables == {}


def test_records_of_an_older_version_are_read_beside_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: a new field with a default may be added; old records show null there."""
    old = contracts()["WalletFrozen"]
    newer = copy.deepcopy(old.latest)
    newer["fields"].insert(1, {"name": "order_id", "type": ["null", "string"], "default": None, "doc": "d", "pii": "none"})
    both = {**contracts(), "WalletFrozen": Contract("WalletFrozen", (old.latest, newer))}
    for module in (catalog_module, column_codec):
        monkeypatch.setattr(module, "contracts", lambda: both)
    grown = SchemaCatalog({"WalletFrozen": (7, 8)})
    fields = {"wallet_id": "card:1", "reason": "r", "actor": "ann", "known_at": AT}
    new_value = RecordCodec(grown).encode("WalletFrozen", {**fields, "order_id": "o1"})
    old_value = RecordCodec(SchemaCatalog({"WalletFrozen": (7,)})).encode("WalletFrozen", fields)
    assert old_value[:5] == frame(7, b"")
    decoded = ColumnCodec(grown).decode([new_value, old_value, new_value])
    rows = decoded.tables["WalletFrozen"].table.to_pylist()
    assert [row["order_id"] for row in rows] == ["o1", None, "o1"]
    assert [row["wallet_id"] for row in rows] == ["card:1"] * 3


def test_arrow_types_are_those_of_the_stores() -> None:
    schema = arrow_schema("TransactionRecorded")
    assert schema.field("amount").type == pa.decimal128(38, 18)
    assert schema.field("occurred_at").type == pa.timestamp("us", tz="UTC")
    assert schema.field("kind").type == pa.string()
    assert SimpleNamespace(n=len(schema.names)).n == len(set(schema.names))
