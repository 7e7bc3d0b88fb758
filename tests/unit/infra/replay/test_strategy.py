"""Strategies on paper: exact money, prices as of the moment, and an outcome that does not show how the stream was cut."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.replay.prices import PriceBook, Priced
from infra.replay.strategy import Book, PaperTrader, StrategyFile, load_strategy

PRICES = PriceBook("USD", [Priced(at, "A", Decimal(price)) for at, price in ((0, 10), (300, 12), (500, 9), (901, 20))])


class Swing:
    """Buys at each price, sells at the next."""

    cash, fee_bps = 100, 0

    def on_price(self, asset: str, price: Decimal, book: Book) -> None:
        if book.holding(asset):
            book.sell(asset, 1)
        else:
            book.buy(asset, 1)


class Both(Swing):
    """The same, told of transactions too."""

    def on_transaction(self, transaction: object, score: float | None, book: Book) -> None:
        """It only looks."""


@given(st.lists(st.integers(1, 1_000), max_size=12))
def test_how_often_time_passes_does_not_show(cuts: list[int]) -> None:
    outcomes = []
    for stops in ([1_000], [*sorted(cuts), 1_000]):
        for made in (Swing, Both):
            trader = PaperTrader(StrategyFile("swing", "x", made), PRICES, 0, 1_000)
            for stop in stops:
                trader.advance(stop)
            outcomes.append(trader.outcome())
    assert all(one == outcomes[0] for one in outcomes)
    assert outcomes[0].profit == -12 + 9 - 20 + 20 and outcomes[0].filled == 3
    assert [at for at, _ in outcomes[0].curve[:3]] == [0, 2, 4] and len(outcomes[0].curve) <= 502


def test_orders_that_cannot_be_are_refused_with_their_reason() -> None:
    book = Book(PRICES, Decimal(11), Decimal(100))
    assert not book.buy("B", 1) and not book.buy("A", 0) and not book.sell("A", 1) and not book.buy("A", 2)
    assert dict(book.refused) == {"no price is known": 1, "not above zero": 1, "not held": 1, "not enough cash": 1}
    assert book.buy("A", 1) and book.cash == Decimal("0.9") and book.value() == Decimal("10.9")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Strategy:\n    def on_price(self, *given):\n        raise SystemExit(0)\n", "SystemExit: 0 (line 3"),
        ("class Strategy:\n    def __init__(self):\n        exit()\n    def on_price(self, *given): ...\n", "SystemExit"),
        (
            "class Strategy:\n    fee_bps = 10001\n    def on_price(self, *given): ...\n",
            "fee_bps: expected a number of zero or more up to 10000",
        ),
        ("class Strategy:\n    cash = float('nan')\n    def on_price(self, *given): ...\n", "cash: expected a number"),
    ],
)
def test_whatever_it_throws_ends_it_alone(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(text)
    trader = PaperTrader(load_strategy(tmp_path / "s.py"), PRICES, 0, 1_000)
    trader.advance(1_000)
    assert trader.failed is not None and says in trader.failed and trader.outcome().filled == 0


def test_the_hash_of_prices_names_them() -> None:
    assert (
        PRICES.sha256()
        == PriceBook("USD", [Priced(at, "A", Decimal(price)) for at, price in ((901, 20), (300, 12), (500, 9), (0, 10))]).sha256()
    )
    assert (
        PRICES.sha256()
        != PriceBook("USD", [Priced(at, "A", Decimal(price)) for at, price in ((901, 20), (300, 12), (500, 9), (0, 11))]).sha256()
    )
