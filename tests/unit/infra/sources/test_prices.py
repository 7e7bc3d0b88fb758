"""Prices from a file: each row an event, exact; a wrong row is refused with its place and its bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from domain.errors import InvalidValue
from domain.prices import AssetPriced
from infra.sources.errors import MappingError
from infra.sources.mapping import PriceMapping, parse_mapping
from infra.sources.prices import read_prices
from infra.sources.shipped import any_mapping, detect, header_of

AT = datetime(2026, 5, 1, tzinfo=UTC)
FILE = """asset,quote_asset,price,priced_at
ETH,USD,1834.120000000000000001,2024-01-01T00:00:00Z
BTC,USD,42000,2024-01-01T00:00:00Z
ETH,USD,-3,2024-01-02T00:00:00Z
ETH,USD,0,2024-01-02T00:00:00Z
ETH,ETH,1,2024-01-02T00:00:00Z
ETH,USD,much,2024-01-02T00:00:00Z
ETH,USD,NaN,2024-01-02T00:00:00Z
ETH,USD,1.0000000000000000001,2024-01-02T00:00:00Z
,USD,1,2024-01-02T00:00:00Z
ETH,USD,1,yesterday
ETH,USD,1,2999-01-01T00:00:00Z
ETH,USD,1,
"""


def test_a_row_is_an_event_and_what_is_wrong_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(FILE)
    mapping = any_mapping("tidemark_prices")
    assert isinstance(mapping, PriceMapping) and detect(header_of(str(tmp_path / "prices.csv"))) == mapping
    (found,) = read_prices(str(tmp_path / "prices.csv"), mapping, AT)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    assert found.events == [
        AssetPriced("ETH", "USD", Decimal("1834.120000000000000001"), "file", start),
        AssetPriced("BTC", "USD", Decimal(42000), "file", start),
    ]
    assert [(row.row, row.reason) for row in found.rejected] == [
        (2, "invalid_price"), (3, "invalid_price"), (4, "invalid_quote_asset"), (5, "invalid_price"), (6, "invalid_price"),
        (7, "invalid_price"), (8, "invalid_asset"), (9, "invalid_priced_at"), (10, "invalid_priced_at"), (11, "invalid_priced_at"),
    ]  # fmt: skip
    assert found.progress.rows_read == 12 and b"yesterday" in found.rejected[7].raw


def test_a_file_of_ones_own_is_a_page_of_yaml(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("sym;close;day\neth;3.5;1700000000\n")
    mapping = parse_mapping(
        "name: mine\nmapping_version: 1\ndescribes: prices\nasset: {column: sym, fold: upper}\nquote_asset: {constant: EUR}\n"
        "price: close\npriced_at: {column: day, format: unix_s}\nsource: exchange\ndelimiter: ';'\n",
        "mine.yaml",
    )
    assert isinstance(mapping, PriceMapping)
    (found,) = read_prices(str(tmp_path / "m.csv"), mapping, AT)
    assert [(row.asset, row.quote_asset, row.price, row.source) for row in found.events] == [("ETH", "EUR", Decimal("3.5"), "exchange")]


def test_a_pseudonym_of_an_asset_is_a_mistake() -> None:
    text = "name: m\nmapping_version: 1\ndescribes: prices\nasset: {column: a, pseudonym: asset}\nquote_asset: {constant: EUR}\nprice: p\n"
    with pytest.raises(MappingError, match="stands for nobody"):
        parse_mapping(text + "priced_at: {column: t, format: iso}\nsource: x\n", "m.yaml")


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("asset", {"asset": ""}),
        ("quote_asset", {"quote_asset": "ETH"}),
        ("price", {"price": Decimal("Infinity")}),
        ("price", {"price": Decimal(0)}),
    ],
)
def test_a_price_that_cannot_be_is_none(field: str, change: dict[str, object]) -> None:
    values: dict[str, object] = {"asset": "ETH", "quote_asset": "USD", "price": Decimal(1), "source": "x", "priced_at": AT}
    AssetPriced(**values).validate(AT)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue) as caught:
        AssetPriced(**{**values, **change}).validate(AT)  # type: ignore[arg-type]
    assert caught.value.field == field
