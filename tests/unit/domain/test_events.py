"""A transaction's own rules: each broken one names its field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.errors import InvalidValue
from domain.events import Payment, TransactionKind, TransactionStatus
from tests.unit.domain.facts import AT, transaction


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target_wallet_id": None},
        {"source_wallet_id": None, "target_wallet_id": None},
        {"source_wallet_id": "ethereum:0xb"},
        {"status": TransactionStatus.FAILED, "amount": Decimal(0)},
        {"counter_amount": Decimal(3), "counter_asset": "DAI", "fee": Decimal("1E-18"), "fee_asset": "GAS"},
        {"payment": Payment("grocery", "<b>here</b>", "NL", "card", "d1"), "card_features": (0.5,) * 28},
        {"block": 0},
    ],
    ids=["plain", "no-receiver", "no-wallets", "to-itself", "reverted", "trade", "payment", "block-0"],
)
def test_what_really_happens_is_valid(changes: dict[str, Any]) -> None:
    transaction(**changes).validate(AT)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"network": "Ethereum"}, "network"),
        ({"tx_id": "card:1:0"}, "tx_id"),
        ({"tx_id": "ethereum:\x1b[2J"}, "tx_id"),
        ({"kind": TransactionKind.UNKNOWN}, "kind"),
        ({"status": TransactionStatus.UNKNOWN}, "status"),
        ({"source_wallet_id": "card:9"}, "source_wallet_id"),
        ({"target_wallet_id": "ethereum:"}, "target_wallet_id"),
        ({"amount": Decimal("-1")}, "amount"),
        ({"amount": Decimal("NaN")}, "amount"),
        ({"amount": Decimal("1" * 40)}, "amount"),
        ({"asset": ""}, "asset"),
        ({"counter_amount": Decimal(1)}, "counter_asset"),
        ({"counter_asset": "DAI"}, "counter_asset"),
        ({"counter_amount": Decimal(-1), "counter_asset": "DAI"}, "counter_amount"),
        ({"fee": Decimal(1)}, "fee_asset"),
        ({"fee": Decimal(1), "fee_asset": "\n"}, "fee_asset"),
        ({"occurred_at": datetime(1969, 1, 1, tzinfo=UTC)}, "occurred_at"),
        ({"occurred_at": AT + timedelta(days=2)}, "occurred_at"),
        ({"payment": Payment(location="x" * 1025)}, "payment.location"),
        ({"block": -1}, "block"),
        ({"personal": b"name"}, "personal"),
    ],
)
def test_a_broken_rule_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        transaction(**changes).validate(AT)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: expected")


def test_an_old_time_is_no_mistake_whenever_it_arrives() -> None:
    transaction(occurred_at=datetime(2015, 8, 7, tzinfo=UTC)).validate(AT)
    transaction(occurred_at=AT + timedelta(days=400)).validate()
