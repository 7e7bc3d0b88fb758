"""The rules over columns agree with the domain's own, transaction by transaction."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidValue
from domain.events import Origin, Payment, TransactionKind, TransactionRecorded, TransactionStatus
from domain.values import EPOCH
from infra.sources.numbers import NumberFault, scaled_integers
from infra.sources.raw_rows import Problems
from infra.sources.rules import check_transactions
from schema_registry.column_codec import arrow_schema, flatten
from schema_registry.record_codec import as_record

ARRIVED_AT = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = arrow_schema("TransactionRecorded")
EXACT = Context(prec=80)

odd_texts = st.sampled_from(
    ["", ":", "net:", "net:a", "other:a", "net", "net:\x1b[31m", "net:a\u2028", "net:\x9f", "net:" + "é" * 252,
     "net:" + "é" * 253, "net:" + "a" * 300, "NET:a", "net:net:a", "ne t:a"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4).map("net:".__add__)  # fmt: skip
networks = st.sampled_from(["net", "net", "net", "other", "Net", "", "n" * 33, "net\n"])
amounts = st.integers(-5, 5).map(lambda n: Decimal(n)) | st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: Decimal(n).scaleb(-18, EXACT))
times = st.integers(-2, 2).map(lambda n: EPOCH + timedelta(microseconds=n)) | st.integers(-2, 2).map(
    lambda n: ARRIVED_AT + timedelta(days=1, microseconds=n)
)


@st.composite
def transactions(draw: st.DrawFn) -> TransactionRecorded:
    return TransactionRecorded(
        draw(odd_texts), draw(networks), draw(st.sampled_from(list(TransactionKind))),
        draw(st.sampled_from(list(TransactionStatus))), draw(st.none() | odd_texts), draw(st.none() | odd_texts),
        draw(amounts), draw(odd_texts), draw(st.none() | amounts), draw(st.none() | odd_texts),
        draw(st.none() | amounts), draw(st.none() | odd_texts), draw(times), draw(st.none() | st.integers(-2, 2)),
        Payment(location="x") if draw(st.booleans()) else None, None, None, Origin("s", "m@1", "i", 0),
    )  # fmt: skip


def is_right(transaction: TransactionRecorded) -> bool:
    try:
        transaction.validate(ARRIVED_AT)
    except InvalidValue:
        return False
    return True


@settings(deadline=None, max_examples=150)
@given(st.lists(transactions(), min_size=1, max_size=8))
def test_a_row_passes_exactly_where_the_domain_accepts_it(rows: list[TransactionRecorded]) -> None:
    flat = [flatten(as_record(row)) for row in rows]
    table = pa.Table.from_pylist(flat, schema=SCHEMA)
    problems = Problems(len(rows))
    check_transactions(table, problems, ARRIVED_AT)
    assert problems.good().tolist() == [is_right(row) for row in rows]


numbers = (
    st.decimals(allow_nan=True, allow_infinity=True).map(str)
    | st.from_regex(r"[+-]?[0-9]{0,25}(\.[0-9]{0,22})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
    | st.text("0123456789.eE+-_ naif", max_size=8)
)


@settings(deadline=None, max_examples=300)
@given(st.lists(numbers, min_size=1, max_size=6), st.sampled_from([18, 0, 9, 6]))
def test_numbers_equal_those_of_exact_decimals(texts: list[str], scale: int) -> None:
    words, faults = scaled_integers(pa.array(texts, pa.string()), scale)
    for text, (low, high), fault in zip(texts, words.tolist(), faults.tolist(), strict=True):
        assert (None if fault else low | (high << 64)) == expected_integer(text, scale), text


def expected_integer(text: str, scale: int) -> int | None:
    if "_" in text:  # Python's own liberty
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    if not value.is_finite():
        return None
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    number = int("".join(map(str, digits)))
    if number == 0:
        return 0
    power = exponent + scale
    if sign or power > 60 or power < -100:
        return None
    scaled, rest = (number * 10**power, 0) if power >= 0 else divmod(number, 10**-power)
    return None if rest or scaled >= 10**38 else scaled


def test_each_fault_has_its_reason() -> None:
    texts = ["x", "nan", "1e-19", "1e20", "-1", "1"]
    faults = scaled_integers(pa.array(texts), 18)[1].tolist()
    assert [NumberFault(fault).reason for fault in faults] == [
        "not_a_number", "not_finite", "too_many_decimals", "too_many_digits", "negative", "",
    ]  # fmt: skip


def test_text_longer_than_the_bound_is_refused_before_it_enters() -> None:
    row: dict[str, Any] = flatten(
        as_record(
            TransactionRecorded(
                "net:a:0", "net", TransactionKind.PAYMENT, TransactionStatus.SETTLED, None, None, Decimal(1), "EUR",
                None, None, None, None, EPOCH, None, Payment(location="x" * 1025), None, None, Origin("s", "m", "i", 0),
            )
        )
    )  # fmt: skip
    problems = Problems(1)
    check_transactions(pa.Table.from_pylist([row], schema=SCHEMA), problems, None)
    assert problems.by_row[0][0] == "invalid_payment.location"
