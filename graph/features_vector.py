"""A wallet's feature vector as of, and including, the transaction just counted: groups written one after another.

Each group has one writer and one block of names (graph/features_names.py), in the same order. Exact totals come from
the wallet's running sums; patterns, counterparties and two hops from its kept legs, so the work per vector is bounded
whatever the history.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph.features_party import (
    N_OUTLINE,
    N_WITHOUT,
    NONE,
    log_seconds,
    outline,
    party_without,
    spread,
)
from graph.features_state import (
    BURSTS,
    DAYS,
    DWELL_MAX,
    DWELL_MIN,
    DWELL_SQ,
    DWELL_SUM,
    DWELLS,
    E_BURST,
    E_DECIMALS,
    E_DIGITS,
    E_DRAIN,
    E_FEE_MARK,
    E_LV,
    E_NEW_PARTY,
    E_OUT,
    E_REL,
    E_REPEAT,
    E_Z,
    FAILED,
    FIRST_OUT_SHARE,
    FIRST_OUT_WAIT,
    FIRST_T,
    FUNDED,
    GAP_IN,
    GAP_MAX,
    GAP_MIN,
    GAP_OUT,
    GAP_SQ,
    GAP_SUM,
    IN_BEFORE_OUT,
    KEEP,
    KEEP_FIRST,
    KEEP_LAST,
    LAST_T,
    LV2_IN,
    LV2_OUT,
    LV_IN,
    LV_OUT,
    MAX_IN,
    MAX_OUT,
    MIN_IN,
    MIN_OUT,
    N_IN,
    N_OUT,
    N_PARTY,
    P_IN,
    P_OUT,
    RECIPROCAL,
    ROUND_IN,
    ROUND_OUT,
    SWEEPS,
    TURNS,
    V_BEFORE_OUT,
    V_IN,
    V_OUT,
    WITHIN_1D,
    WITHIN_1H,
    WITHIN_7D,
    Arrays,
    leg_slot,
    slot_of,
)

HOP_PARTIES: Final = 32  # counterparties walked through; their latest legs share a budget of HOP_BUDGET wallets
HOP_BUDGET: Final = 96
HOP_FLOOR: Final = 6  # but each counterparty shows at least so many
_TABLE: Final = 512  # open addressing over at most HOP_PARTIES * HOP_FLOOR wallets, a power of two


@njit(cache=True)
def kept_legs(arrays: Arrays, wallet: int, slots: NDArray[np.int64]) -> int:
    """Arena slots of the wallet's kept legs, oldest first, into int64 [KEEP]; returns how many."""
    n = arrays.counts[wallet, N_IN] + arrays.counts[wallet, N_OUT]
    kept = 0
    for ordinal in range(min(n, KEEP_FIRST)):
        slots[kept] = leg_slot(arrays, wallet, ordinal)
        kept += 1
    for ordinal in range(max(KEEP_FIRST, n - KEEP_LAST), n):
        slots[kept] = leg_slot(arrays, wallet, ordinal)
        kept += 1
    return kept


