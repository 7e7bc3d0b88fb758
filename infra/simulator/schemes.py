"""Planted schemes and their benign look-alikes: the same shapes, told apart by how value goes through them.

In a scheme value is passed on soon and nearly whole, between wallets with little past together. A look-alike has the
same degrees, amounts and hours, but its value stays longer and is passed on in part, between wallets with a past.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.simulator.movements import DEPOSIT, TRANSFER, WITHDRAWAL, Movements, zipf
from infra.simulator.population import Population

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

# What tells a scheme from its look-alike, each with a wide overlap: medians of how long it lasts as a share of the
# interval, the share of wallets that came lately, and of those that are funded for it.
_SPAN_ILLICIT, _SPAN_LICIT = 0.006, 0.04
_NEWCOMERS_ILLICIT, _NEWCOMERS_LICIT = 0.75, 0.35
_FUNDED_ILLICIT, _FUNDED_LICIT = 0.45, 0.15


@dataclass(frozen=True, slots=True)
class Scheme:
    """One planted instance: its shape's name, whether it is illicit, its wallets (exchanges are bystanders)."""

    typology: str
    is_illicit: bool
    wallets: _Ints


@dataclass(slots=True)
class _Plot:
    """What a shape is drawn with: its members, its interval, its size, and the edges drawn so far."""

    rng: np.random.Generator
    exchanges: range
    is_illicit: bool
    start: float
    span: float
    size: float
    edges: list[tuple[int, int, float, float, int]]

    def pay(self, source: int, target: int, at: float, amount: float, kind: int = TRANSFER) -> None:
        """An edge at `at` in [0, 1) of the interval."""
        self.edges.append((int(source), int(target), self.start + at * self.span, amount, kind))

    def soon(self, at: float, left: float) -> float:
        """When value that came at `at` goes on, of `left` steps to come: soon in a scheme, any time in a look-alike."""
        room = (0.999 - at) / max(left, 1.0)
        return at + room * float(self.rng.random() * 0.25 if self.is_illicit else self.rng.random() ** 0.7)

    def kept(self) -> float:
        """The share of value that is passed on: nearly all of it in a scheme."""
        return float(self.rng.uniform(0.9, 1.0) if self.is_illicit else self.rng.uniform(0.15, 1.1))

    def varied(self, n: int) -> _Floats:
        """`n` amounts around the plot's size."""
        return self.size * np.exp(self.rng.normal(0.0, 0.45, n))

    def exchange(self) -> int:
        """An exchange, the large ones more often."""
        return self.exchanges[int(zipf(self.rng, len(self.exchanges), 1)[0])]


def _fund(plot: _Plot, w: _Ints) -> None:
    """Some members get their first value from an exchange: nearly all who came for the scheme, few others."""
    share = _FUNDED_ILLICIT if plot.is_illicit else _FUNDED_LICIT
    for wallet, amount in zip(w, plot.varied(len(w)), strict=True):
        if plot.rng.random() < share:
            plot.pay(plot.exchange(), wallet, 0.001, float(amount), WITHDRAWAL)


def _fan_in(plot: _Plot, w: _Ints) -> None:
    amounts = plot.varied(len(w) - 1)
    times = np.sort(plot.rng.random(len(w) - 1)) * 0.7
    for source, amount, at in zip(w[1:], amounts, times, strict=True):
        plot.pay(source, w[0], float(at), float(amount))
    at = plot.soon(0.7, 1)
    plot.pay(w[0], plot.exchange(), at, float(amounts.sum()) * plot.kept(), DEPOSIT)


def _fan_out(plot: _Plot, w: _Ints) -> None:
    amounts = plot.varied(len(w) - 1)
    plot.pay(plot.exchange(), w[0], 0.02, float(amounts.sum()) / max(plot.kept(), 0.3), WITHDRAWAL)
    rounds = 1 if plot.is_illicit else int(plot.rng.integers(1, 4))  # wages come again
    for turn in range(rounds):
        for target, amount in zip(w[1:], amounts / rounds, strict=True):
            at = 0.05 + (turn + plot.rng.random() * (0.5 if plot.is_illicit else 0.9)) * 0.9 / rounds
            plot.pay(w[0], target, float(at), float(amount * np.exp(plot.rng.normal(0, 0.1))))


def _cycle(plot: _Plot, w: _Ints) -> None:
    amount, at = float(plot.varied(1)[0]), 0.01
    for step in range(len(w)):
        plot.pay(w[step], w[(step + 1) % len(w)], at, amount)
        amount *= plot.kept()
        at = plot.soon(at, len(w) - step)


def _scatter_gather(plot: _Plot, w: _Ints) -> None:
    for middle, amount in zip(w[2:], plot.varied(len(w) - 2), strict=True):
        at = float(plot.rng.random() * 0.4)
        plot.pay(w[0], middle, at, float(amount))
        plot.pay(middle, w[1], plot.soon(at, 1), float(amount) * plot.kept())


def _gather_scatter(plot: _Plot, w: _Ints) -> None:
    half = (len(w) - 1) // 2
    amounts = plot.varied(half)
    for source, amount in zip(w[1 : 1 + half], amounts, strict=True):
        plot.pay(source, w[0], float(plot.rng.random() * 0.45), float(amount))
    outs = w[1 + half :]
    shares = plot.rng.dirichlet(np.full(len(outs), 5.0))
    for target, share in zip(outs, shares, strict=True):
        plot.pay(w[0], target, plot.soon(0.45, 1), float(amounts.sum() * share) * plot.kept())


