"""The layout's text: one metadata, two dialects."""

from __future__ import annotations

import importlib
import re

import pytest

from projections.warehouse import WarehouseProjection, ddl
from projections.warehouse.ddl import create_view
from projections.warehouse.facts import FACTS
from projections.warehouse.tables import warehouse_metadata

NAMES = (
    *warehouse_metadata().tables, "mv_hourly_volume", "mv_wallet_behaviour", "v_transaction", "v_fraud_features", "fraud_detection",
    "v_sales", "v_high_value", "v_storefront_session", "v_funnel",
)  # fmt: skip


def statements(dialect: str) -> list[str]:
    return [one.strip() for one in ddl(dialect).split(";") if one.strip()]  # type: ignore[arg-type]


@pytest.mark.parametrize("dialect", ["redshift", "postgresql"])
def test_every_table_and_view_is_created_once(dialect: str) -> None:
    created = re.findall(r"^CREATE (?:TABLE|MATERIALIZED VIEW|VIEW) (\w+)", ddl(dialect), re.MULTILINE)  # type: ignore[arg-type]
    assert sorted(created) == sorted(NAMES)


def test_every_redshift_table_says_how_it_is_spread_and_encoded() -> None:
    for table in (one for one in statements("redshift") if one.startswith("CREATE TABLE")):
        assert "DISTSTYLE" in table
        columns = [line for line in table.splitlines()[1:] if line.startswith("\t") and "PRIMARY KEY" not in line]
        assert all(" ENCODE " in column for column in columns), table
    assert "DISTSTYLE KEY DISTKEY (source_wallet_id) SORTKEY (occurred_at)" in ddl("redshift")


def test_redshift_gets_none_of_what_it_does_not_know() -> None:
    text = ddl("redshift")
    for word in ("TEXT", "BYTEA", "[]", "CREATE INDEX", "CREATE UNIQUE INDEX", "USING brin", "SERIAL", "LATERAL"):
        assert word not in text
    assert "SUPER" in text and "VARBYTE(65535)" in text


def test_postgresql_gets_none_of_redshift() -> None:
    for word in ("DISTKEY", "SORTKEY", "ENCODE", "SUPER", "VARBYTE", "AUTO REFRESH"):
        assert word not in ddl("postgresql")


@pytest.mark.parametrize("dialect", ["redshift", "postgresql"])
def test_amounts_are_exact_in_both(dialect: str) -> None:
    text = ddl(dialect)  # type: ignore[arg-type]
    assert text.count("NUMERIC(38, 18)") == 5
    assert "NUMERIC(38, 18) NOT NULL" in text or "NUMERIC(38, 18) ENCODE az64 NOT NULL" in text


@pytest.mark.parametrize("dialect", ["redshift", "postgres"])
def test_a_parser_of_the_dialect_reads_every_statement(dialect: str) -> None:
    try:
        sqlglot = importlib.import_module("sqlglot")
    except ImportError:
        pytest.skip("sqlglot is not installed: the text is tested without it")
    for statement in statements("redshift" if dialect == "redshift" else "postgresql"):
        parsed = sqlglot.parse_one(statement, read=dialect)
        assert type(parsed).__name__ == "Create", statement


@pytest.mark.parametrize(("dialect", "first"), [("redshift", 0), ("postgresql", 1)])
def test_card_features_are_read_from_the_first_place_of_a_list(dialect: str, first: int) -> None:
    text = create_view("fraud_detection", dialect)  # type: ignore[arg-type]
    places = re.findall(r"card_features\[(\d+)\] AS DOUBLE PRECISION\) AS v(\d+)", text)
    assert places == [(str(first + n), str(n + 1)) for n in range(28)]


def test_another_dialect_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the dialect redshift or postgresql, found 'oracle'"):
        ddl("oracle")  # type: ignore[arg-type]


def test_every_column_of_a_fact_table_has_a_source() -> None:
    known = {"seq", "ingested_at", "log_topic", "log_partition", "log_offset", "occurred_hour", "card_features"}
    for name, table in warehouse_metadata().tables.items():
        if name.startswith("fact_"):
            sourced = {column for fact in FACTS if fact.table == name for column in (*fact.fields, *fact.constants)}
            assert set(table.columns.keys()) <= sourced | known


def test_the_fields_read_exist_in_the_contracts() -> None:
    from schema_registry.contracts import contracts, fields

    for event_type, read in WarehouseProjection.reads.items():
        assert set(read) <= {field.path for field in fields(contracts()[event_type].latest)}