@njit(cache=True)
def write_totals(arrays: Arrays, wallet: int, asset: int, now: int, out: NDArray[np.float32]) -> int:
    """Exact totals over the wallet's whole past (names: TOTALS)."""
    c, f = arrays.counts[wallet], arrays.totals[wallet]
    n_in, n_out = c[N_IN], c[N_OUT]
    n = n_in + n_out
    held = arrays.holding[slot_of(arrays.holding_key, (wallet << 24) | asset)]
    out[0] = n
    out[1] = n_in
    out[2] = n_out
    out[3] = math.log1p(f[V_IN])
    out[4] = math.log1p(f[V_OUT])
    out[5] = n_out / n
    out[6] = min(f[V_OUT] / f[V_IN], 10.0) if f[V_IN] > 0 else -1.0
    out[7] = math.log1p(max(held[0], 0.0))
    out[8] = math.log1p(held[1])
    out[9] = c[P_IN]
    out[10] = c[P_OUT]
    out[11] = c[P_IN] / n_in if n_in else -1.0
    out[12] = c[P_OUT] / n_out if n_out else -1.0
    out[13] = c[RECIPROCAL] / max(c[P_IN] + c[P_OUT], 1)
    out[14] = c[FAILED] / n
    out[15] = f[LV_IN] / n_in if n_in else NONE
    out[16] = f[MAX_IN] if n_in else NONE
    out[17] = f[MIN_IN] if n_in else NONE
    out[18] = spread(f[LV_IN], f[LV2_IN], n_in) if n_in else -1.0
    out[19] = f[LV_OUT] / n_out if n_out else NONE
    out[20] = f[MAX_OUT] if n_out else NONE
    out[21] = f[MIN_OUT] if n_out else NONE
    out[22] = spread(f[LV_OUT], f[LV2_OUT], n_out) if n_out else -1.0
    out[23] = f[GAP_SUM] / (n - 1) if n > 1 else -1.0
    out[24] = f[GAP_MAX] if n > 1 else -1.0
    out[25] = f[GAP_MIN] if n > 1 else -1.0
    out[26] = spread(f[GAP_SUM], f[GAP_SQ], n - 1) if n > 1 else -1.0
    out[27] = f[GAP_IN] / (n_in - 1) if n_in > 1 else -1.0
    out[28] = f[GAP_OUT] / (n_out - 1) if n_out > 1 else -1.0
    dwells = c[DWELLS]
    out[29] = f[DWELL_SUM] / dwells if dwells else -1.0
    out[30] = f[DWELL_MAX] if dwells else -1.0
    out[31] = f[DWELL_MIN] if dwells else -1.0
    out[32] = spread(f[DWELL_SUM], f[DWELL_SQ], dwells) if dwells else -1.0
    out[33] = c[SWEEPS]
    out[34] = c[SWEEPS] / n_out if n_out else -1.0
    out[35] = c[IN_BEFORE_OUT] if n_out else n
    out[36] = f[FIRST_OUT_WAIT] if n_out else -1.0
    out[37] = math.log1p(f[V_BEFORE_OUT] if n_out else f[V_IN])
    out[38] = f[FIRST_OUT_SHARE] if n_out else -1.0
    out[39] = c[TURNS] / (n - 1) if n > 1 else -1.0
    out[40] = log_seconds(c[LAST_T], c[FIRST_T])
    out[41] = math.log1p(n / (max(now - c[FIRST_T], 0) + 3600.0) * 86400.0)
    out[42] = c[WITHIN_1H] / n
    out[43] = c[WITHIN_1D] / n
    out[44] = c[WITHIN_7D] / n
    out[45] = c[DAYS]
    out[46] = c[ROUND_IN] / n_in if n_in else -1.0
    out[47] = c[ROUND_OUT] / n_out if n_out else -1.0
    out[48] = c[BURSTS] / n_out if n_out else -1.0
    out[49] = c[FUNDED] / n_out if n_out else -1.0
    return 50


@njit(cache=True)
def write_patterns(arrays: Arrays, slots: NDArray[np.int64], kept: int, out: NDArray[np.float32]) -> int:
    """Amounts, digits and counterparties over the kept legs, in and out apart (names: PATTERNS, twice)."""
    at = 0
    for direction in range(2):
        n = 0
        sums = np.zeros(10)
        max_rel, max_z, min_decimals, max_decimals = NONE, NONE, 99.0, -1.0
        same_amount, distinct_amounts, largest, entropy, total = 0, 0, 0.0, 0.0, 0.0
        for i in range(kept):
            e = arrays.leg_edge[slots[i]]
            if e[E_OUT] != direction:
                continue
            n += 1
            sums[0] += e[E_REL]
            sums[1] += e[E_DECIMALS]
            sums[2] += e[E_DIGITS]
            sums[3] += e[E_FEE_MARK]
            sums[4] += e[E_NEW_PARTY]
            sums[5] += e[E_REPEAT]
            sums[6] += e[E_Z]
            sums[7] += e[E_BURST]
            sums[8] += e[E_DRAIN]
            max_rel, max_z = max(max_rel, e[E_REL]), max(max_z, e[E_Z])
            min_decimals, max_decimals = min(min_decimals, e[E_DECIMALS]), max(max_decimals, e[E_DECIMALS])
            equal, earlier_amount, earlier_party, with_party = 0, False, False, 0
            for j in range(kept):
                other = arrays.leg_edge[slots[j]]
                if other[E_OUT] == direction:
                    if other[E_LV] == e[E_LV]:
                        equal += 1
                        earlier_amount |= j < i
                    if arrays.leg_party[slots[j]] == arrays.leg_party[slots[i]]:
                        with_party += 1
                        earlier_party |= j < i
            same_amount = max(same_amount, equal)
            distinct_amounts += not earlier_amount
            if not earlier_party:
                largest = max(largest, with_party)
                entropy += with_party * math.log(with_party)
            total += 1
        if n == 0:
            out[at : at + 16] = -2.0
        else:
            out[at] = sums[0] / n
            out[at + 1] = max_rel
            out[at + 2] = sums[1] / n
            out[at + 3] = min_decimals
            out[at + 4] = max_decimals
            out[at + 5] = sums[2] / n
            out[at + 6] = sums[3] / n
            out[at + 7] = sums[4] / n
            out[at + 8] = sums[5] / n
            out[at + 9] = sums[6] / n
            out[at + 10] = max_z
            out[at + 11] = sums[7] / n
            out[at + 12] = sums[8] / n if direction == 1 else same_amount
            out[at + 13] = same_amount / n
            out[at + 14] = distinct_amounts / n
            out[at + 15] = math.log(total) - entropy / total
        at += 16
    return at


