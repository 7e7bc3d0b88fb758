"""JSON becomes a transaction, digit by digit, or is refused with a reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.events import Origin, TransactionKind, TransactionStatus
from infra.lambdas.json_fields import Refused, object_of
from infra.lambdas.transaction_json import transaction_of, transaction_to_json
from infra.simulator.generator import SimulatorOptions, simulate

ORIGIN = Origin("kinesis:s", "m", "i", 1)
ARRIVED = datetime(2026, 11, 28, 12, tzinfo=UTC)
WHOLE: dict[str, Any] = {
    "version": 1, "tx_id": "bank:1:0", "network": "bank", "kind": "transfer", "source_wallet_id": "bank:a", "target_wallet_id": "bank:b",
    "amount": "12.50", "asset": "EUR", "occurred_at": "2026-11-28T11:00:00Z",
}  # fmt: skip


VALUES = st.none() | st.booleans() | st.integers() | st.text("aZ0:-.\x1b\u2028é", max_size=40) | st.lists(st.integers())


def read(value: Any) -> Any:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return transaction_of(object_of(data), ORIGIN, ARRIVED)


def refusal(value: Any) -> str:
    with pytest.raises(Refused) as found:
        read(value)
    return found.value.reason


def test_a_whole_record_is_read() -> None:
    found = read(
        {**WHOLE, "payment": {"country": "AT"}, "card_features": [0.5] * 28, "block": 7, "counter_amount": 3, "counter_asset": "X"}
    )
    assert (found.kind, found.status, found.amount) == (TransactionKind.TRANSFER, TransactionStatus.SETTLED, Decimal("12.50"))
    assert found.payment.country == "AT" and found.payment.location is None
    assert found.card_features == (0.5,) * 28 and found.block == 7
    assert found.occurred_at == datetime(2026, 11, 28, 11, tzinfo=UTC)


def test_a_json_number_keeps_every_digit() -> None:
    text = json.dumps(WHOLE).replace('"12.50"', "12345678901234567890.123456789012345678").encode()
    assert read(text).amount == Decimal("12345678901234567890.123456789012345678")


def test_a_feature_that_no_float_holds_is_refused() -> None:
    text = json.dumps({**WHOLE, "card_features": [0.5] * 28}).replace("0.5", "1e400", 1).encode()
    assert refusal(text) == "invalid_card_features"


def test_milliseconds_are_a_time_too() -> None:
    assert read({**WHOLE, "occurred_at": 1_795_860_000_000}).occurred_at == datetime(2026, 11, 28, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not_json"),
        (b"\x00\xff\xfe", "not_json"),
        (b"{", "not_json"),
        (b"[1]", "not_json"),
        (b"null", "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"version": 1, "version": 1}', "not_json"),
        (b'{"version": NaN}', "not_json"),
        (b'{"version": ' + b"9" * 5000 + b"}", "not_json"),
        (b'{"version": 1, "tx_id": "\\ud800"}', "not_json"),
        (b'{"version": 1e1000000000000000000}', "not_json"),
        (b'{"version": 1, "x": 1e-9999999999999999999}', "not_json"),
        (b'{"version": 1, "card_features": [' + b"7" * 400 + b"]}", "not_json"),
        (b" " * (256 << 10) + b"{}", "too_large"),
        (b"{}", "unknown_version"),
        (b'{"version": 2}', "unknown_version"),
        (b'{"version": true}', "unknown_version"),
        (b'{"version": 1, "extra": 1}', "unknown_field"),
        (b'{"version": 1}', "missing_field"),
    ],
)
def test_what_is_no_record_is_refused(data: bytes, reason: str) -> None:
    assert refusal(data) == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amount": "-1"}, "invalid_amount"),
        ({"amount": "NaN"}, "invalid_amount"),
        ({"amount": True}, "invalid_amount"),
        ({"amount": "1" * 61}, "invalid_amount"),
        ({"amount": "0.1234567890123456789"}, "invalid_amount"),
        ({"amount": None}, "missing_field"),
        ({"kind": "theft"}, "invalid_kind"),
        ({"kind": "unknown"}, "invalid_kind"),
        ({"status": "lost"}, "invalid_status"),
        ({"tx_id": "other:1"}, "invalid_tx_id"),
        ({"tx_id": 7}, "invalid_tx_id"),
        ({"source_wallet_id": "bank:\x1b[31m"}, "invalid_source_wallet_id"),
        ({"occurred_at": "2026-11-28T11:00:00"}, "invalid_occurred_at"),
        ({"occurred_at": "2026-12-28T11:00:00Z"}, "invalid_occurred_at"),
        ({"occurred_at": 10**30}, "invalid_occurred_at"),
        ({"block": -1}, "invalid_block"),
        ({"block": 1 << 70}, "invalid_block"),
        ({"counter_amount": "1"}, "invalid_counter_asset"),
        ({"payment": {"iban": "AT"}}, "invalid_payment"),
        ({"payment": {"country": 7}}, "invalid_payment.country"),
        ({"payment": {"country": "x" * 2000}}, "invalid_payment.country"),
        ({"card_features": [1, 2]}, "invalid_card_features"),
        ({"card_features": [10**59] * 27 + [True]}, "invalid_card_features"),
        ({"status": ""}, "invalid_status"),
        ({"status": 0}, "invalid_status"),
        ({"status": []}, "invalid_status"),
    ],
)
def test_a_field_that_is_wrong_is_named(change: dict[str, Any], reason: str) -> None:
    assert refusal({**WHOLE, **change}) == reason


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_a_reason_and_never_anything_else(data: bytes) -> None:
    with pytest.raises(Refused):
        read(data)


@given(st.dictionaries(st.sampled_from([*WHOLE, "payment", "block", "fee"]), VALUES))
def test_any_value_in_any_field_is_read_or_refused(change: dict[str, Any]) -> None:
    try:
        read({**WHOLE, **change})
    except Refused as error:
        assert error.reason


def test_what_the_simulator_draws_comes_back_as_it_was() -> None:
    table = simulate(SimulatorOptions(count=500, seed=4)).table
    for row in table.to_pylist():
        found = transaction_of(object_of(transaction_to_json(row)), ORIGIN, row["occurred_at"])
        assert (found.tx_id, found.amount, found.asset, found.kind) == (row["tx_id"], row["amount"], row["asset"], row["kind"])
        assert (found.source_wallet_id, found.target_wallet_id) == (row["source_wallet_id"], row["target_wallet_id"])
        assert found.occurred_at == row["occurred_at"]
        assert getattr(found.payment, "country", None) == row["payment.country"]
