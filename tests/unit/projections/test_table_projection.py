"""What a projection of one's own may declare, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from projections.protocol import EventBatch, Excluded
from projections.table_projection import TableProjection, live_schema
from schema_registry.contracts import WALLET_EVENTS

AMOUNT = pa.decimal128(38, 18)


def projection(*columns: sa.Column[Any], rows: dict[str, Any] | None = None, schema: str | None = None) -> type[TableProjection]:
    """A projection with one table that gives the same rows for every batch."""
    table = sa.Table("t", sa.MetaData(), *columns, schema=schema)

    class Tried(TableProjection):
        name = "tried"
        topics = (WALLET_EVENTS,)
        reads = {}  # noqa: RUF012
        layout = table.metadata

        def rows(self, batch: EventBatch, excluded: Excluded) -> Iterator[tuple[sa.Table, pa.Table]]:
            yield table, batch.tables["Any"] if rows is None else pa.table(rows)

    return Tried


def key() -> sa.Column[str]:
    return sa.Column("k", sa.Text, primary_key=True)


@pytest.mark.parametrize(
    ("columns", "schema", "said"),
    [
        pytest.param((sa.Column("k", sa.Text),), None, "with a primary key", id="no key"),
        pytest.param((key(),), "elsewhere", "without a schema", id="a schema"),
        pytest.param((key(), sa.Column("x", sa.Double)), None, "whole or exact numbers", id="floats that add up"),
        pytest.param((key(), sa.Column("x", sa.Text)), None, "whole or exact numbers", id="text that adds up"),
        pytest.param((key(), sa.Column("x", sa.JSON)), None, "expected text, numbers", id="a type that is not compared"),
    ],
)
def test_a_layout_that_could_not_be_proven_is_refused(columns: tuple[sa.Column[Any], ...], schema: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        projection(*columns, schema=schema)("")


def test_rows_with_other_columns_are_named() -> None:
    tried = projection(key(), sa.Column("n", sa.BigInteger), rows={"k": ["a"], "m": [1]})("")
    with pytest.raises(ValueError, match="expected the columns k, n for t, found k, m"):
        list(tried.expected(iter([EventBatch({})]), Excluded()))


def test_readers_find_it_under_its_name() -> None:
    assert live_schema("net-flow") == "net_flow"


amounts = st.integers(-(10**37), 10**37).map(lambda value: Decimal(value).scaleb(-18, Context(prec=38)))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-(2**31), 2**31), amounts), min_size=1), st.integers(1, 5))
def test_sums_are_exact_and_do_not_depend_on_the_cut(rows: list[tuple[str, int, Decimal]], size: int) -> None:
    made = projection(key(), sa.Column("n", sa.BigInteger), sa.Column("x", sa.Numeric))
    batches = []
    for i in range(0, len(rows), size):
        keys, numbers, values = zip(*rows[i : i + size], strict=True)
        batches.append(EventBatch({"Any": pa.table({"k": keys, "n": pa.array(numbers, pa.int64()), "x": pa.array(values, AMOUNT)})}))
    found = {row["k"]: row for _, table in made("").expected(iter(batches), Excluded()) for row in table.to_pylist()}
    assert set(found) == {k for k, _, _ in rows}
    for k, row in found.items():
        assert row["n"] == sum(n for of, n, _ in rows if of == k)
        assert Fraction(row["x"]) == sum(Fraction(value) for of, _, value in rows if of == k)
