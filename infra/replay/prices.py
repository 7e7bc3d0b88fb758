"""Prices as of a moment: what an asset cost then, never what it came to cost later."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Context, Decimal

from domain.values import EPOCH

MONEY = Context(prec=60)  # products of two amounts of 38 digits are rounded far behind the last digit that anybody reads
_CENTS = Decimal("0.000000000000000001")


@dataclass(frozen=True, slots=True)
class Priced:
    """An asset's price in the quote asset from `at_us` on, in microseconds since 1970."""

    at_us: int
    asset: str
    price: Decimal


class PriceBook:
    """Prices in one quote asset, joined as of an event's time.

    Args:
        prices: in the log's order: of several at one time the last counts.
    """

    def __init__(self, quote: str, prices: Iterable[Priced] = ()) -> None:
        self.quote = quote
        by_asset: dict[str, dict[int, Decimal]] = {}
        for one in prices:
            by_asset.setdefault(one.asset, {})[one.at_us] = one.price
        self._times = {asset: sorted(found) for asset, found in by_asset.items()}
        self._prices = {asset: [by_asset[asset][at] for at in times] for asset, times in self._times.items()}

    def sha256(self) -> str:
        """Names these prices: the same give the same."""
        text = json.dumps([self.quote, [[asset, self._times[asset], list(map(str, self._prices[asset]))] for asset in sorted(self._times)]])
        return hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return sum(map(len, self._times.values()))

    def as_of(self, asset: str, at_us: int) -> Decimal | None:
        """What one unit cost then; none where nothing was known yet."""
        if asset == self.quote:
            return Decimal(1)
        times = self._times.get(asset)
        place = bisect_right(times, at_us) if times else 0
        return self._prices[asset][place - 1] if place else None

    def value(self, amount: Decimal, asset: str, at_us: int) -> Decimal | None:
        """An amount in the quote asset, as of a time."""
        price = self.as_of(asset, at_us)
        return None if price is None else MONEY.multiply(amount, price)

    def between(self, after_us: int, until_us: int) -> Iterator[Priced]:
        """What was priced in (`after_us`, `until_us`], in order of time."""
        found = []
        for asset, times in self._times.items():
            first, last = bisect_right(times, after_us), bisect_right(times, until_us)
            found += [Priced(times[at], asset, self._prices[asset][at]) for at in range(first, last)]
        yield from sorted(found, key=lambda one: (one.at_us, one.asset))


def money(value: Decimal) -> Decimal:
    """To the eighteenth decimal: as exact as the log is, and the same on every machine."""
    return value.quantize(_CENTS, context=MONEY)


def micros(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - EPOCH) // timedelta(microseconds=1)
