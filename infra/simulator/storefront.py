"""A shop's visitors: steps of their visits and the payments that these lead to, with planted fraud and the truth about it apart.

Everyday visits go from page to page, lose most visitors on the way, and mostly pay at the first attempt. Four kinds of fraud hide among
them: stolen cards tried with small amounts, accounts used from elsewhere on a new device for much, payments tried until one goes
through, and buying at a pace that no person keeps.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from domain.events import Origin
from domain.storefront import StorefrontEventKind, StorefrontEventRecorded
from domain.values import EPOCH
from infra.lambdas.json_fields import plain_json
from infra.lambdas.storefront_json import storefront_event_to_json
from infra.lambdas.transaction_json import transaction_to_json
from infra.simulator.rhythm import Rhythm

NETWORK, ASSET, SITE = "customer", "EUR", "shop"
PATTERNS = ("card_testing", "account_takeover", "failed_payments", "velocity")
_COUNTRIES = ("DE", "FR", "NL", "ES", "PL", "IT")
_FAR = ("US", "BR", "VN")
_CATEGORIES = ("electronics", "clothing", "games", "books", "household", "sports")
_METHODS = ("card", "transfer", "wallet")
_PRODUCTS = 240
_ADDS, _CHECKS_OUT, _PAYS, _FAILS = 0.34, 0.55, 0.9, 0.04  # of visits with a product, of those with a basket, of checkouts, of attempts
_ORIGIN = Origin("simulator", "", "simulation", -1)
_COLUMNS = (
    "occurred_at", "event", "event_id", "session_id", "site", "customer_id", "device_id", "country", "product_id", "category", "amount",
    "asset", "tx_id", "status", "payment_method",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShopOptions:
    """What to simulate: everyday visits, and how many of each fraud pattern among them.

    Raises:
        ValueError: fewer than ten visits, no day, or a start without its zone.
    """

    seed: int = 7
    sessions: int = 2_000
    frauds: int = 6
    start: datetime = datetime(2026, 1, 5, tzinfo=UTC)
    days: int = 1

    def __post_init__(self) -> None:
        if self.sessions < 10 or self.days < 1 or self.frauds < 0 or self.start.tzinfo is None:
            raise ValueError("expected ten visits, a day, no negative number of frauds, and a start with its zone")


@dataclass(frozen=True, slots=True)
class ShopRecord:
    """One record for the stream, in order of time: a step of a visit, or a payment, which names its transaction."""

    occurred_us: int
    key: str
    data: bytes
    row: dict[str, Any] = field(repr=False)
    tx_id: str | None


@dataclass(frozen=True, slots=True)
class Shop:
    """A day or more at a shop. `truth` maps the paying wallets of planted fraud to the pattern; everybody else is honest."""

    options: ShopOptions
    records: list[ShopRecord] = field(repr=False)
    truth: dict[str, str] = field(repr=False)


def simulate_shop(options: ShopOptions) -> Shop:
    """Draw a shop's stream; the same options give the same one, bit by bit."""
    visit = _Visits(options)
    for phase in np.sort(visit.rng.random(options.sessions)):
        visit.everyday(phase)
    for number in range(options.frauds):
        for pattern in PATTERNS:
            getattr(visit, pattern)(float(visit.rng.uniform(0.3, 0.95)), number)
    return Shop(options, sorted(visit.records, key=lambda record: record.occurred_us), visit.truth)


def write_events(shop: Shop, path: Path) -> None:
    """Write every record as a row of CSV, steps and payments in one file in order of time."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.DictWriter(stream, _COLUMNS)
        rows.writeheader()
        rows.writerows(record.row for record in shop.records)


def write_fraud(shop: Shop, path: Path) -> None:
    """Write the truth apart: the paying wallets of planted fraud with their pattern."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["wallet_id", "pattern"])
        rows.writerows(shop.truth.items())


