"""Who takes part: ordinary wallets, exchanges, cards and merchants, each with a birth, a lifetime, a size and contacts.

Ids are random hexadecimal digits drawn alike for everyone, so nothing can be read from an id or its order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

CHAIN, CARD = "chain", "card"
"""The two networks: on the chain what happened is recorded; card payments ask first."""
CONTACTS = 4  # wallets that an ordinary wallet pays again and again

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Population:
    """Wallets by index: first ordinary ones in order of birth, then exchanges, cards, merchants.

    `birth` and `lifetime` are phases of the interval [ordinary]; `size` [ordinary] is the median of a wallet's amounts;
    `decimals` [ordinary] how finely it rounds; `contacts` [ordinary, CONTACTS] are indexes.
    """

    ordinary: int
    exchanges: int
    cards: int
    merchants: int
    birth: _Floats
    lifetime: _Floats
    size: _Floats
    decimals: _Ints
    contacts: _Ints
    ids: pa.Array

    @property
    def first_exchange(self) -> int:
        return self.ordinary

    @property
    def first_card(self) -> int:
        return self.ordinary + self.exchanges

    @property
    def first_merchant(self) -> int:
        return self.first_card + self.cards

    def born_by(self, phase: _Floats) -> _Ints:
        """How many ordinary wallets are there at each phase [n]: those with a smaller index."""
        return np.searchsorted(self.birth, phase, side="right")


def people(rng: np.random.Generator, ordinary: int, exchanges: int, cards: int, merchants: int) -> Population:
    """Draw a population; a fifth of the ordinary wallets are there from the start, the others come along the way."""
    birth = np.sort(np.where(rng.random(ordinary) < 0.2, 0.0, rng.random(ordinary)))
    lifetime = np.clip(rng.exponential(0.25, ordinary), 0.002, 1.0)
    size = np.exp(rng.normal(-0.5, 1.6, ordinary))  # units of the asset: from hundredths to thousands
    decimals = rng.choice(np.array([1, 2, 4, 9]), ordinary, p=[0.2, 0.35, 0.2, 0.25])
    index = np.arange(ordinary)
    # Contacts are born before or soon after: an index near one's own, or among the old and well connected.
    near = index[:, None] - rng.integers(-20, 200, (ordinary, CONTACTS))
    old = (index[:, None] * rng.random((ordinary, CONTACTS)) ** 3).astype(np.int64)
    contacts = np.clip(np.where(rng.random((ordinary, CONTACTS)) < 0.7, near, old), 0, max(0, ordinary - 1))
    ids = pa.concat_arrays(
        [
            hex_ids(rng, f"{CHAIN}:0x", ordinary + exchanges, 20),
            hex_ids(rng, f"{CARD}:", cards + merchants, 16),
        ]
    )
    return Population(ordinary, exchanges, cards, merchants, birth, lifetime, size, decimals, contacts, ids)


_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def hex_ids(rng: np.random.Generator, prefix: str, n: int, size: int, suffix: str = "") -> pa.Array:
    """`n` texts of `prefix`, 2 * `size` random hex digits and `suffix`, as pa.string."""
    head, tail = np.frombuffer(prefix.encode(), np.uint8), np.frombuffer(suffix.encode(), np.uint8)
    width = len(head) + 2 * size + len(tail)
    text = np.empty((n, width), np.uint8)
    text[:, : len(head)] = head
    raw = np.frombuffer(rng.bytes(n * size), np.uint8).reshape(n, size)
    text[:, len(head) : len(head) + 2 * size : 2] = _HEX[raw >> 4]
    text[:, len(head) + 1 : len(head) + 2 * size : 2] = _HEX[raw & 15]
    text[:, len(head) + 2 * size :] = tail
    offsets = np.arange(n + 1, dtype=np.int64) * width
    large = pa.Array.from_buffers(pa.large_string(), n, [None, pa.py_buffer(offsets), pa.py_buffer(text.reshape(-1))])
    return large.cast(pa.string())
