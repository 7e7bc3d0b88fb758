"""The screen lets no broken row pass (the rules' own test proves that row by row) and sends few plain ones to the rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.record_codec import RecordCodec
from schema_registry.rule_screen import suspects
from schema_registry.transaction_rules import FIELDS
from tests.unit.domain.facts import transaction

NO_NETWORKS = pa.array([], pa.string())


def table_of(*changes: dict[str, Any]) -> pa.Table:
    catalog = SchemaCatalog.numbered()
    values = [RecordCodec(catalog).encode_event(replace(transaction(), **change)) for change in changes]
    return ColumnCodec(catalog, {"TransactionRecorded": FIELDS}).decode(values).tables["TransactionRecorded"].table.select(list(FIELDS))


def test_plain_rows_are_not_looked_at_again() -> None:
    assert suspects(table_of({}, {}, {}), NO_NETWORKS, None).tolist() == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_is_found_by_its_own_index(place: int) -> None:
    changes: list[dict[str, Any]] = [{}, {}, {}]
    changes[place] = {"asset": "a\nb"}
    assert suspects(table_of(*changes), NO_NETWORKS, None).tolist() == [place]


def test_a_slice_of_a_table_is_screened_as_itself() -> None:
    table = table_of({"asset": ""}, {"block": None}, {"asset": ""}, {"block": 7})
    assert suspects(table.slice(1, 3), NO_NETWORKS, None).tolist() == [1]


def test_letters_beyond_ascii_are_left_to_the_rules() -> None:
    assert suspects(table_of({"asset": "münze"}), NO_NETWORKS, None).tolist() == [0]


def test_a_time_after_the_last_acceptable_one_is_found() -> None:
    table = table_of({}, {})
    at = table["occurred_at"].cast(pa.int64()).to_numpy()
    assert suspects(table, NO_NETWORKS, at - np.array([0, 1])).tolist() == [1]


def test_a_network_that_is_none_is_found() -> None:
    table = table_of({})
    assert suspects(table, table["network"].combine_chunks(), None).tolist() == [0]
