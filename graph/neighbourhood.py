"""The network's input: a wallet's legs, their counterparties and the wallets two hops away, as of one transaction.

Bounded whatever the history: at most KEEP legs, and HOP_LEGS legs of counterparties in all. Nothing is a placeholder:
a wallet that has one transaction has one leg, and a leg without a counterparty has no second hop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph.features_party import N_OUTLINE, N_WITHOUT, log_seconds, outline, party_without
from graph.features_state import E_OUT, KEEP, N_EDGE, N_PARTY, Arrays
from graph.features_vector import kept_legs

ROOT_WIDTH: Final = N_OUTLINE
LEG_WIDTH: Final = N_EDGE + 1 + N_PARTY + N_WITHOUT  # edge, age, counterparty then, counterparty now without this wallet
HOP_WIDTH: Final = N_EDGE + 2 + N_OUTLINE  # edge, age, same role, the outline of the wallet at its end
HOP_LEGS: Final = 64  # second-hop legs shared by all counterparties
HOP_FLOOR: Final = 2  # but each counterparty shows at least so many
HOP_MOST: Final = max(HOP_LEGS, KEEP * HOP_FLOOR)


@dataclass(frozen=True, slots=True)
class Neighbourhoods:
    """Ragged input of the encoder for `m` (wallet, transaction) pairs.

    roots: float32 [m, ROOT_WIDTH]; legs: float32 [l, LEG_WIDTH], oldest first within a wallet; leg_root: int64 [l],
    the row of `roots` a leg belongs to; hops: float32 [h, HOP_WIDTH]; hop_leg: int64 [h], the row of `legs` whose
    counterparty a hop belongs to.
    """

    roots: NDArray[np.float32]
    legs: NDArray[np.float32]
    leg_root: NDArray[np.int64]
    hops: NDArray[np.float32]
    hop_leg: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.roots)

    def take(self, rows: NDArray[np.int64]) -> Neighbourhoods:
        """The neighbourhoods of `rows` (int64, any order, repeats allowed), renumbered."""
        legs = _spans(self.leg_root, rows, len(self.roots))
        hops = _spans(self.hop_leg, legs, len(self.legs))
        leg_counts = np.bincount(self.leg_root, minlength=len(self.roots))[rows]
        hop_counts = np.bincount(self.hop_leg, minlength=len(self.legs))[legs]
        return Neighbourhoods(
            roots=self.roots[rows],
            legs=self.legs[legs],
            leg_root=np.repeat(np.arange(len(rows)), leg_counts),
            hops=self.hops[hops],
            hop_leg=np.repeat(np.arange(len(legs)), hop_counts),
        )


def _spans(owner: NDArray[np.int64], wanted: NDArray[np.int64], owners: int) -> NDArray[np.int64]:
    """Rows of a list sorted by `owner` that belong to `wanted`, one owner's rows after another's."""
    start = np.searchsorted(owner, np.arange(owners + 1))
    counts = start[wanted + 1] - start[wanted]
    ends = np.cumsum(counts)
    rows: NDArray[np.int64] = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(start[wanted] - (ends - counts), counts)
    return rows


def concatenate(parts: list[Neighbourhoods]) -> Neighbourhoods:
    """One after another, renumbered."""
    if not parts:
        parts = [blank(0).trimmed(0)]
    root_at = np.cumsum([0, *(len(part.roots) for part in parts)])
    leg_at = np.cumsum([0, *(len(part.legs) for part in parts)])
    return Neighbourhoods(
        roots=np.concatenate([part.roots for part in parts]),
        legs=np.concatenate([part.legs for part in parts]),
        leg_root=np.concatenate([part.leg_root + at for part, at in zip(parts, root_at, strict=False)]),
        hops=np.concatenate([part.hops for part in parts]),
        hop_leg=np.concatenate([part.hop_leg + at for part, at in zip(parts, leg_at, strict=False)]),
    )


@dataclass(frozen=True, slots=True)
class Blank:
    """Room for `m` neighbourhoods, filled by `write_neighbourhood`; `used` counts legs and hops."""

    roots: NDArray[np.float32]
    legs: NDArray[np.float32]
    leg_root: NDArray[np.int64]
    hops: NDArray[np.float32]
    hop_leg: NDArray[np.int64]
    used: NDArray[np.int64]

    def trimmed(self, rows: int) -> Neighbourhoods:
        """What was filled, copied out of the room."""
        legs, hops = int(self.used[0]), int(self.used[1])
        return Neighbourhoods(
            self.roots[:rows].copy(),
            self.legs[:legs].copy(),
            self.leg_root[:legs].copy(),
            self.hops[:hops].copy(),
            self.hop_leg[:hops].copy(),
        )


def blank(rows: int) -> Blank:
    """Room for `rows` neighbourhoods of the largest size."""
    return Blank(
        np.zeros((rows, ROOT_WIDTH), np.float32),
        np.empty((rows * KEEP, LEG_WIDTH), np.float32),
        np.empty(rows * KEEP, np.int64),
        np.empty((rows * HOP_MOST, HOP_WIDTH), np.float32),
        np.empty(rows * HOP_MOST, np.int64),
        np.zeros(2, np.int64),
    )


@njit(cache=True)
def write_neighbourhood(
    arrays: Arrays,
    wallet: int,
    now: int,
    row: int,
    roots: NDArray[np.float32],
    legs: NDArray[np.float32],
    leg_root: NDArray[np.int64],
    hops: NDArray[np.float32],
    hop_leg: NDArray[np.int64],
    used: NDArray[np.int64],
) -> None:
    """Append one wallet's neighbourhood as of `now` (Unix s) and everything counted so far."""
    slots = np.empty(KEEP, np.int64)
    ring = np.empty(KEEP, np.int64)
    kept = kept_legs(arrays, wallet, slots)
    outline(arrays, wallet, now, roots[row])
    share = max(HOP_FLOOR, HOP_LEGS // kept) if kept else 0
    for i in range(kept):
        at = used[0]
        used[0] += 1
        leg_root[at] = row
        leg, slot = legs[at], slots[i]
        party = arrays.leg_party[slot]
        leg[:N_EDGE] = arrays.leg_edge[slot]
        leg[N_EDGE] = log_seconds(now, arrays.leg_time[slot])
        leg[N_EDGE + 1 : N_EDGE + 1 + N_PARTY] = arrays.leg_party_state[slot]
        if party < 0 or party == wallet:
            leg[N_EDGE + 1 + N_PARTY :] = -1.0
            continue
        party_without(arrays, party, wallet, now, leg[N_EDGE + 1 + N_PARTY :])
        later = False
        for j in range(i + 1, kept):
            later |= arrays.leg_party[slots[j]] == party
        if later:
            continue  # its second hop hangs on the latest leg with it
        shown = 0
        party_legs = kept_legs(arrays, party, ring)
        for j in range(party_legs - 1, -1, -1):
            other = arrays.leg_party[ring[j]]
            if other < 0 or other == wallet or other == party:  # noqa: SIM109 - numba compiles this
                continue
            hop = hops[used[1]]
            hop_leg[used[1]] = at
            used[1] += 1
            hop[:N_EDGE] = arrays.leg_edge[ring[j]]
            hop[N_EDGE] = log_seconds(now, arrays.leg_time[ring[j]])
            hop[N_EDGE + 1] = arrays.leg_edge[ring[j], E_OUT] != arrays.leg_edge[slot, E_OUT]
            outline(arrays, other, now, hop[N_EDGE + 2 :])
            shown += 1
            if shown >= share:
                break
