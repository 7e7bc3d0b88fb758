"""Record by record: strict, exact, and every failure has a name."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.commands import LabelWallet
from domain.events import WalletKind
from schema_registry.contracts import contracts
from schema_registry.errors import SchemaError, UndecodableRecord
from schema_registry.record_codec import (
    as_record,
    decimal_from_bytes,
    decimal_to_bytes,
    micros_from_time,
    time_from_micros,
)
from schema_registry.wire import frame
from tests.unit.domain.facts import AT, transaction
from tests.unit.schema_registry.generated import CATALOG, RECORDS, comparable, values_of

LABEL = RECORDS.encode("LabelWallet", {"wallet_id": "a:b", "label": "licit", "source": "s", "known_at": AT})


@pytest.mark.parametrize("name", sorted(contracts()))
def test_what_is_encoded_comes_back(name: str) -> None:
    @settings(max_examples=6, deadline=None)
    @given(values_of(contracts()[name].latest))
    def check(record: dict[str, Any]) -> None:
        found_name, found = RECORDS.decode(RECORDS.encode(name, record))
        assert found_name == name
        assert _comparable(found) == _comparable(record)

    check()


def _comparable(record: Any) -> Any:
    return {k: _comparable(v) if isinstance(v, dict) else comparable(v) for k, v in record.items()}


def test_a_dataclass_is_encoded_under_its_own_name() -> None:
    assert RECORDS.encode_event(LabelWallet("a:b", "licit", "s", AT)) == LABEL
    features = tuple(i / 8 for i in range(28))
    _, record = RECORDS.decode(RECORDS.encode_event(transaction(card_features=features)))
    assert tuple(record["card_features"].values()) == features
    assert as_record(transaction())["origin"]["ingest_id"] == "run"


@pytest.mark.parametrize(
    ("value", "reason", "message"),
    [
        (None, "no_value", "found a null"),
        (b"", "not_framed", "found nothing"),
        (b"\x00\x00\x00\x01", "not_framed", "a 4-byte schema id, found 00000001"),
        (b'{"json": 1}', "not_framed", "found 7b226a736f"),
        (frame(4_000_000_000, b"x"), "unknown_schema_id", "found 4000000000"),
        (LABEL[:-1], "truncated", "LabelWallet: the record ends too early"),
        (LABEL[:5], "truncated", "LabelWallet: the record ends too early"),
        (LABEL + b"\x00", "trailing_bytes", "LabelWallet: 1 bytes follow the record"),
        (LABEL[:5] + b"\x86\x80\x00" + LABEL[6:], "malformed", "not the encoding of a value"),
        (LABEL[:6] + b"\xff" + LABEL[7:], "malformed", "LabelWallet"),
        (LABEL[:5] + b"\x01" + LABEL[6:], "truncated", "LabelWallet"),
    ],
    ids=[
        "null",
        "empty",
        "short-header",
        "json",
        "unknown-id",
        "cut",
        "header-only",
        "trailing",
        "overlong-number",
        "bad-utf8",
        "negative-length",
    ],
)
def test_bytes_that_are_no_record_have_a_reason(value: bytes | None, reason: str, message: str) -> None:
    with pytest.raises(UndecodableRecord, match=message) as caught:
        RECORDS.decode(value)
    assert caught.value.reason == reason


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(sorted(contracts())))
def test_random_bytes_behind_any_header_are_a_record_or_undecodable(body: bytes, name: str) -> None:
    try:
        found, record = RECORDS.decode(frame(CATALOG.latest_id(name), body))
    except UndecodableRecord as error:
        assert len(str(error)) < 300
    else:
        assert RECORDS.encode(found, record) == frame(CATALOG.latest_id(name), body)


def test_ten_megabytes_of_noise_are_refused_at_once() -> None:
    noise = random.Random(1).randbytes(10 << 20)
    with pytest.raises(UndecodableRecord):
        RECORDS.decode(frame(CATALOG.latest_id("TransactionRecorded"), noise))


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": Decimal("1E-19")},
        {"amount": Decimal("1E+20")},
        {"amount": Decimal("NaN")},
        {"amount": None},
        {"occurred_at": datetime(2020, 1, 1)},
        {"kind": "bribe"},
        {"block": 1 << 63},
        {"tx_id": 7},
        {"tx_id": "\ud800"},
    ],
    ids=["19-decimals", "39-digits", "nan", "null", "naive-time", "symbol", "wide", "number-as-text", "half-a-character"],
)
def test_a_value_that_the_schema_cannot_hold_is_not_written(changes: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="TransactionRecorded: the value does not fit its schema"):
        RECORDS.encode("TransactionRecorded", {**as_record(transaction()), **changes})


def test_a_field_that_the_schema_lacks_is_not_dropped_in_silence() -> None:
    record = {"wallet_id": "a:b", "kind": WalletKind.CARD, "name": None, "country": None, "source": "s", "known_at": AT}
    RECORDS.encode("WalletDescribed", record)
    with pytest.raises(SchemaError):
        RECORDS.encode("WalletDescribed", {**record, "nickname": "x"})


@pytest.mark.parametrize("number", [0, 1, -1, 127, 128, -128, -129, 10**38 - 1, -(10**38) + 1])
def test_decimals_take_the_fewest_bytes(number: int) -> None:
    value = Decimal(number).scaleb(-18)
    data = decimal_to_bytes(Decimal(f"{number}E-18"), 38, 18)
    assert int.from_bytes(data, "big", signed=True) == number
    assert len(data) == 1 or number not in range(-(1 << 8 * len(data) - 9), 1 << 8 * len(data) - 9)
    assert decimal_from_bytes(data, 38, 18) == Decimal(f"{number}E-18")
    assert value is not None


def test_a_decimal_of_39_digits_on_the_wire_is_malformed() -> None:
    with pytest.raises(UndecodableRecord, match="at most 38 digits"):
        decimal_from_bytes((10**38).to_bytes(17, "big"), 38, 18)


def test_times_keep_microseconds_and_lose_their_zone() -> None:
    moment = datetime(2020, 2, 29, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert time_from_micros(micros_from_time(moment)) == moment
    assert time_from_micros(micros_from_time(moment)).tzinfo is UTC
    with pytest.raises(UndecodableRecord, match="the years 1 to 9999"):
        time_from_micros(1 << 62)
