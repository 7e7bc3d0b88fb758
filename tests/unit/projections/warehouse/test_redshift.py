"""What goes to Redshift, as far as it can be told without one: SQL that it knows, files that its COPY takes, names that a retry finds."""

from __future__ import annotations

import pyarrow as pa
import pytest

from projections.warehouse import redshift_statements as sql
from projections.warehouse.ddl import statements as layout
from projections.warehouse.facts import FACTS, fact_rows
from projections.warehouse.redshift_columns import columns_of, file_rows, staged_columns
from projections.warehouse.redshift_staging import folder_of
from projections.warehouse.tables import warehouse_metadata
from tests.integration.projections.redshift_dialect import refusal
from tests.unit.projections.warehouse.events import Placed, batch_of, transaction

TABLES = sorted({fact.table for fact in FACTS})


def every_statement() -> list[str]:
    return [
        *layout("redshift"), sql.LOAD_CHECKPOINTS, sql.START_CHECKPOINT, sql.ADVANCE_CHECKPOINT, sql.ADD_ASSETS, sql.ADD_HOURS,
        *sql.FOLD_DESCRIPTIONS, sql.FOLD_TRAININGS, sql.add_wallets([("fact_score", "source_wallet_id")]), sql.add_models(["fact_score"]),
        *(sql.create_stage(table) for table in TABLES), *(one for table in TABLES for one in sql.insert_facts(table)),
        *(sql.select_rows(table) for table in warehouse_metadata().tables),
    ]  # fmt: skip


@pytest.mark.parametrize("statement", every_statement(), ids=lambda text: " ".join(text.split()[:4]))
def test_every_statement_is_one_that_redshift_knows(statement: str) -> None:
    assert refusal(statement) == ""


def test_a_folder_is_named_by_its_position_so_that_a_retry_finds_it() -> None:
    before, after = {("a", 0): 5}, {("a", 0): 9, ("b", 1): 2}
    folder = folder_of("warehouse_g1", before, after)
    assert folder.startswith("warehouse_g1/a-0@5-9-")
    assert folder_of("warehouse_g1", before | {("c", 0): 7}, after) == folder  # what does not move names nothing
    assert folder_of("warehouse_g1", before, after | {("b", 1): 3}) != folder


def test_a_file_has_the_columns_of_its_staging_table_in_order_and_no_type_that_copy_does_not_take() -> None:
    batch = batch_of([Placed(transaction(number), 0, number) for number in range(6)])
    ((fact, rows),) = fact_rows(batch)
    found = file_rows(fact.table, rows)
    assert found.column_names == [column.name for column in staged_columns(fact.table)]
    assert not any(pa.types.is_nested(field.type) or getattr(field.type, "tz", None) for field in found.schema)
    assert found["log_offset"].to_pylist() == [0, 1, 2, 3, 4, 5]


def test_card_features_come_back_to_the_bit_with_nan_and_infinity() -> None:
    (column,) = (one for one in columns_of("fact_transaction") if one.name == "card_features")
    given = [[0.1, -0.0, 1e-300, float("inf"), float("nan")], None]
    texts = column.encode(pa.chunked_array([given], pa.list_(pa.float64()))).to_pylist()
    assert repr(column.decode(texts).to_pylist()) == repr(given)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("default", True),
        ("arn:aws:iam::123456789012:role/path/name", True),
        ("arn:aws-cn:iam::123456789012:role/a,arn:aws-cn:iam::123456789012:role/b", True),
        ("arn:aws:iam::123456789012:role/a' CREDENTIALS 'x", False),
        ("", False),
    ],
)
def test_only_roles_are_written_into_copy(text: str, is_one: bool) -> None:
    assert sql.is_role(text) is is_one
