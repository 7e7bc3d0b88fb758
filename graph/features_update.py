"""One transaction enters the state: the only place that changes wallets' totals, legs, pairs, holdings and asset
quantiles.

A failed transaction is counted as a leg, with the amount it tried, but moves no value. A self-transfer is one leg of
its wallet.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph.features_amount import TINY
from graph.features_party import log_seconds, party_state
from graph.features_state import (
    ASSET_ANCHOR,
    ASSET_REFRESH,
    ASSET_WINDOW,
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
    E_FAILED,
    E_FEE_MARK,
    E_GAP,
    E_LV,
    E_NEW_PARTY,
    E_OUT,
    E_RANK,
    E_REL,
    E_REPEAT,
    E_Z,
    FAILED,
    FIRST_DIR,
    FIRST_LV,
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
    HOLDINGS,
    IN_BEFORE_OUT,
    LAST_DAY,
    LAST_DIR,
    LAST_IN_T,
    LAST_OUT_T,
    LAST_T,
    LV2_IN,
    LV2_OUT,
    LV_IN,
    LV_OUT,
    MAX_IN,
    MAX_LV,
    MAX_OUT,
    MIN_IN,
    MIN_OUT,
    MOVED_IN,
    MOVED_OUT,
    N_EDGE,
    N_IN,
    N_OUT,
    N_PARTY,
    P_IN,
    P_OUT,
    PAIRS,
    RECIPROCAL,
    ROUND_IN,
    ROUND_OUT,
    SELF,
    SWEEPS,
    TURNS,
    V_BEFORE_OUT,
    V_IN,
    V_OUT,
    WITHIN_1D,
    WITHIN_1H,
    WITHIN_7D,
    Arrays,
    room_for_leg,
    slot_of,
)

BURST_S: Final = 60  # payouts of one wallet within a minute are one burst (batch payouts of exchanges and mixers)
ROUND_DECIMALS: Final = 2  # up to two decimals counts as a round amount
SWEEP_SHARE: Final = 0.02  # an outflow that leaves less than this share of the holding empties the wallet
_DAY_S: Final = 86_400


@njit(cache=True)
def relative_amount(arrays: Arrays, asset: int, amount: float) -> tuple[float, float, float, float]:
    """Place an amount among the asset's amounts before it, then remember it.

    Returns log10(amount / unit), log10(amount / running median), the share of recent amounts below it, and the amount
    in units. The unit is the asset's median, frozen after ASSET_ANCHOR amounts, so that sums in it stay comparable;
    the running median follows the last ASSET_WINDOW amounts.
    """
    log_amount = math.log10(max(amount, TINY))
    n = arrays.asset_count[asset]
    size = min(n, ASSET_WINDOW)
    ring, ordered = arrays.asset_ring[asset], arrays.asset_sorted[asset]
    # Until the window is full its sorted copy is refreshed at each doubling: an early median is better than none.
    if n > 0 and (n % ASSET_REFRESH == 0 or (n < ASSET_REFRESH and n & (n - 1) == 0)):
        ordered[:size] = np.sort(ring[:size])
        ordered[size:] = np.inf
        arrays.asset_unit[asset, 1] = ordered[size // 2]
        if n <= ASSET_ANCHOR:
            arrays.asset_unit[asset, 0] = ordered[size // 2]
    elif n == 0:
        ordered[:] = np.inf
        ordered[0] = log_amount
        arrays.asset_unit[asset, 0] = log_amount
        arrays.asset_unit[asset, 1] = log_amount
    filled = np.searchsorted(ordered, np.inf)
    rank = np.searchsorted(ordered[:filled], log_amount) / filled
    ring[n % ASSET_WINDOW] = log_amount
    arrays.asset_count[asset] = n + 1
    unit = arrays.asset_unit[asset, 0]
    return log_amount - unit, log_amount - arrays.asset_unit[asset, 1], rank, amount / 10.0**unit


@njit(cache=True)
def update(
    arrays: Arrays,
    source: int,
    target: int,
    now: int,
    asset: int,
    is_failed: bool,
    decimals: int,
    digits: int,
    fee_mark: float,
    amount: NDArray[np.float64],
    scratch: NDArray[np.float32],
) -> None:
    """Count one transaction for both wallets.

    Arguments: source, target: node indexes or -1; now: Unix s; amount: float64 [4] from `relative_amount`; scratch:
    float32 [2, N_EDGE + N_PARTY], where both sides' legs are made from the state before the transaction, then written.
    """
    counts, totals = arrays.counts, arrays.totals
    lv, value = amount[0], 0.0 if is_failed else amount[3]
    same = source == target
    fresh_source = source >= 0 and counts[source, N_IN] + counts[source, N_OUT] == 0
    fresh_target = target >= 0 and counts[target, N_IN] + counts[target, N_OUT] == 0
    burst = source >= 0 and counts[source, LAST_OUT_T] >= 0 and abs(now - counts[source, LAST_OUT_T]) <= BURST_S
    pair, repeat = -1, False
    if source >= 0 and target >= 0:
        pair = slot_of(arrays.pair_key, (source << 32) | target)
        repeat = arrays.pair_key[pair] != -1
    for side in range(2):
        wallet, party = (source, target) if side == 0 else (target, source)
        leg = scratch[side]
        party_state(arrays, -1 if same else party, now, leg[N_EDGE:])
        if wallet < 0:
            continue
        leg[E_OUT] = 1.0 - side
        leg[E_LV] = lv
        leg[E_REL] = amount[1]
        leg[E_RANK] = amount[2]
        leg[E_DECIMALS] = decimals
        leg[E_DIGITS] = digits
        leg[E_FEE_MARK] = fee_mark
        leg[E_FAILED] = is_failed
        leg[E_NEW_PARTY] = fresh_target if side == 0 else fresh_source
        leg[E_REPEAT] = repeat
        leg[E_BURST] = burst
        leg[E_Z] = 0.0
        if party >= 0 and side == 0 and counts[party, N_IN] > 0:
            leg[E_Z] = lv - totals[party, LV_IN] / counts[party, N_IN]
        if party >= 0 and side == 1 and counts[party, N_OUT] > 0:
            leg[E_Z] = lv - totals[party, LV_OUT] / counts[party, N_OUT]
        last = counts[wallet, LAST_T]
        leg[E_GAP] = log_seconds(now, last) if last >= 0 else -1.0
        leg[E_DRAIN] = -1.0
        if side == 0:
            slot = slot_of(arrays.holding_key, (wallet << 24) | asset)
            if arrays.holding_key[slot] != -1 and arrays.holding[slot, 0] > 0:
                leg[E_DRAIN] = min(value / arrays.holding[slot, 0], 3.0)

    if pair >= 0:
        if not repeat:
            arrays.pair_key[pair] = (source << 32) | target
            arrays.clock[PAIRS] += 1
            counts[source, P_OUT] += 1
            counts[target, P_IN] += 1
            if arrays.pair_key[slot_of(arrays.pair_key, (target << 32) | source)] != -1 and not same:
                counts[source, RECIPROCAL] += 1
                counts[target, RECIPROCAL] += 1
        arrays.pair_sum[pair, 0] += 1
        arrays.pair_sum[pair, 1] += value
        arrays.pair_sum[pair, 2] += lv
    is_round = decimals <= ROUND_DECIMALS
    if source >= 0:
        _count_leg(arrays, source, True, now, asset, lv, value, is_failed, is_round)
        counts[source, BURSTS] += burst
        counts[source, FUNDED] += fresh_target and not same
        counts[source, SELF] += same
        _keep_leg(arrays, source, target, now, scratch[0])
    if target >= 0 and not same:
        _count_leg(arrays, target, False, now, asset, lv, value, is_failed, is_round)
        _keep_leg(arrays, target, source, now, scratch[1])


@njit(cache=True)
def _keep_leg(arrays: Arrays, wallet: int, party: int, now: int, leg: NDArray[np.float32]) -> None:
    ordinal = arrays.counts[wallet, N_IN] + arrays.counts[wallet, N_OUT] - 1
    slot = room_for_leg(arrays, wallet, ordinal)
    arrays.leg_time[slot] = now
    arrays.leg_party[slot] = party
    arrays.leg_edge[slot] = leg[:N_EDGE]
    arrays.leg_party_state[slot] = leg[N_EDGE : N_EDGE + N_PARTY]


@njit(cache=True)
def _count_leg(
    arrays: Arrays,
    wallet: int,
    is_out: bool,
    now: int,
    asset: int,
    lv: float,
    value: float,
    is_failed: bool,
    is_round: bool,
) -> None:
    c, f = arrays.counts[wallet], arrays.totals[wallet]
    n = c[N_IN] + c[N_OUT]
    direction = 1 if is_out else 0
    if n == 0:
        c[FIRST_T] = now
        c[FIRST_DIR] = direction
        f[FIRST_LV] = lv
        f[MAX_LV] = lv
    else:
        gap = log_seconds(now, c[LAST_T])
        f[GAP_SUM] += gap
        f[GAP_SQ] += gap * gap
        f[GAP_MAX] = max(f[GAP_MAX], gap) if n > 1 else gap
        f[GAP_MIN] = min(f[GAP_MIN], gap) if n > 1 else gap
        c[TURNS] += direction != c[LAST_DIR]
        f[MAX_LV] = max(f[MAX_LV], lv)
    age = now - c[FIRST_T]
    c[WITHIN_1H] += age < 3600
    c[WITHIN_1D] += age < _DAY_S
    c[WITHIN_7D] += age < 7 * _DAY_S
    if now // _DAY_S != c[LAST_DAY]:
        c[DAYS] += 1
        c[LAST_DAY] = now // _DAY_S
    c[FAILED] += is_failed
    slot = slot_of(arrays.holding_key, (wallet << 24) | asset)
    if arrays.holding_key[slot] == -1:
        arrays.holding_key[slot] = (wallet << 24) | asset
        arrays.clock[HOLDINGS] += 1
    held = arrays.holding[slot, 0]
    if is_out:
        if c[LAST_IN_T] >= 0:
            wait = log_seconds(now, c[LAST_IN_T])
            f[DWELL_SUM] += wait
            f[DWELL_SQ] += wait * wait
            f[DWELL_MAX] = max(f[DWELL_MAX], wait) if c[DWELLS] else wait
            f[DWELL_MIN] = min(f[DWELL_MIN], wait) if c[DWELLS] else wait
            c[DWELLS] += 1
            c[SWEEPS] += held > 0 and abs(held - value) < SWEEP_SHARE * held
        if c[N_OUT] == 0:
            f[FIRST_OUT_WAIT] = log_seconds(now, c[FIRST_T])
            f[FIRST_OUT_SHARE] = min(value / held, 3.0) if held > 0 else -1.0
            c[IN_BEFORE_OUT] = c[N_IN]
            f[V_BEFORE_OUT] = f[V_IN]
            f[MAX_OUT], f[MIN_OUT] = lv, lv
        else:
            f[GAP_OUT] += log_seconds(now, c[LAST_OUT_T])
            f[MAX_OUT], f[MIN_OUT] = max(f[MAX_OUT], lv), min(f[MIN_OUT], lv)
        c[N_OUT] += 1
        c[MOVED_OUT] += not is_failed
        f[V_OUT] += value
        f[LV_OUT] += lv
        f[LV2_OUT] += lv * lv
        c[ROUND_OUT] += is_round
        c[LAST_OUT_T] = max(now, c[LAST_OUT_T])
        if not is_failed:
            arrays.holding[slot, 0] = held - value
    else:
        if c[N_IN] == 0:
            f[MAX_IN], f[MIN_IN] = lv, lv
        else:
            f[GAP_IN] += log_seconds(now, c[LAST_IN_T])
            f[MAX_IN], f[MIN_IN] = max(f[MAX_IN], lv), min(f[MIN_IN], lv)
        c[N_IN] += 1
        c[MOVED_IN] += not is_failed
        f[V_IN] += value
        f[LV_IN] += lv
        f[LV2_IN] += lv * lv
        c[ROUND_IN] += is_round
        c[LAST_IN_T] = max(now, c[LAST_IN_T])
        arrays.holding[slot, 0] = held + value
        arrays.holding[slot, 1] = max(arrays.holding[slot, 1], held + value)
    c[LAST_T] = max(now, c[LAST_T])
    c[LAST_DIR] = direction