@njit(cache=True)
def write_order(arrays: Arrays, slots: NDArray[np.int64], kept: int, out: NDArray[np.float32]) -> int:
    """The first three legs, the first counterparty and the drift of amounts (names: ORDER)."""
    first = arrays.leg_edge[slots[0]]
    out[0] = first[E_OUT]
    out[1] = first[E_LV]
    out[2] = first[E_REL]
    out[3] = first[E_DECIMALS]
    out[4] = first[E_DIGITS]
    out[5] = first[E_FEE_MARK]
    out[6] = first[E_Z]
    out[7] = first[E_NEW_PARTY]
    out[8] = first[E_BURST]
    at = 9
    for ordinal in range(1, 3):
        if kept > ordinal:
            leg = arrays.leg_edge[slots[ordinal]]
            out[at] = leg[E_OUT]
            out[at + 1] = leg[E_LV]
            out[at + 2] = log_seconds(arrays.leg_time[slots[ordinal]], arrays.leg_time[slots[ordinal - 1]])
        else:
            out[at], out[at + 1], out[at + 2] = -1.0, NONE, -1.0
        at += 3
    early, late, span = 0.0, 0.0, min(kept, 3)
    for i in range(span):
        early += arrays.leg_edge[slots[i], E_LV]
        late += arrays.leg_edge[slots[kept - 1 - i], E_LV]
    out[at] = (late - early) / span
    return at + 1


@njit(cache=True)
def write_parties(arrays: Arrays, wallet: int, now: int, slots: NDArray[np.int64], kept: int, out: NDArray[np.float32]) -> int:
    """Counterparties: as they were at each leg (first, mean, max) and as they are now without this wallet (names:
    PARTIES).
    """
    out[:N_PARTY] = arrays.leg_party_state[slots[0]]
    at = N_PARTY
    state = np.empty(N_WITHOUT, np.float32)
    for direction in range(2):
        n = 0
        out[at : at + N_PARTY] = 0.0
        out[at + N_PARTY : at + 2 * N_PARTY] = -10.0
        for i in range(kept):
            if arrays.leg_edge[slots[i], E_OUT] == direction:
                n += 1
                then = arrays.leg_party_state[slots[i]]
                for j in range(N_PARTY):
                    out[at + j] += then[j]
                    out[at + N_PARTY + j] = max(out[at + N_PARTY + j], then[j])
        for j in range(N_PARTY):
            out[at + j] = out[at + j] / n if n else -10.0
        at += 2 * N_PARTY
    for direction in range(2):
        n = 0
        out[at : at + N_WITHOUT] = 0.0
        out[at + N_WITHOUT : at + 2 * N_WITHOUT] = -10.0
        for i in range(kept - 1, -1, -1):
            party = arrays.leg_party[slots[i]]
            if arrays.leg_edge[slots[i], E_OUT] != direction or party < 0 or party == wallet:
                continue
            seen = False
            for j in range(i + 1, kept):
                if arrays.leg_party[slots[j]] == party and arrays.leg_edge[slots[j], E_OUT] == direction:
                    seen = True
                    break
            if seen:
                continue
            n += 1
            party_without(arrays, party, wallet, now, state)
            for j in range(N_WITHOUT):
                out[at + j] += state[j]
                out[at + N_WITHOUT + j] = max(out[at + N_WITHOUT + j], state[j])
        for j in range(N_WITHOUT):
            out[at + j] = out[at + j] / n if n else -10.0
        at += 2 * N_WITHOUT
    party = arrays.leg_party[slots[0]]
    if party >= 0 and party != wallet:
        party_without(arrays, party, wallet, now, state)
        out[at : at + N_WITHOUT] = state
    else:
        out[at : at + N_WITHOUT] = -10.0
    return at + N_WITHOUT


