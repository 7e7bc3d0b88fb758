"""Values that cannot be wrong: what each rule lets through, and what it says of the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import values
from domain.errors import InvalidValue

HARMLESS = [
    "Robert'); DROP TABLE wallet;--",
    "'}) DETACH DELETE w //",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "[bold red]rich[/]",
    "名前 🚀",
    "\u202ereversed",
]
CONTROL = ["a\nb", "a\r", "\x00", "\x1b[31mred", "a\tb", "\x7f", "\x9b31m", "a\u2028b", "\ud800"]


@pytest.mark.parametrize("name", ["ethereum", "card", "a", "0x", "base_2-main", "n" * 32])
def test_a_network_is_lower_case_and_short(name: str) -> None:
    assert values.network(name) == name


@pytest.mark.parametrize("name", ["", "Ethereum", "-a", "a b", "a:b", "n" * 33, "a\n", "é"], ids=repr)
def test_any_other_network_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue, match="network: expected lower-case letters") as caught:
        values.network(name)
    assert caught.value.field == "network"


@pytest.mark.parametrize("text", HARMLESS, ids=ascii)
def test_hostile_text_is_data_and_stays_as_it_is(text: str) -> None:
    assert values.identifier("asset", text) == text
    assert values.text("name", text) == text
    assert values.wallet_id("test:" + text) == "test:" + text


@pytest.mark.parametrize("text", CONTROL, ids=ascii)
def test_an_id_holds_no_control_characters_and_no_halves_of_one(text: str) -> None:
    with pytest.raises(InvalidValue, match="tx_id: expected no control characters"):
        values.identifier("tx_id", text)


@pytest.mark.parametrize("length", [0, 257, 10_000_000])
def test_an_id_of_the_wrong_length_is_refused_without_being_repeated(length: int) -> None:
    with pytest.raises(InvalidValue, match=f"asset: expected 1 to 256 characters, found {length}") as caught:
        values.identifier("asset", "x" * length)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["ethereum:", "card:1", "ethereum", "Ethereum:1", ":1"])
def test_an_id_of_a_network_begins_with_it(value: str) -> None:
    with pytest.raises(InvalidValue, match="expected to start with 'ethereum:'"):
        values.identifier("tx_id", value, "ethereum")


@pytest.mark.parametrize("value", ["", "a", ":", "a:", ":a", "A:b", "a b:c"], ids=repr)
def test_a_wallet_id_is_a_network_and_an_address(value: str) -> None:
    with pytest.raises(InvalidValue, match="wallet_id: expected <network>:<address>"):
        values.wallet_id(value)


def test_text_is_bounded() -> None:
    assert values.text("reason", "x" * 1024)
    with pytest.raises(InvalidValue, match="reason: expected at most 1024 characters, found 1025"):
        values.text("reason", "x" * 1025)


@pytest.mark.parametrize(
    ("given_as", "exact"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("1E+3", "1000"),
        ("1e-18", "0.000000000000000001"),
        ("1.50000000000000000000000", "1.5"),
        ("99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
    ],
)
def test_an_amount_keeps_every_digit(given_as: str, exact: str) -> None:
    found = values.amount("amount", Decimal(given_as))
    assert (found, found.as_tuple().exponent) == (Decimal(exact), -18)


@pytest.mark.parametrize(
    ("given_as", "message"),
    [
        ("NaN", "expected a finite number"),
        ("sNaN", "expected a finite number"),
        ("-Infinity", "expected a finite number"),
        ("-0.1", "found a negative number"),
        ("1E-19", "at most 18 decimals"),
        ("1.0000000000000000001", "at most 18 decimals"),
        ("9" * 40, "at most 38 digits"),
        ("1E+20", "at most 38 digits"),
        ("1E+400", "expected at most"),
        ("1E+999999", "expected at most"),
        ("1E-999999", "at most 18 decimals"),
    ],
)
def test_an_amount_that_would_lose_something_is_refused(given_as: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        values.amount("amount", Decimal(given_as))


@given(
    st.decimals() | st.integers().map(Decimal) | st.tuples(st.integers(), st.integers(-90, 90)).map(lambda p: Decimal(p[0]).scaleb(p[1]))
)
def test_an_amount_is_exact_or_refused_never_rounded(number: Decimal) -> None:
    try:
        found = values.amount("amount", number)
    except InvalidValue as error:
        assert error.field == "amount"
    else:
        assert found == number
        assert found >= 0
        assert len(found.as_tuple().digits) <= 38


EAST = timezone(timedelta(hours=14))


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        (datetime(2020, 1, 1), "expected a time with its zone"),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), "expected 1970 or later"),
        (datetime(1970, 1, 1, tzinfo=EAST), "expected 1970 or later"),
        (datetime(2024, 1, 3, 0, 0, 1, tzinfo=UTC), "expected a time not after its arrival"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), "occurred_at: expected"),
    ],
    ids=["naive", "before-the-epoch", "before-it-in-utc", "future", "beyond-the-calendar"],
)
def test_a_time_that_cannot_be_is_refused(moment: datetime, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        values.occurred_at(moment, datetime(2024, 1, 2, tzinfo=UTC))


def test_a_time_may_be_a_day_ahead_of_its_arrival_and_is_kept_in_utc() -> None:
    arrived = datetime(2024, 1, 2, tzinfo=UTC)
    ahead = (arrived + timedelta(days=1)).astimezone(EAST)
    assert values.occurred_at(ahead, arrived) == ahead
    assert values.occurred_at(ahead, arrived).tzinfo is UTC
    assert values.occurred_at(values.EPOCH) == values.EPOCH


@given(st.text(), st.sampled_from(["network", "wallet_id"]))
def test_no_text_gives_anything_but_itself_or_a_typed_error(text: str, rule: str) -> None:
    check: Any = getattr(values, rule)
    try:
        assert check(text) == text
    except InvalidValue as error:
        assert error.field == rule
