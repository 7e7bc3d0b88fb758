"""Values that cannot be wrong: ids, amounts and times, checked once where they enter.

Limits are part of the log's contract: what passes here must stay readable for ever.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation, Rounded, localcontext

from domain.errors import InvalidValue

MAX_ID_LENGTH = 256  # characters; chain hashes and keyed pseudonyms need under 140, the rest is slack
MAX_TEXT_LENGTH = 1024  # characters of any other text from outside
AMOUNT_SCALE = 18  # decimals of the smallest unit of ether, the finest in use
AMOUNT_DIGITS = 38  # what Avro decimal(38,18), Arrow decimal128 and NUMERIC(38,18) hold alike
MAX_AHEAD = timedelta(days=1)  # a clock may be wrong by its time zone; more is a wrong unit
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_NETWORK = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# The default context rounds 38 digits to 28 in silence; this one refuses to lose any.
EXACT = Context(prec=60, traps=[InvalidOperation, Inexact, Rounded])
_QUANTUM = Decimal(1).scaleb(-AMOUNT_SCALE)


def network(value: str) -> str:
    """A network's name: lower case letters, digits, `_` and `-`, at most 32.

    Raises:
        InvalidValue: anything else.
    """
    if not _NETWORK.fullmatch(value):
        raise InvalidValue("network", f"expected lower-case letters, digits, _ or -, at most 32, found {value[:40]!r}")
    return value


def identifier(field: str, value: str, network_name: str | None = None) -> str:
    """An id as text without control characters; with a network given, it must start with `<network>:`.

    Raises:
        InvalidValue: empty, too long, a control character, or another network.
    """
    if not value or len(value) > MAX_ID_LENGTH:
        raise InvalidValue(field, f"expected 1 to {MAX_ID_LENGTH} characters, found {len(value)}")
    if _CONTROL.search(value):
        raise InvalidValue(field, f"expected no control characters, found them in {value[:40]!r}")
    if network_name is not None and not (value.startswith(network_name + ":") and len(value) > len(network_name) + 1):
        raise InvalidValue(field, f"expected to start with {network_name + ':'!r}, found {value[:40]!r}")
    return value


def wallet_id(value: str) -> str:
    """A wallet's id, `<network>:<address>`.

    Raises:
        InvalidValue: no network before the first colon, or not an identifier.
    """
    name, colon, address = value.partition(":")
    if not colon or not address or not _NETWORK.fullmatch(name):
        raise InvalidValue("wallet_id", f"expected <network>:<address>, found {value[:60]!r}")
    return identifier("wallet_id", value)


def text(field: str, value: str) -> str:
    """Other text from outside, bounded; control characters are data and are escaped where they are shown.

    Raises:
        InvalidValue: longer than `MAX_TEXT_LENGTH`.
    """
    if len(value) > MAX_TEXT_LENGTH:
        raise InvalidValue(field, f"expected at most {MAX_TEXT_LENGTH} characters, found {len(value)}")
    return value


def amount(field: str, value: Decimal) -> Decimal:
    """An exact amount, not negative, of at most 38 digits with 18 after the point.

    Raises:
        InvalidValue: NaN, infinite, negative, or digits that would be lost.
    """
    if not value.is_finite():
        raise InvalidValue(field, f"expected a finite number, found {value}")
    if value.is_signed() and value != 0:
        raise InvalidValue(field, "expected zero or more, found a negative number")
    try:
        with localcontext(EXACT):
            exact = abs(value.normalize(EXACT)).quantize(_QUANTUM)
    except (InvalidOperation, Inexact, Rounded):
        raise InvalidValue(field, f"expected at most {AMOUNT_SCALE} decimals, found {str(value)[:60]}") from None
    if len(exact.as_tuple().digits) > AMOUNT_DIGITS:
        raise InvalidValue(field, f"expected at most {AMOUNT_DIGITS} digits, found {str(value)[:60]}")
    return exact


def occurred_at(value: datetime, not_after: datetime | None = None, field: str = "occurred_at") -> datetime:
    """An event time in UTC: from 1970 on, and not more than a day after `not_after` (when it arrived).

    Raises:
        InvalidValue: naive, before the epoch, or from the future.
    """
    if value.tzinfo is None:
        raise InvalidValue(field, "expected a time with its zone, found one without")
    if value < EPOCH:
        raise InvalidValue(field, f"expected 1970 or later, found {value.isoformat()}")
    if not_after is not None and value > not_after + MAX_AHEAD:
        raise InvalidValue(field, f"expected a time not after its arrival, found {value.isoformat()}")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidValue(field, f"expected a time within the calendar, found {value.isoformat()}") from None
