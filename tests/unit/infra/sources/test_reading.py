"""Sources become commands: what is right goes on, what is wrong is refused with its bytes and a reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.sources import readers
from infra.sources.errors import MappingError, SourceCutShort, UnreadableSource, WrongColumns
from infra.sources.mapping import parse_mapping
from infra.sources.reading import Chunk, RejectedRow, dry_run, read, read_in_time_order
from infra.sources.shipped import transaction_mapping
from schema_registry.catalog import SchemaCatalog
from schema_registry.record_codec import RecordCodec

CATALOG = SchemaCatalog.numbered()
RECORDS = RecordCodec(CATALOG)
ETHEREUM = transaction_mapping("ethereum")
HEADER = "timestamp,block_number,tx_hash,from_address,to_address,value_eth,contract_address,is_error"
KEY = b"0123456789abcdef"
REAL = Path(__file__).parents[5] / "shared" / "data" / "ethereum_labelled" / "transactions.csv.gz"


def row(**changes: str) -> str:
    fields = {
        "timestamp": "1438920403", "block_number": "46275", "tx_hash": "0xAEf8", "from_address": "0xFc97",
        "to_address": "0x08ca", "value_eth": "0.01", "contract_address": "NULL", "is_error": "0",
    } | changes  # fmt: skip
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(fields.values())
    return out.getvalue()[:-1]


def file_of(tmp_path: Path, *rows: str, name: str = "t.csv", newline: str = "\n") -> Path:
    path = tmp_path / name
    text = newline.join([HEADER, *rows]) + newline
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def chunks(source: Any, **options: Any) -> list[Chunk]:
    mapping = options.pop("mapping", ETHEREUM)
    return list(read(source, mapping, ingest_id="i", catalog=CATALOG, **options))


def records(found: list[Chunk]) -> list[dict[str, Any]]:
    return [RECORDS.decode(value)[1] for chunk in found for value in chunk.values]


def rejected(found: list[Chunk]) -> list[RejectedRow]:
    return [refused for chunk in found for refused in chunk.rejected]


def refusals(found: list[Chunk]) -> list[tuple[int, str]]:
    return [(refused.row, refused.reason) for chunk in found for refused in chunk.rejected]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_row_becomes_a_command(tmp_path: Path, name: str, newline: str) -> None:
    [chunk] = chunks(file_of(tmp_path, row(), name=name, newline=newline))
    [record] = records([chunk])
    assert record["tx_id"] == "ethereum:0xaef8:0"
    assert (record["source_wallet_id"], record["target_wallet_id"]) == ("ethereum:0xfc97", "ethereum:0x08ca")
    assert record["amount"] == Decimal("0.01")
    assert record["occurred_at"] == chunk.first_occurred_at == datetime(2015, 8, 7, 4, 6, 43, tzinfo=UTC)
    assert record["origin"] == {"source": name, "mapping": "ethereum@1", "ingest_id": "i", "row": 0}
    assert chunk.keys == [b"ethereum:0xfc97"]


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"value_eth": "1e-15"}, "amount", Decimal("1e-15")),
        ({"value_eth": "0.123456789012345678"}, "amount", Decimal("0.123456789012345678")),
        ({"value_eth": "12345678901234567890.1"}, "amount", Decimal("12345678901234567890.1")),
        ({"value_eth": "-0"}, "amount", Decimal(0)),
        ({"to_address": ""}, "target_wallet_id", None),
        ({"to_address": "NULL"}, "target_wallet_id", None),
        ({"is_error": "1"}, "status", "failed"),
        ({"to_address": "0xfc97"}, "target_wallet_id", "ethereum:0xfc97"),
        ({"to_address": "a\"b'); DROP TABLE x; MATCH (n) DETACH DELETE n"}, "target_wallet_id",
         "ethereum:a\"b'); drop table x; match (n) detach delete n"),
        ({"to_address": "=cmd|' /C calc'!A0"}, "target_wallet_id", "ethereum:=cmd|' /c calc'!a0"),
        ({"to_address": "<script>[bold]x[/bold]"}, "target_wallet_id", "ethereum:<script>[bold]x[/bold]"),
        ({"to_address": "żółw,🐢"}, "target_wallet_id", "ethereum:żółw,🐢"),
    ],
    ids=["scientific", "18-decimals", "large", "minus-zero", "no-receiver", "null-text", "reverted", "self-transfer",
         "sql-and-cypher", "formula", "markup", "unicode-and-comma"],
)  # fmt: skip
def test_what_real_data_holds_is_taken_exactly(tmp_path: Path, changes: dict[str, str], field: str, expected: Any) -> None:
    found = chunks(file_of(tmp_path, row(**changes)))
    assert refusals(found) == []
    assert records(found)[0][field] == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"value_eth": "-1"}, "invalid_amount"),
        ({"value_eth": "NaN"}, "invalid_amount"),
        ({"value_eth": "inf"}, "invalid_amount"),
        ({"value_eth": "1" * 40}, "invalid_amount"),
        ({"value_eth": "1e-19"}, "invalid_amount"),
        ({"value_eth": "1e999999999999"}, "invalid_amount"),
        ({"value_eth": "1_000"}, "invalid_amount"),
        ({"value_eth": "0x10"}, "invalid_amount"),
        ({"value_eth": ""}, "missing_amount"),
        ({"timestamp": "-1"}, "invalid_occurred_at"),
        ({"timestamp": "99999999999"}, "invalid_occurred_at"),
        ({"timestamp": "yesterday"}, "invalid_occurred_at"),
        ({"timestamp": ""}, "missing_occurred_at"),
        ({"tx_hash": ""}, "missing_tx_id"),
        ({"tx_hash": "a" * 300}, "invalid_tx_id"),
        ({"from_address": "a\x1b[31mb"}, "invalid_source_wallet_id"),
        ({"from_address": "a\nb"}, "invalid_source_wallet_id"),
        ({"is_error": "2"}, "invalid_status"),
        ({"block_number": "-3"}, "invalid_block"),
        ({"block_number": "99999999999999999999"}, "invalid_block"),
        ({"to_address": "x" * 10_000_000}, "invalid_target_wallet_id"),
    ],
    ids=["negative", "nan", "infinite", "40-digits", "19-decimals", "huge-exponent", "underscore", "hex", "no-amount",
         "before-epoch", "future", "no-time", "empty-time", "no-id", "long-id", "ansi", "newline", "status", "block",
         "huge-block", "10-megabytes"],
)  # fmt: skip
def test_a_bad_row_is_refused_with_its_bytes_and_the_rest_goes_on(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    bad = row(**changes)
    found = chunks(file_of(tmp_path, row(tx_hash="0x1"), bad, row(tx_hash="0x2")))
    assert refusals(found) == [(1, reason)]
    [refused] = rejected(found)
    assert refused.raw == bad.encode()
    assert len(refused.message) < 400
    assert [record["origin"]["row"] for record in records(found)] == [0, 2]
    assert sum(chunk.rows_read for chunk in found) == 3


def test_bytes_that_are_not_utf8_survive_in_the_refused_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    bad = row(to_address="@@").encode().replace(b"@@", b"\xff\xfe")
    path.write_bytes(b"\n".join([HEADER.encode(), row().encode(), bad, row(contract_address="é").encode("latin-1")]))
    found = chunks(path)
    assert refusals(found) == [(1, "not_utf8")]
    assert rejected(found)[0].raw == bad
    assert len(records(found)) == 2  # a column that the mapping does not use may hold anything


@pytest.mark.parametrize(
    ("bad", "message"),
    [("1,2,3", "expected 8 fields, found 3"), (row() + ",9,9", "expected 8 fields, found 10"),
     ('"open' + row(), "never closes"), ('"a"b,' + row(), "follows a closing quote")],
    ids=["short", "long", "open-quote", "text-after-quote"],
)  # fmt: skip
def test_a_row_that_is_no_row_is_refused_alone(tmp_path: Path, bad: str, message: str) -> None:
    found = chunks(file_of(tmp_path, row(tx_hash="0x1"), bad, row(tx_hash="0x2")))
    assert refusals(found) == [(1, "malformed_row")]
    assert message in rejected(found)[0].message
    assert [record["tx_id"] for record in records(found)] == ["ethereum:0x1:0", "ethereum:0x2:0"]


def test_a_row_longer_than_the_limit_is_refused_and_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_ROW_BYTES", 1 << 20)
    long = row(to_address="x" * (9 << 20))
    path = file_of(tmp_path, row(tx_hash="0x1"), long, row(tx_hash="0x2"), name="t.csv.gz")
    found = chunks(path)
    assert refusals(found) == [(1, "row_too_long")]
    assert long.encode().startswith(next(c for c in found if c.rejected).rejected[0].raw)
    assert [record["origin"]["row"] for record in records(found)] == [0, 2]


def test_a_gzip_bomb_of_one_line_costs_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(HEADER.encode() + b"\n")
        for _ in range(100):
            stream.write(b"0" * (1 << 20))
        stream.write(b"\n" + row().encode() + b"\n")
    monkeypatch.setattr(readers, "MAX_ROW_BYTES", 4 << 20)
    tracemalloc.start()
    found = chunks(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refusals(found) == [(0, "row_too_long")]
    assert len(records(found)) == 1
    assert peak < 64 << 20


def test_gzip_cut_short_delivers_the_rows_before_and_then_says_where(tmp_path: Path) -> None:
    path = file_of(tmp_path, *[row(tx_hash=f"0x{i:064x}") for i in range(2000)], name="t.csv.gz")
    path.write_bytes(path.read_bytes()[:-3000])
    delivered = []
    with pytest.raises(SourceCutShort, match="gzip data ends before its end mark") as caught:
        for chunk in read(path, ETHEREUM, ingest_id="i", catalog=CATALOG):
            delivered.append(chunk)
    rows = [record["origin"]["row"] for record in records(delivered)]
    assert 0 < len(rows) < 2000
    assert rows == list(range(caught.value.row))
    assert refusals(delivered) == []


def test_damaged_gzip_is_a_typed_error(tmp_path: Path) -> None:
    noise = random.Random(1)
    rows = [row(tx_hash=noise.randbytes(32).hex()) for _ in range(12_000)]
    path = file_of(tmp_path, *rows, name="t.csv.gz")
    content = bytearray(path.read_bytes())
    content[-9] ^= 0xFF  # in the last bytes before the checksum
    path.write_bytes(bytes(content))
    with pytest.raises(SourceCutShort, match="damaged"):
        chunks(path)


def test_a_missing_file_a_folder_and_an_empty_file_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    for source in (tmp_path / "none.csv", tmp_path, tmp_path / "empty.csv", tmp_path / "none.parquet"):
        with pytest.raises(UnreadableSource, match=r"empty|cannot be read|no readable"):
            chunks(source)


def test_a_header_alone_gives_no_chunk(tmp_path: Path) -> None:
    assert chunks(file_of(tmp_path)) == []


def test_wrong_columns_name_what_is_missing_and_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("timestamp,amount\n1,2\n")
    with pytest.raises(WrongColumns) as caught:
        chunks(tmp_path / "t.csv")
    assert "value_eth" in caught.value.missing
    assert caught.value.found == ("timestamp", "amount")


def test_chunks_and_ranges_add_up_to_the_whole(tmp_path: Path) -> None:
    path = file_of(tmp_path, *[row(tx_hash=f"0x{i}", value_eth="x" if i % 10 == 3 else "1") for i in range(100)])
    whole = chunks(path)
    parts = chunks(path, chunk_rows=7, last_row=43) + chunks(path, chunk_rows=9, first_row=43)
    assert records(parts) == records(whole)
    assert refusals(parts) == refusals(whole) == [(i, "invalid_amount") for i in range(3, 100, 10)]
    assert sum(chunk.rows_read for chunk in parts) == 100
    assert whole[-1].progress.rows_read == whole[-1].progress.rows_estimate == 100


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_endless_stream_yields_before_it_ends(form: str) -> None:
    reading, writing = os.pipe()
    names = HEADER.split(",")
    first = row(tx_hash="0x1")
    lines = [HEADER, first] if form == "csv" else [json.dumps(dict(zip(names, first.split(","), strict=True)))]
    got: list[Chunk] = []
    arrived = threading.Event()

    def consume() -> None:
        with os.fdopen(reading, "rb") as stream:
            for chunk in read(stream, ETHEREUM, ingest_id="i", catalog=CATALOG):
                got.append(chunk)
                arrived.set()

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    os.write(writing, ("\n".join(lines) + "\n").encode())
    assert arrived.wait(60), "no chunk although the stream holds a whole row"
    os.close(writing)
    thread.join(10)
    assert [record["tx_id"] for record in records(got)] == ["ethereum:0x1:0"]
    assert got[0].progress.rows_estimate is None


PAYMENT = {
    "transaction_id": "t1", "user_id": "alice", "amount": 12.50, "timestamp": "2024-03-01T10:00:00",
    "merchant_category": "food", "location": "Köln", "payment_method": "card", "is_fraud": True,
}  # fmt: skip


def payments_in(tmp_path: Path, *lines: bytes) -> Path:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


def test_a_payment_hides_its_customer_and_its_truth(tmp_path: Path) -> None:
    path = payments_in(tmp_path, json.dumps(PAYMENT).encode())
    known_at = datetime(2024, 4, 1, tzinfo=UTC)
    mapping = transaction_mapping("payment_json")
    [chunk] = chunks(path, mapping=mapping, key=KEY, labels_known_at=known_at)
    [record] = records([chunk])
    assert record["source_wallet_id"].startswith("customer:")
    assert b"alice" not in chunk.values[0]
    assert b"fraud" not in chunk.values[0]
    assert record["occurred_at"] == datetime(2024, 3, 1, 10, tzinfo=UTC)
    assert record["payment"]["location"] == "Köln"
    [label] = chunk.labels
    assert (label.tx_id, label.label, label.known_at) == ("customer:t1:0", "illicit", known_at)
    [other] = chunks(path, mapping=mapping, key=b"another key of 16")
    assert other.keys != chunk.keys
    assert other.labels == []


def test_pseudonyms_without_a_key_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="secret key"):
        chunks(payments_in(tmp_path, b"{}"), mapping=transaction_mapping("payment_json"))


def test_json_lines_that_are_none_are_refused_alone(tmp_path: Path) -> None:
    good = json.dumps(PAYMENT).encode()
    bad = [b"{", b"[1]", b'{"amount": "\\ud800"}', b"\xff", b"[" * 100_000, b"null"]
    found = chunks(payments_in(tmp_path, good, *bad, good), mapping=transaction_mapping("payment_json"), key=KEY)
    assert refusals(found) == [(i, "malformed_row") for i in range(1, 7)]
    assert [refused.raw for refused in found[0].rejected] == bad


def test_json_numbers_stay_exact(tmp_path: Path) -> None:
    line = json.dumps(PAYMENT).replace("12.5", "0.100000000000000005").encode()
    found = chunks(payments_in(tmp_path, line), mapping=transaction_mapping("payment_json"), key=KEY)
    assert records(found)[0]["amount"] == Decimal("0.100000000000000005")


def test_one_json_array_says_how_to_make_lines_of_it(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("[{}]")
    with pytest.raises(UnreadableSource, match="jq -c"):
        chunks(path, mapping=transaction_mapping("payment_json"), key=KEY)


def test_parquet_keeps_types_and_refuses_with_the_row_as_json(tmp_path: Path) -> None:
    table = pa.table(
        {
            "timestamp": [1438920403, 1438920404], "block_number": [1, None], "tx_hash": ["0x1", "0x2"],
            "from_address": ["0xa", "0xb"], "to_address": [None, "0xc"], "value_eth": [Decimal("1.5"), Decimal("-2.0")],
            "is_error": [0, 1],
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    found = chunks(tmp_path / "t.parquet")
    assert records(found)[0]["amount"] == Decimal("1.5")
    assert refusals(found) == [(1, "invalid_amount")]
    assert json.loads(found[0].rejected[0].raw)["tx_hash"] == "0x2"


def test_kaggle_cards_get_ids_from_file_and_row_and_no_wallets(tmp_path: Path) -> None:
    header = ",".join(["Time", *[f"V{i}" for i in range(1, 29)], "Amount", "Class"])
    line = ",".join(["60", *["-1.5e-05"] * 28, "149.62", "1"])
    (tmp_path / "creditcard.csv").write_text(f"{header}\n{line}\n{line.replace('-1.5e-05', 'nan', 1)}\n")
    mapping = transaction_mapping("kaggle_card")
    [chunk] = chunks(tmp_path / "creditcard.csv", mapping=mapping)
    [record] = records([chunk])
    assert record["card_features"]["v28"] == -1.5e-05
    assert record["source_wallet_id"] is None
    assert chunk.keys == [record["tx_id"].encode()]
    assert record["tx_id"].endswith("-0:0")
    assert record["occurred_at"] == datetime(2013, 9, 1, 0, 1, tzinfo=UTC)
    assert refusals([chunk]) == [(1, "invalid_card_features")]
    with pytest.raises(MappingError, match="cannot read a stream"):
        chunks(io.BufferedReader(io.BytesIO(b"")), mapping=mapping)


def test_amlworld_tells_its_two_account_columns_apart(tmp_path: Path) -> None:
    header = (
        "Timestamp,From Bank,Account,To Bank,Account,Amount Received,Receiving Currency,Amount Paid,"
        "Payment Currency,Payment Format,Is Laundering"
    )
    rows = ["2022/09/01 00:20,010,8000EBD30,011,8000EBD31,3697.34,US Dollar,3697.34,US Dollar,Reinvestment,0",
            "2022/09/01 00:21,010,8000EBD30,012,8000EBD32,90.10,Euro,100.00,US Dollar,Wire,1"]  # fmt: skip
    (tmp_path / "HI-Small_Trans.csv").write_text("\n".join([header, *rows]))
    found = records(chunks(tmp_path / "HI-Small_Trans.csv", mapping=transaction_mapping("amlworld")))
    assert [r["target_wallet_id"] for r in found] == ["amlworld:011-8000EBD31", "amlworld:012-8000EBD32"]
    assert [(r["counter_amount"], r["counter_asset"]) for r in found] == [(None, None), (Decimal("90.1"), "Euro")]
    assert found[0]["occurred_at"] == datetime(2022, 9, 1, 0, 20, tzinfo=UTC)


def test_reading_in_time_order_sorts_and_keeps_the_rows_of_the_file(tmp_path: Path) -> None:
    times = ["30", "10", "20", "10", "-1"]
    path = file_of(tmp_path, *[row(tx_hash=f"0x{i}", timestamp=time) for i, time in enumerate(times)])
    found = list(read_in_time_order(path, ETHEREUM, ingest_id="i", catalog=CATALOG, chunk_rows=3))
    assert [record["origin"]["row"] for record in records(found)] == [1, 3, 2, 0]
    assert refusals(found) == [(4, "invalid_occurred_at")]
    assert sum(chunk.rows_read for chunk in found) == 5
    late = list(read_in_time_order(path, ETHEREUM, ingest_id="i", catalog=CATALOG, first_row=2))
    assert [record["origin"]["row"] for record in records(late)] == [2, 0]


def test_a_dry_run_shows_rows_and_counts_refusals(tmp_path: Path) -> None:
    path = file_of(tmp_path, row(), row(value_eth="x"), row(value_eth="y"), row(timestamp="z"))
    found = dry_run(path, ETHEREUM, catalog=CATALOG, rows=1)
    assert [shown["tx_id"] for shown in found.accepted] == ["ethereum:0xaef8:0"]
    assert found.refusals == {"invalid_amount": 2, "invalid_occurred_at": 1}
    assert found.rows_read == 4


def test_the_zone_of_a_mapping_is_applied_to_times_without_one(tmp_path: Path) -> None:
    mapping = parse_mapping(
        """
        name: bank
        mapping_version: 1
        describes: transactions
        network: bank
        transaction_id: {column: id}
        occurred_at: {column: at, format: iso, zone: Europe/Berlin}
        amount: {column: cents, unit: cent}
        asset: {constant: EUR}
        """,
        "test",
    )
    times = ["2024-07-01 12:00", "2024-07-01T12:00:00+00:00", "2024-03-31 02:30"]
    (tmp_path / "b.csv").write_text("id,at,cents\n" + "\n".join(f"{i},{at},250" for i, at in enumerate(times)))
    found = chunks(tmp_path / "b.csv", mapping=mapping)
    assert [r["occurred_at"].hour for r in records(found)] == [10, 12]
    assert records(found)[0]["amount"] == Decimal("2.5")
    assert refusals(found) == [(2, "invalid_occurred_at")]  # the clock went from 02:00 to 03:00


@pytest.mark.skipif(not REAL.exists(), reason="the labelled Ethereum file is not here")
def test_the_ethereum_file_is_taken_whole_and_exact() -> None:
    found = chunks(REAL)
    assert refusals(found) == []
    total = sum(chunk.rows_read for chunk in found)
    assert total == 221_208
    table = pa.concat_tables([chunk.table for chunk in found])
    assert table.column("target_wallet_id").null_count == 27
    assert table.column("status").to_pylist().count("failed") == 1_397
    with gzip.open(REAL, "rt") as stream:
        expected = [Decimal(line["value_eth"]) for line in csv.DictReader(stream)]
    assert table.column("amount").to_pylist() == expected
