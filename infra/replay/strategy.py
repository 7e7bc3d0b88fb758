"""A strategy that trades along a replay, on paper: what it sees, what it may do, what came of it.

It is a Python file of the user's own with a class `Strategy`, and runs with this process's rights. It sees prices and transactions in the
order in which they became known, fills at the last price known, pays a fee, and can neither borrow nor sell what it has not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from infra.replay.errors import StrategyError
from infra.replay.prices import MONEY, PriceBook, money

CASH, FEE_BPS = Decimal(1_000_000), Decimal(10)
MOST_POINTS = 400  # of an equity curve
_BPS = Decimal(10_000)


class Book:
    """A paper account: cash in the quote asset, and holdings. `at_us` is the replay's time, microseconds since 1970."""

    def __init__(self, prices: PriceBook, cash: Decimal = CASH, fee_bps: Decimal = FEE_BPS) -> None:
        self._prices = prices
        self._fee = MONEY.divide(fee_bps, _BPS)
        self._held: dict[str, Decimal] = {}
        self.cash = cash
        self.fees = Decimal(0)
        self.at_us = 0
        self.filled = 0
        self.refused: Counter[str] = Counter()

    def holding(self, asset: str) -> Decimal:
        """Units held of an asset."""
        return self._held.get(asset, Decimal(0))

    def price(self, asset: str) -> Decimal | None:
        """What one unit costs now, none where nobody has said."""
        return self._prices.as_of(asset, self.at_us)

    def value(self) -> Decimal:
        """Cash and all holdings at their last price."""
        total = self.cash
        for asset, units in self._held.items():
            total = MONEY.add(total, MONEY.multiply(units, self.price(asset) or Decimal(0)))
        return money(total)

    def buy(self, asset: str, units: Decimal | int) -> bool:
        """Buy at the last price; false where that cannot be, which is counted with its reason."""
        return self._fill(asset, Decimal(units), 1)

    def sell(self, asset: str, units: Decimal | int) -> bool:
        """Sell at the last price; false where that cannot be, which is counted with its reason."""
        return self._fill(asset, Decimal(units), -1)

    def _fill(self, asset: str, units: Decimal, side: int) -> bool:
        price = self.price(asset)
        if price is None:
            return self._refuse("no price is known")
        if not units.is_finite() or units <= 0:
            return self._refuse("not above zero")
        worth = MONEY.multiply(units, price)
        fee = MONEY.multiply(worth, self._fee)
        if side > 0 and MONEY.add(worth, fee) > self.cash:
            return self._refuse("not enough cash")
        if side < 0 and units > self.holding(asset):
            return self._refuse("not held")
        self.cash = money(MONEY.subtract(self.cash, MONEY.add(fee, worth if side > 0 else -worth)))
        self._held[asset] = MONEY.add(self.holding(asset), units if side > 0 else -units)
        self.fees = money(MONEY.add(self.fees, fee))
        self.filled += 1
        return True

    def _refuse(self, reason: str) -> bool:
        self.refused[reason] += 1
        return False


@dataclass(frozen=True, slots=True)
class StrategyFile:
    """A strategy's file, looked at: its name, the hash of its bytes, and what makes one."""

    name: str
    sha256: str
    make: Callable[[], Any]


