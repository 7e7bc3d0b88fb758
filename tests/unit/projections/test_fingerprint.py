"""Fingerprints: equal for equal sets of rows, different when any cell is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from projections.fingerprint import canonical_lines, fingerprints, first_difference

SCHEMA = pa.schema(
    [
        ("text", pa.string()), ("number", pa.int64()), ("share", pa.float64()), ("amount", pa.decimal128(38, 18)),
        ("at", pa.timestamp("us", tz="UTC")), ("raw", pa.binary()), ("list", pa.list_(pa.string())), ("flag", pa.bool_()),
    ]
)  # fmt: skip
texts = st.text(st.sampled_from('ab" ,=∅\\'), max_size=4)
rows = st.fixed_dictionaries(
    {
        "text": st.none() | texts,
        "number": st.none() | st.integers(-(2**63), 2**63 - 1),
        "share": st.none() | st.floats(allow_nan=False).map(lambda x: x + 0.0),
        "amount": st.none() | st.integers(-(10**37), 10**37).map(lambda n: Decimal(n) / 2**0 * Decimal(1)).map(lambda d: d.scaleb(-18)),
        "at": st.none() | st.integers(0, 10**15).map(lambda n: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=n)),
        "raw": st.none() | st.binary(max_size=4),
        "list": st.none() | st.lists(st.none() | texts, max_size=3),
        "flag": st.none() | st.booleans(),
    }
)


def table(found: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(found, schema=SCHEMA)


def of(*tables: pa.Table) -> Any:
    return fingerprints(("t", one) for one in tables).get("t")


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=8), st.randoms(use_true_random=False), st.integers(0, 8))
def test_neither_order_nor_pieces_matter(found: list[dict[str, Any]], random: Any, cut: int) -> None:
    shuffled = random.sample(found, len(found))
    columns = random.sample(SCHEMA.names, len(SCHEMA.names))
    pieces = [table(part).select(columns) for part in (shuffled[:cut], shuffled[cut:]) if part]
    assert of(*pieces) == of(table(found))


@settings(max_examples=150, deadline=None)
@given(rows, rows, st.sets(st.sampled_from(SCHEMA.names), min_size=1))
def test_any_cell_that_differs_shows(row: dict[str, Any], other: dict[str, Any], names: set[str]) -> None:
    changed = row | {name: other[name] for name in names}
    assume(changed != row)
    assert of(table([row])) != of(table([changed]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "1 b=2", "b": "3"}, {"a": "1", "b": "2 b=3"}),
        ({"a": '1" b="2', "b": "3"}, {"a": "1", "b": '2" b="3'}),
        ({"a": None, "b": ""}, {"a": "∅", "b": ""}),
        ({"a": None, "b": ""}, {"a": "", "b": None}),
    ],
    ids=["space", "quote", "null-sign", "null-and-empty"],
)
def test_text_that_looks_like_another_row_is_not_taken_for_it(one: dict[str, Any], other: dict[str, Any]) -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    assert of(pa.Table.from_pylist([one], schema=schema)) != of(pa.Table.from_pylist([other], schema=schema))


@pytest.mark.parametrize(("one", "other"), [(["a", "b"], ["a,b"]), ([None], []), (["a", None], ["a"]), ([], None)])
def test_lists_differ_by_their_items(one: list[str] | None, other: list[str] | None) -> None:
    kind = pa.list_(pa.string())
    assert of(pa.table({"l": pa.array([one], kind)})) != of(pa.table({"l": pa.array([other], kind)}))


def test_a_row_more_often_is_another_set() -> None:
    once = pa.table({"a": ["x", "y"]})
    assert of(once, pa.table({"a": ["x"]})) != of(once)
    assert of(once, pa.table({"a": ["x"]})) != of(once, pa.table({"a": ["y"]}))


def test_no_rows_are_no_fingerprint_but_an_empty_table_is_counted() -> None:
    assert fingerprints([]) == {}
    assert of(pa.table({"a": pa.array([], pa.string())})).rows == 0


def test_the_first_difference_names_both_sides() -> None:
    wanted = pa.table({"id": ["a", "b"], "n": [1, 2]})
    found = pa.table({"id": ["a", "b"], "n": [1, 3]})
    difference = first_difference("fact", iter([wanted]), iter([found]))
    assert 'id="b" n=2' in str(difference)
    assert 'the store holds id="b" n=3' in str(difference)
    assert str(difference).startswith("fact: the log implies ")


def test_a_double_row_is_named_too() -> None:
    one = pa.table({"id": ["a"]})
    difference = first_difference("fact", iter([one]), iter([one, one]))
    assert (difference.missing_in_store, difference.only_in_store) == (None, 'id="a"')


def test_times_are_microseconds_and_bytes_hexadecimal() -> None:
    moment = datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC)
    line = canonical_lines(pa.table({"b": [b"\x00\xff"], "a": pa.array([moment], pa.timestamp("us", tz="UTC"))}))
    assert line.to_list() == ["a=1000005 b=00ff"]
