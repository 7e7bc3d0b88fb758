"""The curated table read by those whom it is for: pyiceberg, polars and DuckDB see the same rows, exact to the last digit.

DuckDB's own Iceberg and S3 extensions are downloads at run time, so it reads the data files that the current snapshot lists with its
built-in Parquet reader, and pyiceberg's scan over Arrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest

from infra.settings import S3Settings
from projections.curated.upkeep import _key
from schema_registry.record_codec import RecordCodec
from tests.contracts.test_sink import CATALOG, RECORDS, record_of
from tests.integration.projections.curated_table import OwnTable, own_table, write
from tests.unit.domain.facts import transaction

WIDEST = Decimal("99999999999999999999.999999999999999999")
"""The largest amount that the contract holds: 38 digits."""


@pytest.fixture(scope="module")
def own(postgres_dsn: str, s3_settings: S3Settings) -> Iterator[OwnTable]:
    """90 transactions in three commits, then one of the widest amount."""
    wide = RecordCodec(CATALOG).encode_event(transaction(tx_id="ethereum:wide:0", amount=WIDEST))
    with own_table(postgres_dsn, s3_settings) as found:
        sink, at = found.writer(), None
        for partition in range(3):
            at = write(sink, CATALOG, [record for record in RECORDS if record.partition == partition], at)
        write(sink, CATALOG, [replace(record_of(90), value=wide)], at)
        yield found


EXPECTED = (91, sum((Decimal(f"{n}.000000000000000001") for n in range(90)), Decimal(0)), WIDEST)
"""Rows, the sum of all amounts but the widest, and the widest."""


def sums(table: duckdb.DuckDBPyRelation) -> tuple[int, Decimal, Decimal]:
    ((rows, narrow, widest),) = table.aggregate("count(*), sum(amount) FILTER (WHERE tx_id <> 'ethereum:wide:0'), max(amount)").fetchall()
    return rows, narrow, widest


def test_pyiceberg_reads_it_and_prunes_by_day(own: OwnTable) -> None:
    table = own.table()
    amounts = dict(zip(*(table.scan().to_arrow()[name].to_pylist() for name in ("tx_id", "amount")), strict=True))
    assert (len(amounts), sum(v for k, v in amounts.items() if v != WIDEST), amounts["ethereum:wide:0"]) == EXPECTED
    assert list(table.scan(row_filter="occurred_at < '2000-01-01T00:00:00+00:00'").plan_files()) == []
    assert table.scan(row_filter="log_partition = 1 and log_offset >= 20").to_arrow().num_rows == 10


def test_polars_reads_it(own: OwnTable) -> None:
    keys = own.settings.client_config()  # polars reads S3 by itself and wants them again
    keys["aws_region"], keys["aws_allow_http"] = keys.pop("region_name"), "true"
    frame = pl.scan_iceberg(own.table(), storage_options=keys).select("tx_id", "amount", "seq").collect()
    assert isinstance(frame, pl.DataFrame)
    narrow = frame.filter(pl.col("amount") != WIDEST)
    assert (frame.height, narrow["amount"].sum(), frame["amount"].max()) == EXPECTED
    assert sorted(narrow["seq"]) == list(range(90))


def test_duckdb_reads_the_files_that_the_current_snapshot_lists(own: OwnTable, tmp_path: Path) -> None:
    files = []
    for number, task in enumerate(own.table().scan().plan_files()):
        files.append(tmp_path / f"{number}.parquet")
        own.s3.download_file(own.settings.bucket, _key(task.file.file_path, own.settings.bucket), str(files[-1]))
    with duckdb.connect() as connection:
        assert sums(connection.read_parquet([str(file) for file in files])) == EXPECTED


def test_duckdb_reads_the_scan(own: OwnTable) -> None:
    with own.table().scan().to_duckdb("transactions") as connection:
        assert sums(connection.table("transactions")) == EXPECTED
        assert connection.sql("SELECT count(DISTINCT (log_partition, log_offset)) FROM transactions").fetchall() == [(91,)]
