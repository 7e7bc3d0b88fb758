"""A seeded stream of transactions with planted schemes, and the truth about it, kept apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.simulator.movements import KIND_NAMES, PAYMENT, TRADE, WITHDRAWAL, Movements, card_payments, everyday
from infra.simulator.population import CARD, CHAIN, hex_ids, people
from infra.simulator.rhythm import Rhythm
from infra.simulator.schemes import Scheme, plant

_Ints = npt.NDArray[np.int64]
_ASSETS = np.array(["ETH", "USDT", "BTC"])
_ASSET_PRICE = np.array([1.0, 300.0, 0.05])  # what one unit of size is worth in units of the asset
_CATEGORIES = ("groceries", "restaurants", "travel", "electronics", "fuel", "health", "clothing", "games")
_COUNTRIES = ("DE", "FR", "NL", "US", "GB", "ES", "PL", "IT")
_GRAIN = 9  # decimals that amounts are drawn with; the log has 18
_FAILED, _DECLINED = 0.012, 0.02  # shares of transfers that are reverted and of card payments that are refused


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """What to simulate.

    Args:
        seed: the same options and seed give the same stream, bit by bit.
        count: transactions.
        fraud_share: share of the transactions that belong to illicit schemes; look-alikes make as many.
        card_share: share that are card payments.
        start: when the stream begins.
        days: how long it lasts.

    Raises:
        ValueError: a share outside [0, 0.4], or a count below 100.
    """

    seed: int = 7
    count: int = 60_000
    fraud_share: float = 0.08
    card_share: float = 0.08
    start: datetime = datetime(2023, 1, 2, tzinfo=UTC)
    days: int = 180

    def __post_init__(self) -> None:
        if not (0 <= self.fraud_share <= 0.4 and 0 <= self.card_share <= 0.4):
            raise ValueError(f"expected shares in [0, 0.4], found {self.fraud_share} and {self.card_share}")
        if self.count < 100 or self.days < 1:
            raise ValueError(f"expected 100 transactions and a day at least, found {self.count} and {self.days}")
        if self.start.tzinfo is None:
            raise ValueError("expected a start with its zone, found one without")


@dataclass(frozen=True, slots=True)
class SchemeTruth:
    """One planted scheme or look-alike: who, which transactions, from when to when."""

    scheme_id: int
    typology: str
    is_illicit: bool
    wallet_ids: tuple[str, ...]
    tx_ids: tuple[str, ...]
    first_occurred_at: datetime
    last_occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Simulation:
    """A stream in order of time, as columns of the flattened `TransactionRecorded`, and what is true about it.

    `labels` maps wallet ids to "illicit" (members of schemes) and "licit" (as many: members of look-alikes and others
    that take part in the stream); no other wallet has a label.
    """

    options: SimulatorOptions
    table: pa.Table = field(repr=False)
    labels: dict[str, str] = field(repr=False)
    schemes: list[SchemeTruth] = field(repr=False)


def simulate(options: SimulatorOptions, ingest_id: str = "simulation") -> Simulation:
    """Draw a stream.

    Args:
        ingest_id: goes into each transaction's origin.
    """
    rng = np.random.default_rng(options.seed)
    count = options.count
    crowd = people(rng, max(60, count // 4), 12, max(20, count // 40), max(8, count // 400))
    used = np.zeros(crowd.ordinary, np.bool_)
    planted = int(options.fraud_share * count)
    illicit, bad = plant(rng, crowd, planted, True, used, 0) if planted else (None, [])
    mules = used.copy()
    licit, good = plant(rng, crowd, planted, False, used, len(bad)) if planted else (None, [])
    parts = [part for part in (illicit, licit) if part is not None]
    cards = int(options.card_share * count)
    rest = count - cards - sum(map(len, parts))
    parts += [everyday(rng, crowd, max(0, rest), mules), card_payments(rng, crowd, cards)]
    movements = Movements.joined(parts)
    movements = movements.take(np.argsort(movements.phase, kind="stable"))
    micros = Rhythm(int(options.start.timestamp()), options.days).micros(movements.phase)
    # Schemes are whole, so the last ones may have gone past the count.
    movements, micros = movements.take(np.arange(min(count, len(movements)))), micros[:count]
    table = _table(rng, movements, micros, crowd.ids, options, ingest_id)
    schemes = [*bad, *good]
    return Simulation(options, table, _labels(rng, movements, schemes, crowd.ids, crowd.ordinary),
                      _truth(movements, schemes, table, crowd.ids))  # fmt: skip


def _table(rng: np.random.Generator, moved: Movements, micros: _Ints, ids: pa.Array, options: SimulatorOptions, ingest_id: str) -> pa.Table:
    n = len(moved)
    is_card = moved.kind == PAYMENT
    network = pa.array(np.array([CHAIN, CARD]))
    # A wallet keeps to its asset, and a scheme to one for all its members.
    usual = rng.choice(3, len(ids), p=[0.8, 0.12, 0.08])
    wallet = np.where(moved.kind == WITHDRAWAL, moved.target, moved.source)
    of_scheme = rng.choice(3, int(moved.scheme.max(initial=-1)) + 2, p=[0.8, 0.12, 0.08])
    asset_of = np.where(moved.scheme >= 0, of_scheme[moved.scheme], usual[wallet])
    asset_of = np.where(is_card, 3, asset_of)
    price = np.concatenate([_ASSET_PRICE, [1.0]])[asset_of]
    is_trade = moved.kind == TRADE
    amount = _rounded(moved.amount * price, moved.decimals)
    other = np.where(asset_of == 1, 0, 1)
    counter_price = np.concatenate([_ASSET_PRICE, [1.0]])[other] / price
    counter = _rounded(amount / 10**_GRAIN * counter_price * np.exp(rng.normal(0, 0.02, n)), np.full(n, 6))
    assets = pa.array(np.concatenate([_ASSETS, ["EUR"]]))
    draw = rng.random(n)
    status = np.where(is_card & (draw < _DECLINED), 2, np.where(~is_card & (draw < _FAILED), 1, 0))
    category = (moved.target * 2654435761 % len(_CATEGORIES)).astype(np.int64)
    country = (moved.source * 40503 % 97 % len(_COUNTRIES)).astype(np.int64)
    chain_ids = hex_ids(rng, f"{CHAIN}:0x", n, 32, ":0")
    card_ids = hex_ids(rng, f"{CARD}:", int(is_card.sum()), 16, ":0")
    place = np.where(is_card, n + np.cumsum(is_card) - 1, np.arange(n))
    devices = hex_ids(rng, "", len(ids), 16)
    table = pa.table(
        {
            "tx_id": pa.concat_arrays([chain_ids, card_ids]).take(pa.array(place)),
            "network": network.take(pa.array(is_card.astype(np.int64))),
            "kind": pa.array(KIND_NAMES).take(pa.array(moved.kind)),
            "status": pa.array(["settled", "failed", "declined"]).take(pa.array(status)),
            "source_wallet_id": ids.take(pa.array(moved.source)),
            "target_wallet_id": ids.take(pa.array(moved.target)),
            "amount": _decimals(amount, np.zeros(n, np.bool_)),
            "asset": assets.take(pa.array(asset_of)),
            "counter_amount": _decimals(counter, ~is_trade),
            "counter_asset": assets.take(pa.array(other, mask=~is_trade)),
            "occurred_at": pa.array(micros).cast(pa.timestamp("us", tz="UTC")),
            "block": pa.array((micros - micros[0]) // 13_000_000 if n else micros, mask=is_card),  # one in 13 s
            "payment.merchant_category": pa.array(_CATEGORIES).take(pa.array(category, mask=~is_card)),
            "payment.country": pa.array(_COUNTRIES).take(pa.array(country, mask=~is_card)),
            "payment.payment_method": pa.array(["card"]).take(pa.array(np.zeros(n, np.int64), mask=~is_card)),
            "payment.device_id": devices.take(pa.array(moved.source, mask=~is_card)),
        }
    )
    origin = {
        "origin.source": pa.repeat(f"simulator seed {options.seed}", n), "origin.mapping": pa.repeat("", n),
        "origin.ingest_id": pa.repeat(ingest_id, n), "origin.row": pa.array(np.arange(n)),
    }  # fmt: skip
    for name, column in origin.items():
        table = table.append_column(name, column)
    return table


def _rounded(amount: npt.NDArray[np.float64], decimals: _Ints) -> _Ints:
    """Amounts in units as whole grains of 10^-9, rounded to so many decimals, never zero."""
    step = 10.0 ** (_GRAIN - decimals)
    grains = np.maximum(np.rint(np.minimum(amount, 9e9) * 10**_GRAIN / step), 1.0) * step
    whole: _Ints = grains.astype(np.int64)
    return whole


def _decimals(grains: _Ints, is_null: npt.NDArray[np.bool_]) -> pa.Array:
    """Whole grains as decimal128(38, 18), by a product of 64 and 30 bits in two words."""
    factor = np.uint64(10 ** (18 - _GRAIN))
    value = grains.astype(np.uint64)
    low = (value & np.uint64(0xFFFFFFFF)) * factor
    high = (value >> np.uint64(32)) * factor + (low >> np.uint64(32))
    words = np.stack(
        [(high << np.uint64(32)) | (low & np.uint64(0xFFFFFFFF)), high >> np.uint64(32)], axis=1
    )  # fmt: skip
    bitmap = pa.py_buffer(np.packbits(~is_null, bitorder="little")) if is_null.any() else None
    return pa.Array.from_buffers(pa.decimal128(38, 18), len(grains), [bitmap, pa.py_buffer(words)])


def _labels(rng: np.random.Generator, moved: Movements, schemes: list[Scheme], ids: pa.Array, ordinary: int) -> dict[str, str]:
    appearing = np.zeros(len(ids), np.bool_)
    appearing[moved.source] = True
    appearing[moved.target] = True
    bad = _wallets([scheme for scheme in schemes if scheme.is_illicit])
    bad = bad[appearing[bad]]
    alike = _wallets([scheme for scheme in schemes if not scheme.is_illicit])
    alike = rng.permutation(alike[appearing[alike]])[: len(bad) // 2]
    others = np.flatnonzero(appearing[:ordinary])
    others = rng.permutation(np.setdiff1d(others, np.concatenate([bad, _wallets(schemes)])))
    honest = np.concatenate([alike, others[: len(bad) - len(alike)]])
    names = np.concatenate([bad, honest]).astype(np.int64)
    order = rng.permutation(len(names))  # so that the file's order says nothing either
    found = ids.take(pa.array(names[order])).to_pylist()
    return {name: "illicit" if place < len(bad) else "licit" for name, place in zip(found, order.tolist(), strict=True)}


def _wallets(schemes: list[Scheme]) -> _Ints:
    found = [scheme.wallets for scheme in schemes]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


def _truth(moved: Movements, schemes: list[Scheme], table: pa.Table, ids: pa.Array) -> list[SchemeTruth]:
    rows = np.flatnonzero(moved.scheme >= 0)
    order = rows[np.argsort(moved.scheme[rows], kind="stable")]
    bounds = np.searchsorted(moved.scheme[order], np.arange(len(schemes) + 1))
    part = table.select(["tx_id", "occurred_at"]).take(pa.array(order))
    tx_ids, times = part.column("tx_id").to_pylist(), part.column("occurred_at").to_pylist()
    found = []
    for number, scheme in enumerate(schemes):
        start, end = int(bounds[number]), int(bounds[number + 1])
        if start == end:
            continue  # it lies past the count
        wallets = tuple(ids.take(pa.array(scheme.wallets)).to_pylist())
        found.append(
            SchemeTruth(
                number,
                scheme.typology,
                scheme.is_illicit,
                wallets,
                tuple(tx_ids[start:end]),
                times[start],
                times[end - 1],
            )
        )
    return found