def load_strategy(path: Path) -> StrategyFile:
    """Run a strategy's file and find the class `Strategy` in it.

    Raises:
        StrategyError: it cannot be read or run, or has no such class.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StrategyError(f"{path}: no readable file: {error.strerror}") from error
    name = f"tidemark_strategy_{hashlib.sha256(data).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StrategyError(f"{path}: expected a Python file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses of the file look for their module there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise StrategyError(f"{path}: {_where(error, path)}") from error
    found = getattr(module, "Strategy", None)
    if not isinstance(found, type) or not any(hasattr(found, method) for method in ("on_price", "on_transaction")):
        raise StrategyError(f"{path}: expected a class Strategy with on_price or on_transaction")
    return StrategyFile(str(getattr(found, "name", path.stem))[:60], hashlib.sha256(data).hexdigest(), found)


@dataclass(slots=True)
class TradingOutcome:
    """What came of a strategy, in the quote asset. `failed` is where it threw: it took no further part."""

    name: str
    quote: str
    started_with: Decimal
    ended_with: Decimal
    fees: Decimal
    filled: int
    refused: dict[str, int]
    deepest_fall: float
    curve: list[tuple[int, Decimal]] = field(default_factory=list)
    failed: str | None = None

    @property
    def profit(self) -> Decimal:
        return MONEY.subtract(self.ended_with, self.started_with)

    def as_json(self) -> dict[str, Any]:
        """Plain values; money as exact text."""
        return {
            "strategy": self.name, "quote": self.quote, "started_with": str(self.started_with), "ended_with": str(self.ended_with),
            "profit": str(self.profit), "fees": str(self.fees), "filled": self.filled, "refused": self.refused,
            "deepest_fall": round(self.deepest_fall, 6), "failed": self.failed,
            "curve": [[at, str(value)] for at, value in self.curve],
        }  # fmt: skip


class PaperTrader:
    """Lets one strategy take part in a replay.

    Args:
        start_us, end_us: between which times the curve is drawn.
    """

    def __init__(self, file: StrategyFile, prices: PriceBook, start_us: int, end_us: int) -> None:
        self.name = file.name
        self._prices = prices
        self._step_us = max(1, (end_us - start_us) // MOST_POINTS)
        self._next_us = start_us
        self._seen_us = start_us
        self.failed: str | None = None
        self._curve: list[tuple[int, Decimal]] = []
        self._strategy: Any = None
        self.book = Book(prices)
        try:
            self._strategy = file.make()
            self.book = Book(prices, _number(self._strategy, "cash", CASH), _number(self._strategy, "fee_bps", FEE_BPS, _BPS))
        except (Exception, SystemExit) as error:
            self.failed = _where(error)
        self.book.at_us = start_us
        self._started_with = self.book.cash
        self._on_price = getattr(self._strategy, "on_price", None)
        self._on_transaction = getattr(self._strategy, "on_transaction", None)

    @property
    def sees_transactions(self) -> bool:
        """Whether it has to be told of transactions at all."""
        return self._on_transaction is not None and self.failed is None

    def advance(self, at_us: int) -> None:
        """Let time pass, and tell of the prices that became known until then."""
        if at_us <= self._seen_us:
            return
        for priced in self._prices.between(self._seen_us, at_us):
            self._mark(priced.at_us)
            self.book.at_us = priced.at_us
            if self._on_price is not None and self.failed is None:
                self._call(self._on_price, priced.asset, priced.price, self.book)
        self._mark(at_us)
        self._seen_us = self.book.at_us = at_us

    def transaction(self, transaction: Mapping[str, Any], score: float | None) -> None:
        """Tell of a settled transaction, once time has come to it."""
        if self.sees_transactions:
            self._call(self._on_transaction, transaction, score, self.book)

    def outcome(self) -> TradingOutcome:
        """What came of it, everything valued at its last price."""
        book = self.book
        value = book.value()
        curve = [*self._curve, (self._seen_us, value)]
        highest, fall = curve[0][1], 0.0
        for _, at in curve:
            highest = max(highest, at)
            fall = max(fall, float((highest - at) / highest) if highest > 0 else 0.0)
        return TradingOutcome(
            self.name, self._prices.quote, self._started_with, value, book.fees, book.filled, dict(sorted(book.refused.items())), fall,
            curve, self.failed,
        )  # fmt: skip

    def _mark(self, until_us: int) -> None:
        """Note the account's value at each step of a fixed grid that time passes: how often time is let pass must not show."""
        while self._next_us <= until_us:
            self.book.at_us = self._next_us
            self._curve.append((self._next_us, self.book.value()))
            self._next_us += self._step_us

    def _call(self, method: Any, *arguments: Any) -> None:
        try:
            method(*arguments)
        except (Exception, SystemExit) as error:
            self.failed = _where(error)


def _number(strategy: Any, name: str, default: Decimal, most: Decimal | None = None) -> Decimal:
    found = Decimal(str(getattr(strategy, name, default)))
    if not found.is_finite() or found < 0 or (most is not None and found > most):
        raise ValueError(f"{name}: expected a number of zero or more{f' up to {most}' if most is not None else ''}, found {found}")
    return found


def _where(error: BaseException, path: Path | None = None) -> str:
    """The error in a line, with the last place in the user's own file."""
    said = f"{type(error).__name__}: {error}"[:300]
    if isinstance(error, SyntaxError):
        return f"{said} (line {error.lineno})"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    own = [frame for frame in frames if path is None or Path(frame.filename) == path] or frames
    return f"{said} (line {own[-1].lineno}, in {own[-1].name})" if own else said
