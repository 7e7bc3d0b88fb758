"""The analysts' queries as text: what each takes, how values get in, and that Redshift would take them too."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files

import pytest

from domain.errors import InvalidValue
from projections.warehouse import queries as package
from projections.warehouse.queries import queries, query_of
from tests.integration.projections.redshift_dialect import refusal

AT = datetime(2026, 3, 1, tzinfo=UTC)


def test_every_file_is_a_query_with_a_question_and_takes_what_it_names() -> None:
    names = {path.name.removesuffix(".sql").replace("_", "-") for path in files(package).iterdir() if path.name.endswith(".sql")}
    assert names == set(queries())
    for query in queries().values():
        assert query.question and query.select.startswith(("SELECT", "WITH")), query.name
        assert set(re.findall(r":([a-z_]+)", query.select)) == set(query.parameters), query.name


@pytest.mark.parametrize("name", sorted(queries()))
def test_redshift_has_all_that_a_query_uses(name: str) -> None:
    statement, _ = query_of(name).statement(False, 10)
    assert refusal(statement) == ""


def test_values_are_bound_by_number_each_cast_to_its_type() -> None:
    statement, names = query_of("structuring").statement(True, 7)
    assert f"CAST(${names.index('hours') + 1} AS integer) * INTERVAL" in statement
    assert statement.count(f"CAST(${names.index('bound') + 1} AS numeric(38, 18))") == 2
    assert statement.endswith("LIMIT 7")


def test_texts_become_values_and_the_rest_has_defaults() -> None:
    bound = query_of("structuring").bind({"bound": "1e4", "asset": "EUR", "at": "2026-02-01"}, lambda: AT)
    assert bound == {
        "bound": Decimal("1e4"), "asset": "EUR", "margin_percent": 10, "hours": 24, "at_least": 3, "at": datetime(2026, 2, 1, tzinfo=UTC),
    }  # fmt: skip
    assert query_of("fan-in").bind({}, lambda: AT)["at"] == AT


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "bound: structuring needs it"),
        ({"bound": "NaN", "asset": "EUR"}, "bound: expected the amount that is avoided, found 'NaN'"),
        ({"bound": "1", "asset": "EUR", "hours": "0"}, "hours: expected how far back: 1 to 100000, found '0'"),
        ({"bound": "1", "asset": "EUR", "at": "soon"}, "at: expected the time"),
        ({"wallet": "x"}, "wallet: structuring has no such parameter; it takes bound, asset"),
    ],
    ids=["missing", "no number", "out of range", "no time", "unknown"],
)
def test_a_wrong_parameter_is_named(given: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(message)):
        query_of("structuring").bind(given, lambda: AT)


def test_an_unknown_query_lists_those_there_are() -> None:
    with pytest.raises(InvalidValue, match="expected one of wallet-history"):
        query_of("everything")
