"""The rules in columns give the same verdicts as the domain, field by field."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidValue
from domain.events import Origin, Payment, TransactionKind, TransactionRecorded, TransactionStatus
from domain.values import EPOCH, EXACT
from schema_registry.transaction_rules import broken_rules
from tests.unit.domain.facts import transaction
from tests.unit.schema_registry.generated import COLUMNS, RECORDS

ARRIVED_MS = 1_700_000_000_000
ARRIVED = EPOCH + timedelta(milliseconds=ARRIVED_MS)

awkward = st.sampled_from(
    [
        "",
        "n:",
        "n:a",
        "m:a",
        "n",
        "n:\n",
        "n:\x85",
        "n:\u2028",
        "n:\u2029",
        "n:" + "é" * 254,
        "n:" + "é" * 255,
        "ünï:1",
        "n:\x7f",
        "n:'); DROP",
        "a" * 257,
        "n:🚀",
        "nn:a",
    ]
)
networks = st.sampled_from(["n", "N", "", "n" * 33, "n\n", "m", "é", "n-1"])
numbers = st.integers(-(10**38) + 1, 10**38 - 1)
amounts = (st.sampled_from([0, -1, 1, 10**38 - 1]) | numbers).map(lambda n: _decimal(n))
times = st.sampled_from(
    [
        EPOCH,
        EPOCH - timedelta(microseconds=1),
        ARRIVED + timedelta(days=1),
        ARRIVED + timedelta(days=1, microseconds=1),
        ARRIVED,
    ]
)
long_texts = st.none() | st.sampled_from(["", "x" * 1024, "é" * 1025, "\x00ok"])


def _decimal(number: int) -> Any:
    from decimal import Decimal

    return Decimal(number).scaleb(-18, EXACT)


def broken_in_a_few_places(draw: st.DrawFn) -> TransactionRecorded:
    """A valid transaction with up to three fields drawn anew, so that rules past the first are reached too."""
    fields: dict[str, st.SearchStrategy[Any]] = {
        "network": networks,
        "tx_id": awkward,
        "kind": st.sampled_from(TransactionKind),
        "status": st.sampled_from(TransactionStatus),
        "source_wallet_id": st.none() | awkward,
        "target_wallet_id": st.none() | awkward,
        "amount": amounts,
        "asset": awkward,
        "counter_amount": st.none() | amounts,
        "counter_asset": st.none() | awkward,
        "fee": st.none() | amounts,
        "fee_asset": st.none() | awkward,
        "occurred_at": times,
        "block": st.none() | st.integers(-2, 2),
        "payment": st.none() | st.builds(Payment, long_texts, long_texts, long_texts, long_texts, long_texts),
        "personal": st.none() | st.binary(max_size=1),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(fields)), max_size=3))
    valid = {
        "network": "n",
        "tx_id": "n:a",
        "source_wallet_id": "n:a",
        "target_wallet_id": "n:b",
        "occurred_at": ARRIVED,
        "asset": "A",
    }
    return transaction(**valid | {name: draw(fields[name]) for name in sorted(chosen)}, origin=Origin("s", "m", "i", 0))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.composite(broken_in_a_few_places)(), min_size=1, max_size=5), st.booleans())
def test_the_first_broken_rule_of_each_row_is_the_domains(rows: list[TransactionRecorded], knows_arrival: bool) -> None:
    table = COLUMNS.decode([RECORDS.encode_event(row) for row in rows]).tables["TransactionRecorded"].table
    found = broken_rules(table, np.full(len(rows), ARRIVED_MS, np.int64) if knows_arrival else None)
    expected = []
    for index, row in enumerate(rows):
        try:
            row.validate(ARRIVED if knows_arrival else None)
        except InvalidValue as error:
            expected.append((index, error.field))
    assert [(rule.index, rule.field) for rule in found] == expected
    assert all(rule.message.startswith(f"{rule.field}: expected") for rule in found)


def test_no_rows_break_no_rule() -> None:
    table = COLUMNS.decode([RECORDS.encode_event(transaction())]).tables["TransactionRecorded"].table
    assert broken_rules(table.slice(0, 0)) == []
    assert broken_rules(table) == []
