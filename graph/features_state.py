"""The arrays behind the streaming features: what is remembered of each wallet, pair, holding and asset, and how it
grows.

Everything is a flat numpy array, so that numba can compile the hot path and a snapshot is a plain archive of arrays.
Nothing here knows what a feature is.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

# A wallet keeps its first KEEP_FIRST legs for ever and its latest KEEP_LAST legs in a ring. 8 + 24 is what the
# features were tuned with; a power of two in sum, because leg blocks double in size.
KEEP_FIRST: Final = 8
KEEP_LAST: Final = 24
KEEP: Final = KEEP_FIRST + KEEP_LAST
BLOCK_CLASSES: Final = 6  # block sizes 1, 2, 4, 8, 16, 32 legs

ASSET_WINDOW: Final = 512  # amounts remembered per asset: its running quantiles
ASSET_REFRESH: Final = 64  # transactions between two sortings of that window
ASSET_ANCHOR: Final = 256  # after so many amounts an asset's unit is frozen, so that sums of it stay comparable

# Columns of `clock`: scalars of the whole state.
SEQ, WALLETS, ARENA_TOP, PAIRS, HOLDINGS, VALUES = range(6)
# Columns of `counts` (int64, one row a wallet). Times are Unix seconds, -1 = never.
(
    N_IN, N_OUT, P_IN, P_OUT, FIRST_T, LAST_T, LAST_IN_T, LAST_OUT_T, ROUND_IN, ROUND_OUT, FUNDED, BURSTS, FAILED,
    DWELLS, SWEEPS, TURNS, LAST_DIR, IN_BEFORE_OUT, WITHIN_1H, WITHIN_1D, WITHIN_7D, DAYS, LAST_DAY, BLOCK, BLOCK_CLASS,
    RECIPROCAL, SELF, MOVED_IN, MOVED_OUT, FIRST_DIR,
) = range(30)  # fmt: skip
N_COUNTS: Final = 30
# Columns of `totals` (float64, one row a wallet). V_* are sums of amounts in the asset's own unit; LV_* of log10 of
# them.
(
    V_IN, V_OUT, LV_IN, LV_OUT, LV2_IN, LV2_OUT, MAX_IN, MAX_OUT, MIN_IN, MIN_OUT, GAP_SUM, GAP_SQ, GAP_MAX, GAP_MIN,
    GAP_IN, GAP_OUT, DWELL_SUM, DWELL_SQ, DWELL_MAX, DWELL_MIN, V_BEFORE_OUT, FIRST_OUT_SHARE, FIRST_OUT_WAIT, MAX_LV,
    PEAK, FIRST_LV,
) = range(26)  # fmt: skip
N_TOTALS: Final = 26
# Columns of a leg's edge: what is known of one transaction from one wallet's side, as of that transaction.
(
    E_OUT, E_LV, E_REL, E_RANK, E_DECIMALS, E_DIGITS, E_FEE_MARK, E_FAILED, E_NEW_PARTY, E_REPEAT, E_Z, E_BURST, E_GAP,
    E_DRAIN,
) = range(14)  # fmt: skip
N_EDGE: Final = 14
N_PARTY: Final = 22  # the counterparty's state as of the transaction, before it: graph/features_vector.py


class Arrays(NamedTuple):
    """All of the state, as numba sees it. `capacity` rows are allocated, `clock` says how many are used."""

    clock: NDArray[np.int64]
    counts: NDArray[np.int64]
    totals: NDArray[np.float64]
    leg_time: NDArray[np.int64]
    leg_party: NDArray[np.int64]
    leg_edge: NDArray[np.float32]
    leg_party_state: NDArray[np.float32]
    free: NDArray[np.int64]
    pair_key: NDArray[np.int64]
    pair_sum: NDArray[np.float64]
    holding_key: NDArray[np.int64]
    holding: NDArray[np.float64]
    asset_count: NDArray[np.int64]
    asset_unit: NDArray[np.float64]
    asset_ring: NDArray[np.float64]
    asset_sorted: NDArray[np.float64]
    value_count: NDArray[np.int64]


def empty() -> Arrays:
    """A state that has seen nothing."""
    clock = np.zeros(8, np.int64)
    return Arrays(
        clock=clock,
        counts=np.zeros((0, N_COUNTS), np.int64),
        totals=np.zeros((0, N_TOTALS), np.float64),
        leg_time=np.zeros(0, np.int64),
        leg_party=np.zeros(0, np.int64),
        leg_edge=np.zeros((0, N_EDGE), np.float32),
        leg_party_state=np.zeros((0, N_PARTY), np.float32),
        free=np.full(BLOCK_CLASSES, -1, np.int64),
        pair_key=np.full(1024, -1, np.int64),
        pair_sum=np.zeros((1024, 3), np.float64),
        holding_key=np.full(1024, -1, np.int64),
        holding=np.zeros((1024, 2), np.float64),
        asset_count=np.zeros(0, np.int64),
        asset_unit=np.zeros((0, 2), np.float64),
        asset_ring=np.zeros((0, ASSET_WINDOW), np.float64),
        asset_sorted=np.zeros((0, ASSET_WINDOW), np.float64),
        value_count=np.zeros(0, np.int64),
    )


def grown(arrays: Arrays, wallets: int, assets: int, values: int, transactions: int) -> Arrays:
    """The same state with room for `transactions` more, whatever they do.

    Arguments: wallets, assets, values: how many there will be in all afterwards; transactions: how many are about to be
    observed. A transaction has two legs, each of which may take one block of KEEP legs, two pairs and two holdings at
    most.
    """
    changes: dict[str, Any] = {}
    if wallets > len(arrays.counts):
        capacity = max(1024, 2 * wallets)
        counts = _longer(arrays.counts, capacity)
        counts[len(arrays.counts) :, [FIRST_T, LAST_T, LAST_IN_T, LAST_OUT_T, LAST_DAY, BLOCK, LAST_DIR, FIRST_DIR]] = -1
        changes |= {"counts": counts, "totals": _longer(arrays.totals, capacity)}
    arena = int(arrays.clock[ARENA_TOP]) + 2 * KEEP * transactions
    if arena > len(arrays.leg_time):
        capacity = max(4096, arena, int(1.5 * len(arrays.leg_time)))
        for name in ("leg_time", "leg_party", "leg_edge", "leg_party_state"):
            changes[name] = _longer(getattr(arrays, name), capacity)
    if assets > len(arrays.asset_count):
        capacity = max(4, 2 * assets)
        for name in ("asset_count", "asset_unit", "asset_ring", "asset_sorted"):
            changes[name] = _longer(getattr(arrays, name), capacity)
    if values > len(arrays.value_count):
        changes["value_count"] = _longer(arrays.value_count, max(64, 2 * values))
    for used, key_name, value_name in ((PAIRS, "pair_key", "pair_sum"), (HOLDINGS, "holding_key", "holding")):
        need = 2 * (int(arrays.clock[used]) + 2 * transactions)
        keys, rows = getattr(arrays, key_name), getattr(arrays, value_name)
        if need > len(keys):
            capacity = 1 << (need - 1).bit_length()
            new_keys = np.full(capacity, -1, np.int64)
            new_rows = np.zeros((capacity, rows.shape[1]), np.float64)
            rehash(keys, rows, new_keys, new_rows)
            changes |= {key_name: new_keys, value_name: new_rows}
    return arrays._replace(**changes) if changes else arrays


def _longer(array: NDArray[Any], capacity: int) -> NDArray[Any]:
    longer = np.zeros((capacity, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


@njit(cache=True)
def slot_of(keys: NDArray[np.int64], key: int) -> int:
    """Where `key` lies in an open-addressing table, or where it would go (the key there is then -1)."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    mask = np.uint64(len(keys) - 1)
    slot = (mixed ^ (mixed >> np.uint64(29))) & mask
    while keys[slot] != -1 and keys[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return int(np.int64(slot))


@njit(cache=True)
def rehash(keys: NDArray[np.int64], rows: NDArray[np.float64], new_keys: NDArray[np.int64], new_rows: NDArray[np.float64]) -> None:
    """Copy a table into a larger, empty one."""
    for old in range(len(keys)):
        if keys[old] != -1:
            slot = slot_of(new_keys, keys[old])
            new_keys[slot] = keys[old]
            new_rows[slot] = rows[old]


@njit(cache=True)
def leg_slot(arrays: Arrays, wallet: int, ordinal: int) -> int:
    """Where the arena holds the wallet's leg number `ordinal` (0 = first); the caller knows that it is still kept."""
    at = ordinal if ordinal < KEEP_FIRST else KEEP_FIRST + (ordinal - KEEP_FIRST) % KEEP_LAST
    return int(arrays.counts[wallet, BLOCK] + at)


@njit(cache=True)
def room_for_leg(arrays: Arrays, wallet: int, ordinal: int) -> int:
    """The arena slot for the wallet's next leg, number `ordinal`; its block doubles when full, up to KEEP legs."""
    counts = arrays.counts
    if ordinal < KEEP:
        block = counts[wallet, BLOCK]
        size = 0 if block < 0 else 1 << counts[wallet, BLOCK_CLASS]
        if ordinal >= size:
            grade = 0 if block < 0 else counts[wallet, BLOCK_CLASS] + 1
            fresh = arrays.free[grade]
            if fresh >= 0:
                arrays.free[grade] = arrays.leg_party[fresh]  # a free block links to the next one
            else:
                fresh = arrays.clock[ARENA_TOP]
                arrays.clock[ARENA_TOP] += 1 << grade
            for leg in range(size):
                arrays.leg_time[fresh + leg] = arrays.leg_time[block + leg]
                arrays.leg_party[fresh + leg] = arrays.leg_party[block + leg]
                arrays.leg_edge[fresh + leg] = arrays.leg_edge[block + leg]
                arrays.leg_party_state[fresh + leg] = arrays.leg_party_state[block + leg]
            if block >= 0:
                arrays.leg_party[block] = arrays.free[grade - 1]
                arrays.free[grade - 1] = block
            counts[wallet, BLOCK] = fresh
            counts[wallet, BLOCK_CLASS] = grade
    return leg_slot(arrays, wallet, ordinal)
