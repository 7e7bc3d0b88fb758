"""Transactions as JSON, one object a record: what producers that speak no Avro send. Version 1 is described in docs/kinesis.md.

Numbers keep every digit (a JSON number is read as a decimal, never as a float), a field that is not known is refused rather than
dropped, and a name that stands twice is refused rather than guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from domain.events import Origin, Payment, TransactionKind, TransactionRecorded, TransactionStatus
from infra.lambdas import json_fields as read
from infra.lambdas.json_fields import plain_json

VERSION = 1
MAPPING = f"transaction_json@{VERSION}"
CARD_FEATURES = 28  # V1..V28 of the anonymised card files

_PAYMENT = ("merchant_category", "location", "country", "payment_method", "device_id")
_FIELDS = {
    "version", "tx_id", "network", "kind", "status", "source_wallet_id", "target_wallet_id", "amount", "asset", "counter_amount",
    "counter_asset", "fee", "fee_asset", "occurred_at", "block", "payment", "card_features",
}  # fmt: skip


def transaction_of(value: dict[str, Any], origin: Origin, arrived_at: datetime) -> TransactionRecorded:
    """The transaction in one JSON object as `json_fields.object_of` reads it.

    Args:
        arrived_at: when the stream took it, for the check against the future.

    Raises:
        Refused: it is none; the reason says why.
    """
    read.known(value, VERSION, _FIELDS)
    found = TransactionRecorded(
        tx_id=read.text("tx_id", read.needed(value, "tx_id")),
        network=read.text("network", read.needed(value, "network")),
        kind=read.member(TransactionKind, "kind", read.needed(value, "kind")),
        status=read.member(TransactionStatus, "status", TransactionStatus.SETTLED if value.get("status") is None else value["status"]),
        source_wallet_id=read.optional_text(value, "source_wallet_id"),
        target_wallet_id=read.optional_text(value, "target_wallet_id"),
        amount=read.decimal("amount", read.needed(value, "amount")),
        asset=read.text("asset", read.needed(value, "asset")),
        counter_amount=read.optional_decimal(value, "counter_amount"),
        counter_asset=read.optional_text(value, "counter_asset"),
        fee=read.optional_decimal(value, "fee"),
        fee_asset=read.optional_text(value, "fee_asset"),
        occurred_at=read.time_of(read.needed(value, "occurred_at")),
        block=_block(value.get("block")),
        payment=_payment(value.get("payment")),
        card_features=_card_features(value.get("card_features")),
        personal=None,
        origin=origin,
    )
    read.validated(found, arrived_at)
    return found


def transaction_to_json(transaction: Mapping[str, Any]) -> bytes:
    """The JSON of a transaction given by the fields of its record, nested or with dotted names; nulls are left out."""
    value: dict[str, Any] = {"version": VERSION}
    payment: dict[str, Any] = {}
    for name, content in transaction.items():
        if content is None or name.startswith(("origin", "personal", "_")):
            continue
        group, _, member = name.partition(".")
        if member:
            payment[member] = plain_json(content)
        else:
            value[group] = plain_json(content)
    if payment:
        value["payment"] = payment
    return json.dumps(value, separators=(",", ":")).encode()


def _block(found: Any) -> int | None:
    if found is None or (type(found) is int and found < 1 << 63):
        return found
    raise read.Refused("invalid_block", "block", f"expected a whole number, found {read.shown(found)}")


def _payment(found: Any) -> Payment | None:
    if found is None:
        return None
    if not isinstance(found, dict) or found.keys() - set(_PAYMENT):
        raise read.Refused("invalid_payment", "payment", f"expected an object of {', '.join(_PAYMENT)}, found {read.shown(found)}")
    for name, content in found.items():
        if content is not None and not isinstance(content, str):
            raise read.Refused(f"invalid_payment.{name}", f"payment.{name}", f"expected text, found {read.shown(content)}")
    return Payment(**found)


def _card_features(found: Any) -> tuple[float, ...] | None:
    if found is None:
        return None
    is_list = isinstance(found, list) and len(found) == CARD_FEATURES
    if not is_list or any(isinstance(x, bool) or not isinstance(x, int | Decimal) for x in found):
        raise read.Refused("invalid_card_features", "card_features", f"expected {CARD_FEATURES} numbers, found {read.shown(found)}")
    features = tuple(float(x) for x in found)
    if not all(map(math.isfinite, features)):
        raise read.Refused("invalid_card_features", "card_features", "expected numbers that a float can hold")
    return features
