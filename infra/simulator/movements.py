"""Movements of value before they are transactions: parallel arrays, and the everyday ones between ordinary people."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from infra.simulator.population import CONTACTS, Population

TRANSFER, TRADE, DEPOSIT, WITHDRAWAL, PAYMENT = range(5)
KIND_NAMES = ("transfer", "trade", "deposit", "withdrawal", "payment")
NO_SCHEME = -1

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]
# What a wallet does next; the rest is a transfer.
_DEPOSITS, _WITHDRAWALS, _TRADES = 0.12, 0.12, 0.06
_QUIET_MULES, _QUIET = 0.7, 0.15  # this share of the mules does so little beside
_TO_CONTACT = 0.55  # of the transfers; the rest goes to anyone, the older the likelier


@dataclass(frozen=True, slots=True)
class Movements:
    """n movements: wallet indexes, phase in [0, 1), amount in units, decimals it is rounded to, kind, scheme or -1."""

    source: _Ints
    target: _Ints
    phase: _Floats
    amount: _Floats
    decimals: _Ints
    kind: _Ints
    scheme: _Ints

    def __len__(self) -> int:
        return len(self.source)

    @classmethod
    def joined(cls, parts: list[Movements]) -> Movements:
        """All parts in one, in their order."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def take(self, order: _Ints) -> Movements:
        """The movements at `order` [m]."""
        return Movements(*(getattr(self, f.name)[order] for f in fields(self)))


def everyday(rng: np.random.Generator, people: Population, count: int, mules: npt.NDArray[np.bool_]) -> Movements:
    """Ordinary life on the chain: few wallets do most of it, most pay those they know, exchanges are hubs.

    Args:
        mules: [ordinary] members of schemes, most of which have little life of their own.
    """
    weight = rng.pareto(1.3, people.ordinary) + 0.3
    weight[mules & (rng.random(people.ordinary) < _QUIET_MULES)] *= _QUIET
    source = np.sort(rng.choice(people.ordinary, count, p=weight / weight.sum()))
    room = 1.0 - people.birth[source]
    phase = people.birth[source] + rng.random(count) * np.minimum(people.lifetime[source], room)
    phase = np.minimum(phase, np.nextafter(1.0, 0.0))
    contact = people.contacts[source, rng.integers(0, CONTACTS, count)]
    alive = np.maximum(people.born_by(phase), 1)
    anyone = (alive * rng.random(count) ** 2.5).astype(np.int64)  # preferential: the old collect the most
    target = np.where((rng.random(count) < _TO_CONTACT) & (contact < alive), contact, anyone)
    target = np.where((target == source) & (rng.random(count) < 0.97), (target + 1) % people.ordinary, target)
    draw = rng.random(count)
    kind = np.full(count, TRANSFER)
    kind[draw < _DEPOSITS + _WITHDRAWALS + _TRADES] = TRADE
    kind[draw < _DEPOSITS + _WITHDRAWALS] = WITHDRAWAL
    kind[draw < _DEPOSITS] = DEPOSIT
    exchange = people.first_exchange + zipf(rng, people.exchanges, count)
    amount = people.size[source] * np.exp(rng.normal(0.0, 0.9, count))
    is_out = kind == WITHDRAWAL
    wallet = source.astype(np.int64)
    source = np.where(is_out, exchange, wallet)
    target = np.where(is_out, wallet, np.where(kind == TRANSFER, target, exchange))
    return Movements(source, target, phase, amount, people.decimals[wallet], kind, np.full(count, NO_SCHEME))


def card_payments(rng: np.random.Generator, people: Population, count: int) -> Movements:
    """Cards pay merchants; a card keeps to a few of them, and some merchants are far larger than others."""
    card = rng.integers(0, max(1, people.cards), count)
    usual = (card[:, None] * np.array([7919, 104729, 1299709]) % max(1, people.merchants))[np.arange(count), rng.integers(0, 3, count)]
    merchant = np.where(rng.random(count) < 0.5, usual, zipf(rng, people.merchants, count))
    amount = np.exp(rng.normal(3.2, 1.1, count))
    return Movements(
        people.first_card + card, people.first_merchant + merchant, rng.random(count), amount,
        np.full(count, 2), np.full(count, PAYMENT), np.full(count, NO_SCHEME),
    )  # fmt: skip


def zipf(rng: np.random.Generator, n: int, count: int) -> _Ints:
    """`count` indexes below `n`, the k-th as likely as 1/k."""
    weight = 1.0 / np.arange(1, n + 1)
    return rng.choice(n, count, p=weight / weight.sum())
