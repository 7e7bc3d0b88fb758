"""Fields of JSON records, read without guessing: every digit of a number is kept, and a name that stands twice is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

from domain.errors import InvalidValue
from domain.values import EPOCH, EXACT

MOST_DIGITS = 60  # of a number as written: more cannot fit an amount, and would cost time to refuse
MOST_BYTES = 256 << 10  # of a record: a transaction has a few hundred, and its longest texts together some 10,000


class Refused(InvalidValue):
    """A record that is not what it should be; `reason` is the code that quarantine and dead letters carry."""

    def __init__(self, reason: str, field: str, message: str) -> None:
        super().__init__(field, message)
        self.reason = reason


class Checked(Protocol):
    """An event that knows its own rules."""

    def validate(self, arrived_at: datetime | None = None) -> None: ...


def object_of(data: bytes) -> dict[str, Any]:
    """The one JSON object that a record is.

    Raises:
        Refused: it is none, is too large, or leaves something to guess.
    """

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


def known(value: Mapping[str, Any], version: int, names: Set[str]) -> None:
    """Refuse another version, and fields that it does not have."""
    found = value.get("version")
    if type(found) is not int or found != version:
        raise Refused("unknown_version", "version", f"expected {version}, found {shown(found)}")
    unknown = sorted(value.keys() - names)
    if unknown:
        raise Refused("unknown_field", unknown[0][:60], f"expected the fields of version {version}, found {shown(unknown[0])}")


def validated(event: Checked, arrived_at: datetime) -> None:
    """Hold an event against its own rules; the first that is broken is the reason."""
    try:
        event.validate(arrived_at)
    except InvalidValue as error:
        raise Refused(f"invalid_{error.field}", error.field, str(error).partition(": ")[2]) from None


def _number(text: str) -> Decimal:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} characters")
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond what decimals have
        raise ValueError(f"{text} is no number") from None


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} characters")
    return int(text)


def needed(value: Mapping[str, Any], name: str) -> Any:
    """A field that must be there."""
    found = value.get(name)
    if found is None:
        raise Refused("missing_field", name, "expected a value, found none")
    return found


def text(name: str, found: Any) -> str:
    """Text as it stands."""
    if not isinstance(found, str):
        raise Refused(f"invalid_{name}", name, f"expected text, found {shown(found)}")
    return found


def optional_text(value: Mapping[str, Any], name: str) -> str | None:
    """Text, or none where the field is left out or null."""
    return None if value.get(name) is None else text(name, value[name])


def optional_decimal(value: Mapping[str, Any], name: str) -> Decimal | None:
    """A number, or none where the field is left out or null."""
    return None if value.get(name) is None else decimal(name, value[name])


def member(kind: Any, name: str, found: Any) -> Any:
    """A member of an enumeration by its value."""
    try:
        return kind(text(name, found))
    except ValueError as error:
        if isinstance(error, Refused):
            raise
        known = ", ".join(member.value for member in kind if member.value != "unknown")
        raise Refused(f"invalid_{name}", name, f"expected one of {known}, found {shown(found)}") from None


def decimal(name: str, found: Any) -> Decimal:
    """A number with every digit, from a JSON number or from text."""
    if isinstance(found, str) and len(found) <= MOST_DIGITS:
        with suppress(InvalidOperation):
            found = Decimal(found)
    if isinstance(found, bool) or not isinstance(found, int | Decimal):
        raise Refused(f"invalid_{name}", name, f"expected a number, found {shown(found)}")
    return Decimal(found)


def time_of(found: Any) -> datetime:
    """A time in ISO 8601, or in milliseconds since 1970."""
    try:
        if isinstance(found, str):
            return datetime.fromisoformat(found)
        if isinstance(found, int) and not isinstance(found, bool):
            return EPOCH + timedelta(milliseconds=found)
    except (ValueError, OverflowError):
        pass
    raise Refused("invalid_occurred_at", "occurred_at", f"expected ISO 8601 with a zone, or milliseconds since 1970, found {shown(found)}")


def shown(found: Any) -> str:
    """A value for a message, cut."""
    return repr(found)[:60]


def plain_json(content: Any) -> Any:
    """A value as it is written: exact numbers as text, times in UTC."""
    if isinstance(content, Decimal):
        return format(content.normalize(EXACT), "f")
    if isinstance(content, datetime):
        return content.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return content
