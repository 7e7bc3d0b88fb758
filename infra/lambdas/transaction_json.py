"""Transactions as JSON, one object a record: what producers that speak no Avro send. Version 1 is described in docs/kinesis.md.

Numbers keep every digit (a JSON number is read as a decimal, never as a float), a field that is not known is refused rather than
dropped, and a name that stands twice is refused rather than guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from domain.errors import InvalidValue
from domain.events import Origin, Payment, TransactionKind, TransactionRecorded, TransactionStatus
from domain.values import EPOCH, EXACT

VERSION = 1
MAPPING = f"transaction_json@{VERSION}"
CARD_FEATURES = 28  # V1..V28 of the anonymised card files

_PAYMENT = ("merchant_category", "location", "country", "payment_method", "device_id")
_FIELDS = {
    "version", "tx_id", "network", "kind", "status", "source_wallet_id", "target_wallet_id", "amount", "asset", "counter_amount",
    "counter_asset", "fee", "fee_asset", "occurred_at", "block", "payment", "card_features",
}  # fmt: skip
_MOST_DIGITS = 60  # of a number as written: more cannot fit an amount, and would cost time to refuse
MOST_BYTES = 256 << 10  # of a record: a transaction has a few hundred, and its longest texts together some 10,000


class Refused(InvalidValue):
    """A record that is no transaction; `reason` is the code that quarantine and dead letters carry."""

    def __init__(self, reason: str, field: str, message: str) -> None:
        super().__init__(field, message)
        self.reason = reason


def transaction_from_json(data: bytes, origin: Origin, arrived_at: datetime) -> TransactionRecorded:
    """The transaction in one JSON object.

    Args:
        arrived_at: when the stream took it, for the check against the future.

    Raises:
        Refused: it is none; the reason says why.
    """
    value = _object(data)
    version = value.get("version")
    if type(version) is not int or version != VERSION:
        raise Refused("unknown_version", "version", f"expected {VERSION}, found {_shown(version)}")
    unknown = sorted(value.keys() - _FIELDS)
    if unknown:
        raise Refused("unknown_field", unknown[0][:60], f"expected the fields of version {VERSION}, found {_shown(unknown[0])}")
    found = TransactionRecorded(
        tx_id=_text("tx_id", _needed(value, "tx_id")),
        network=_text("network", _needed(value, "network")),
        kind=_member(TransactionKind, "kind", _needed(value, "kind")),
        status=_member(TransactionStatus, "status", TransactionStatus.SETTLED if value.get("status") is None else value["status"]),
        source_wallet_id=_optional_text(value, "source_wallet_id"),
        target_wallet_id=_optional_text(value, "target_wallet_id"),
        amount=_decimal("amount", _needed(value, "amount")),
        asset=_text("asset", _needed(value, "asset")),
        counter_amount=_optional_decimal(value, "counter_amount"),
        counter_asset=_optional_text(value, "counter_asset"),
        fee=_optional_decimal(value, "fee"),
        fee_asset=_optional_text(value, "fee_asset"),
        occurred_at=_time(_needed(value, "occurred_at")),
        block=_block(value.get("block")),
        payment=_payment(value.get("payment")),
        card_features=_card_features(value.get("card_features")),
        personal=None,
        origin=origin,
    )
    try:
        found.validate(arrived_at)
    except InvalidValue as error:
        raise Refused(f"invalid_{error.field}", error.field, str(error).partition(": ")[2]) from None
    return found


def transaction_to_json(transaction: Mapping[str, Any]) -> bytes:
    """The JSON of a transaction given by the fields of its record, nested or with dotted names; nulls are left out."""
    value: dict[str, Any] = {"version": VERSION}
    payment: dict[str, Any] = {}
    for name, content in transaction.items():
        if content is None or name.startswith(("origin", "personal", "_")):
            continue
        group, _, member = name.partition(".")
        if isinstance(content, Decimal):
            content = format(content.normalize(EXACT), "f")
        elif isinstance(content, datetime):
            content = content.astimezone(UTC).isoformat().replace("+00:00", "Z")
        if member:
            payment[member] = content
        else:
            value[group] = content
    if payment:
        value["payment"] = payment
    return json.dumps(value, separators=(",", ":")).encode()


def _object(data: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name stands twice in one object")
        return found

    def no_number(text: str) -> Any:
        raise ValueError(f"{text} is no number")

    if len(data) > MOST_BYTES:
        raise Refused("too_large", "record", f"expected at most {MOST_BYTES} bytes, found {len(data)}")
    try:
        value = json.loads(
            data.decode("utf-8"), parse_float=_number, parse_int=_whole, parse_constant=no_number, object_pairs_hook=once
        )  # fmt: skip
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False, default=str).encode()  # a lone surrogate, as "\ud800", is no text
    except (ValueError, RecursionError) as error:
        raise Refused("not_json", "record", f"expected one JSON object in UTF-8: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise Refused("not_json", "record", f"expected one JSON object, found {type(value).__name__}")
    return value


def _number(text: str) -> Decimal:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} characters")
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond what decimals have
        raise ValueError(f"{text} is no number") from None


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} characters")
    return int(text)


def _needed(value: Mapping[str, Any], name: str) -> Any:
    found = value.get(name)
    if found is None:
        raise Refused("missing_field", name, "expected a value, found none")
    return found


def _text(name: str, found: Any) -> str:
    if not isinstance(found, str):
        raise Refused(f"invalid_{name}", name, f"expected text, found {_shown(found)}")
    return found


def _optional_text(value: Mapping[str, Any], name: str) -> str | None:
    return None if value.get(name) is None else _text(name, value[name])


def _optional_decimal(value: Mapping[str, Any], name: str) -> Decimal | None:
    return None if value.get(name) is None else _decimal(name, value[name])


def _member(kind: Any, name: str, found: Any) -> Any:
    try:
        return kind(_text(name, found))
    except ValueError as error:
        if isinstance(error, Refused):
            raise
        known = ", ".join(member.value for member in kind if member.value != "unknown")
        raise Refused(f"invalid_{name}", name, f"expected one of {known}, found {_shown(found)}") from None


def _decimal(name: str, found: Any) -> Decimal:
    if isinstance(found, str) and len(found) <= _MOST_DIGITS:
        with suppress(InvalidOperation):
            found = Decimal(found)
    if isinstance(found, bool) or not isinstance(found, int | Decimal):
        raise Refused(f"invalid_{name}", name, f"expected a number, found {_shown(found)}")
    return Decimal(found)


def _time(found: Any) -> datetime:
    try:
        if isinstance(found, str):
            return datetime.fromisoformat(found)
        if isinstance(found, int) and not isinstance(found, bool):
            return EPOCH + timedelta(milliseconds=found)
    except (ValueError, OverflowError):
        pass
    raise Refused("invalid_occurred_at", "occurred_at", f"expected ISO 8601 with a zone, or milliseconds since 1970, found {_shown(found)}")


def _block(found: Any) -> int | None:
    if found is None or (type(found) is int and found < 1 << 63):
        return found
    raise Refused("invalid_block", "block", f"expected a whole number, found {_shown(found)}")


def _payment(found: Any) -> Payment | None:
    if found is None:
        return None
    if not isinstance(found, dict) or found.keys() - set(_PAYMENT):
        raise Refused("invalid_payment", "payment", f"expected an object of {', '.join(_PAYMENT)}, found {_shown(found)}")
    for name, content in found.items():
        if content is not None and not isinstance(content, str):
            raise Refused(f"invalid_payment.{name}", f"payment.{name}", f"expected text, found {_shown(content)}")
    return Payment(**found)


def _card_features(found: Any) -> tuple[float, ...] | None:
    if found is None:
        return None
    is_list = isinstance(found, list) and len(found) == CARD_FEATURES
    if not is_list or any(isinstance(x, bool) or not isinstance(x, int | Decimal) for x in found):
        raise Refused("invalid_card_features", "card_features", f"expected {CARD_FEATURES} numbers, found {_shown(found)}")
    features = tuple(float(x) for x in found)
    if not all(map(math.isfinite, features)):
        raise Refused("invalid_card_features", "card_features", "expected numbers that a float can hold")
    return features


def _shown(found: Any) -> str:
    return repr(found)[:60]