def _stack(plot: _Plot, w: _Ints) -> None:
    layers = np.array_split(w, 3)
    amounts = plot.varied(len(layers[0]) * 2)
    at = plot.rng.random(len(amounts)) * 0.3
    for i, amount in enumerate(amounts):
        source, middle = layers[0][i % len(layers[0])], layers[1][i % len(layers[1])]
        last = layers[2][(i * 2 + 1) % len(layers[2])]
        plot.pay(source, middle, float(at[i]), float(amount))
        plot.pay(middle, last, plot.soon(float(at[i]), 1), float(amount) * plot.kept())


_Draw = Callable[[_Plot, _Ints], None]
TYPOLOGIES: dict[str, tuple[_Draw, int, int]] = {
    "fan_in": (_fan_in, 4, 12),
    "fan_out": (_fan_out, 4, 12),
    "cycle": (_cycle, 3, 8),
    "scatter_gather": (_scatter_gather, 5, 11),
    "gather_scatter": (_gather_scatter, 5, 12),
    "stack": (_stack, 6, 12),
}
"""Each shape with the smallest and largest number of its wallets."""
LOOK_ALIKES: dict[str, str] = {
    "fan_in": "merchant", "fan_out": "payroll", "cycle": "exchange_cycle", "scatter_gather": "supply_chain",
    "gather_scatter": "club", "stack": "wholesale",
}  # fmt: skip
"""What the same shape is in honest life."""


def drawn(rng: np.random.Generator, typology: str, wallets: int, exchanges: int, size: float) -> list[tuple[int, int, float, float, int]]:
    """One illicit scheme by itself: edges (source, target, time in [0, 1), amount, kind), in order of time.

    Args:
        typology: one of `TYPOLOGIES`.
        wallets: members, numbered from 0; exchanges follow them.
        size: what one movement is around.
    """
    plot = _Plot(rng, range(wallets, wallets + exchanges), True, 0.0, 1.0, size, [])
    members = np.arange(wallets)
    _fund(plot, members)
    TYPOLOGIES[typology][0](plot, members)
    return sorted(plot.edges, key=lambda edge: edge[2])


def plant(
    rng: np.random.Generator, people: Population, transactions: int, is_illicit: bool, used: npt.NDArray[np.bool_],
    first_scheme: int,
) -> tuple[Movements, list[Scheme]]:  # fmt: skip
    """Plant schemes until they have made at least `transactions` movements, or wallets run out.

    Args:
        used: [ordinary] wallets that are in a scheme already; grows.
        first_scheme: the number of the first one.
    """
    schemes: list[Scheme] = []
    parts: list[_Plot] = []
    exchanges = range(people.first_exchange, people.first_exchange + people.exchanges)
    names = list(TYPOLOGIES)
    total = 0
    while total < transactions:
        typology = names[int(rng.integers(0, len(names)))]
        draw, low, high = TYPOLOGIES[typology]
        start = float(rng.random() * 0.97)
        newcomers = _NEWCOMERS_ILLICIT if is_illicit else _NEWCOMERS_LICIT
        wallets = _members(rng, people, int(rng.integers(low, high + 1)), start, used, newcomers)
        if len(wallets) < low:
            break
        median = _SPAN_ILLICIT if is_illicit else _SPAN_LICIT
        span = float(min(median * np.exp(rng.normal(0.0, 0.8)), 0.999 - start))
        size = float(np.exp(rng.normal(0.0 if is_illicit else -0.3, 1.5)))
        plot = _Plot(rng, exchanges, is_illicit, start, span, size, [])
        _fund(plot, wallets)
        rounds = int(rng.integers(1, 4 if is_illicit else 3))
        for turn in range(rounds):
            plot.start, plot.span = start + span * turn / rounds, span / rounds
            draw(plot, wallets)
        parts.append(plot)
        schemes.append(Scheme(typology if is_illicit else LOOK_ALIKES[typology], is_illicit, wallets))
        total += len(plot.edges)
    edges = np.array([edge for plot in parts for edge in plot.edges], np.float64).reshape(-1, 5)
    numbers = np.repeat(np.arange(len(parts)) + first_scheme, [len(plot.edges) for plot in parts])
    decimals = rng.choice(np.array([1, 2, 4, 9]), len(edges), p=[0.2, 0.35, 0.2, 0.25])
    source, target, kind = (edges[:, column].astype(np.int64) for column in (0, 1, 4))
    return Movements(source, target, edges[:, 2], edges[:, 3], decimals, kind, numbers.astype(np.int64)), schemes


def _members(rng: np.random.Generator, people: Population, n: int, start: float, used: npt.NDArray[np.bool_], newcomers: float) -> _Ints:
    """`n` wallets that are there at `start` and in no other scheme: a share newly come, the rest from all before."""
    alive = int(people.born_by(np.array([start]))[0])
    recent = alive - 1 - (rng.random(3 * n) ** 2 * min(alive, 400)).astype(np.int64)
    anyone = (rng.random(3 * n) * alive).astype(np.int64)
    candidates = np.where(rng.random(3 * n) < newcomers, recent, anyone)
    candidates = np.unique(candidates[(candidates >= 0) & (candidates < people.ordinary)])
    candidates = candidates[~used[candidates]]
    chosen = rng.permutation(candidates)[:n]
    used[chosen] = True
    return chosen