class _Visits:
    """Draws visits; every time and every choice comes from one generator."""

    def __init__(self, options: ShopOptions) -> None:
        self.rng = np.random.default_rng(options.seed)
        self.records: list[ShopRecord] = []
        self.truth: dict[str, str] = {}
        self._options = options
        self._rhythm = Rhythm(int(options.start.timestamp()), options.days)
        self._prices = np.round(np.exp(self.rng.normal(3.3, 0.9, _PRODUCTS)), 2)
        self._customers = max(5, options.sessions // 3)
        self._homes = self.rng.integers(0, len(_COUNTRIES), self._customers)
        self._mark = f"{options.seed:x}-{int(options.start.timestamp()):x}"
        self._sessions = self._payments = 0

    def everyday(self, phase: float) -> None:
        """One honest visit."""
        rng = self.rng
        customer = int(rng.integers(self._customers))
        device = f"d{customer}-{int(rng.random() < 0.2)}"
        session = self._session(phase, f"{NETWORK}:c{customer}-{self._mark}", device, _COUNTRIES[self._homes[customer]])
        product = session.browse(int(rng.integers(1, 9)))
        if product is None or rng.random() > _ADDS:
            return
        session.step(StorefrontEventKind.PRODUCT_ADDED, product)
        if rng.random() > _CHECKS_OUT:
            return
        session.step(StorefrontEventKind.CHECKOUT_STARTED)
        if rng.random() > _PAYS:
            return
        for _ in range(3):
            has_failed = rng.random() < _FAILS
            session.pay(float(self._prices[product]), "declined" if has_failed else "settled", str(rng.choice(_METHODS)))
            if not has_failed:
                return

    def card_testing(self, phase: float, number: int) -> None:
        """Many payments of next to nothing within minutes, more than half of them declined."""
        session = self._planted("card_testing", phase, number)
        for _ in range(int(self.rng.integers(8, 16))):
            session.pay(float(self.rng.uniform(0.2, 1.9)), "declined" if self.rng.random() < 0.6 else "settled", "card", pause_s=20)

    def account_takeover(self, phase: float, number: int) -> None:
        """A customer who bought at home, then buys for much from far away on a device of somebody else."""
        wallet = self._wallet("account_takeover", number)
        home = self._session(phase - 0.02, wallet, f"home-{number}", _COUNTRIES[number % len(_COUNTRIES)])
        home.step(StorefrontEventKind.CHECKOUT_STARTED)
        for _ in range(4):
            home.pay(float(self.rng.uniform(10, 60)), "settled", "card", pause_s=60)
        away = self._session(phase, wallet, f"stolen-{number}", _FAR[number % len(_FAR)])
        away.at_us = max(away.at_us, home.at_us + 600_000_000)
        away.browse(3)
        away.step(StorefrontEventKind.CHECKOUT_STARTED)
        for _ in range(2):
            away.pay(float(self.rng.uniform(600, 1_800)), "settled", "card", pause_s=90)

    def failed_payments(self, phase: float, number: int) -> None:
        """One amount tried with card after card."""
        session = self._planted("failed_payments", phase, number)
        amount = float(self.rng.uniform(60, 300))
        for at in range(int(self.rng.integers(7, 12))):
            session.pay(amount, "settled" if at == 5 else str(self.rng.choice(["declined", "failed"])), "card", pause_s=120)

    def velocity(self, phase: float, number: int) -> None:
        """A purchase every few seconds."""
        session = self._planted("velocity", phase, number)
        for _ in range(int(self.rng.integers(22, 32))):
            session.pay(float(self.rng.uniform(15, 90)), "settled", "card", pause_s=10)

    def _planted(self, pattern: str, phase: float, number: int) -> _Session:
        found = self._session(phase, self._wallet(pattern, number), f"{pattern}-{number}", _COUNTRIES[number % len(_COUNTRIES)])
        found.browse(1)
        found.step(StorefrontEventKind.CHECKOUT_STARTED)
        return found

    def _wallet(self, pattern: str, number: int) -> str:
        wallet = f"{NETWORK}:{pattern[0]}{number}-{self._mark}"
        self.truth[wallet] = pattern
        return wallet

    def _session(self, phase: float, wallet: str, device: str, country: str) -> _Session:
        self._sessions += 1
        at_us = int(self._rhythm.micros(np.array([max(0.0, phase)]))[0])
        return _Session(self, f"s{self._sessions}-{self._mark}", wallet, f"{device}-{self._mark}", country, at_us)

    def next_tx_id(self) -> str:
        self._payments += 1
        return f"{NETWORK}:{self._mark}-{self._payments}:0"

    def price(self, product: int) -> Decimal:
        return _cents(float(self._prices[product]))


class _Session:
    """One visit, which moves on in time with each step."""

    def __init__(self, visits: _Visits, session_id: str, wallet: str, device: str, country: str, at_us: int) -> None:
        self._visits, self._id, self._wallet, self._device, self._country = visits, session_id, wallet, device, country
        self.at_us = at_us
        self._steps = 0
        self.step(StorefrontEventKind.SESSION_STARTED)

    def browse(self, pages: int) -> int | None:
        """Look around; returns the last product looked at, if any."""
        product = None
        for _ in range(pages):
            if self._visits.rng.random() < 0.55:
                product = int(self._visits.rng.integers(_PRODUCTS))
                self.step(StorefrontEventKind.PRODUCT_VIEWED, product)
            else:
                self.step(StorefrontEventKind.PAGE_VIEWED)
        return product

    def step(
        self,
        kind: StorefrontEventKind,
        product: int | None = None,
        amount: Decimal | None = None,
        tx_id: str | None = None,
        pause_s: float = 25.0,
    ) -> None:
        """One step, some seconds after the one before."""
        self._pass(float(self._visits.rng.exponential(pause_s)))
        self._steps += 1
        price = self._visits.price(product) if product is not None else amount
        event = StorefrontEventRecorded(
            f"{self._id}-{self._steps}", self._id, kind, SITE, self._wallet, self._device, self._country,
            f"p{product}" if product is not None else None, _CATEGORIES[product % len(_CATEGORIES)] if product is not None else None,
            price, ASSET if price is not None else None, tx_id, EPOCH + timedelta(microseconds=self.at_us), _ORIGIN,
        )  # fmt: skip
        row = {name: plain_json(getattr(event, name)) for name in _COLUMNS if hasattr(event, name)} | {"event": kind.value}
        self._visits.records.append(ShopRecord(self.at_us, self._wallet, storefront_event_to_json(event), row, None))

    def pay(self, amount: float, status: str, method: str, pause_s: float = 15.0) -> None:
        """A payment with its steps: attempted, then either placed or not."""
        self._pass(float(self._visits.rng.exponential(pause_s)))
        tx_id, exact = self._visits.next_tx_id(), _cents(amount)
        self.step(StorefrontEventKind.PAYMENT_ATTEMPTED, amount=exact, tx_id=tx_id, pause_s=pause_s / 4)
        at = EPOCH + timedelta(microseconds=self.at_us)
        payment = {
            "tx_id": tx_id, "network": NETWORK, "kind": "payment", "status": status, "source_wallet_id": self._wallet,
            "target_wallet_id": f"{NETWORK}:{SITE}", "amount": exact, "asset": ASSET, "occurred_at": at,
            "payment.merchant_category": "retail", "payment.country": self._country, "payment.payment_method": method,
            "payment.device_id": self._device,
        }  # fmt: skip
        row = {
            "occurred_at": plain_json(at), "event": "payment", "event_id": tx_id, "session_id": self._id, "site": SITE,
            "customer_id": self._wallet, "device_id": self._device, "country": self._country, "amount": plain_json(exact), "asset": ASSET,
            "tx_id": tx_id, "status": status, "payment_method": method,
        }  # fmt: skip
        self._visits.records.append(ShopRecord(self.at_us, self._wallet, transaction_to_json(payment), row, tx_id))
        if status == "settled":
            self.step(StorefrontEventKind.ORDER_PLACED, amount=exact, tx_id=tx_id, pause_s=pause_s / 4)

    def _pass(self, seconds: float) -> None:
        self.at_us += max(1, round(seconds)) * 1_000_000


def _cents(amount: float) -> Decimal:
    return Decimal(max(1, round(amount * 100))) / 100