@njit(cache=True)
def write_two_hops(arrays: Arrays, wallet: int, now: int, slots: NDArray[np.int64], kept: int, out: NDArray[np.float32]) -> int:
    """Wallets that share a counterparty with this one, in its own role towards it and in the other (names: TWO_HOPS).

    Work is bounded: HOP_PARTIES counterparties show their latest kept legs within HOP_BUDGET, hubs like any other.
    """
    parties = np.empty(HOP_PARTIES, np.int64)
    roles = np.empty(HOP_PARTIES, np.int64)
    n_parties = 0
    for i in range(kept - 1, -1, -1):
        party = arrays.leg_party[slots[i]]
        known = party < 0 or party == wallet
        for j in range(n_parties):
            known |= parties[j] == party
        if not known:
            parties[n_parties] = party
            roles[n_parties] = np.int64(arrays.leg_edge[slots[i], E_OUT])
            n_parties += 1
    share = max(HOP_FLOOR, HOP_BUDGET // max(n_parties, 1))
    table = np.full(_TABLE, -1, np.int64)
    shared = np.zeros((_TABLE, 2), np.int64)
    ring = np.empty(KEEP, np.int64)
    for p in range(n_parties):
        legs = kept_legs(arrays, parties[p], ring)
        shown = 0
        for i in range(legs - 1, -1, -1):
            other = arrays.leg_party[ring[i]]
            if other < 0 or other == wallet or other == parties[p]:
                continue
            repeated = False
            for j in range(i + 1, legs):
                if arrays.leg_party[ring[j]] == other:
                    repeated = True
                    break
            if repeated:
                continue
            slot = slot_of(table, other)
            table[slot] = other
            # The party's leg points out when the other wallet received: the same role as ours if we received too.
            same_role = np.int64(arrays.leg_edge[ring[i], E_OUT]) != roles[p]
            shared[slot, 0 if same_role else 1] += 1
            shown += 1
            if shown >= share:
                break
    n_shared, most, twice = 0, 0, 0
    sums = np.zeros((3, N_OUTLINE))
    weights = np.zeros(2)
    state = np.empty(N_OUTLINE, np.float32)
    for slot in range(_TABLE):
        if table[slot] == -1:
            continue
        count = shared[slot, 0] + shared[slot, 1]
        n_shared += 1
        most = max(most, count)
        twice += count >= 2
        outline(arrays, table[slot], now, state)
        for role in range(2):
            weights[role] += shared[slot, role]
            for j in range(N_OUTLINE):
                sums[role, j] += shared[slot, role] * state[j]
        for j in range(N_OUTLINE):
            sums[2, j] += shared[slot, 0] * state[j] * state[j]
    out[0] = n_shared
    out[1] = most
    out[2] = twice
    out[3] = n_shared / max(n_parties, 1)
    out[4] = weights[0] / max(weights[0] + weights[1], 1.0)
    at = 5
    for role in range(2):
        for j in range(N_OUTLINE):
            out[at + j] = sums[role, j] / weights[role] if weights[role] > 0 else -10.0
        at += N_OUTLINE
    for j in range(N_OUTLINE):
        if weights[0] > 0:
            mean = sums[0, j] / weights[0]
            out[at + j] = math.sqrt(max(sums[2, j] / weights[0] - mean * mean, 0.0))
        else:
            out[at + j] = -1.0
    return at + N_OUTLINE
