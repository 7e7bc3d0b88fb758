"""Buys what has risen for three prices in a row, and sells what has fallen once: no advice, an example of a strategy's form."""

from collections import defaultdict
from decimal import Decimal


class Strategy:
    name = "momentum"
    cash = 100_000  # in the quote asset, to begin with
    fee_bps = 10  # of each fill, in hundredths of a percent

    def __init__(self):
        self.last = {}
        self.risen = defaultdict(int)

    def on_price(self, asset, price, book):
        """A new price of an asset; `book` fills at it."""
        before = self.last.get(asset)
        self.last[asset] = price
        self.risen[asset] = self.risen[asset] + 1 if before is not None and price > before else 0
        if self.risen[asset] >= 3:
            book.buy(asset, book.cash / 10 / price)
        elif before is not None and price < before and book.holding(asset) > Decimal(0):
            book.sell(asset, book.holding(asset))
