"""What a wallet looks like to those it deals with: its state before an event, its state without one wallet's legs, its
outline.

These three short vectors are shared by the features and by the network's neighbourhood.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph.features_state import (
    BURSTS,
    DWELL_SUM,
    DWELLS,
    FIRST_DIR,
    FIRST_LV,
    FIRST_T,
    FUNDED,
    LAST_IN_T,
    LAST_OUT_T,
    LAST_T,
    LV2_IN,
    LV2_OUT,
    LV_IN,
    LV_OUT,
    MAX_LV,
    N_IN,
    N_OUT,
    N_PARTY,
    P_IN,
    P_OUT,
    ROUND_IN,
    ROUND_OUT,
    V_IN,
    V_OUT,
    Arrays,
    slot_of,
)

NONE: Final = -9.0  # a logarithm of nothing
# The names, in order, of the three vectors.
PARTY_NAMES: Final = (
    "n_in", "n_out", "parties_in", "parties_out", "value_in", "value_out", "log_amount_in", "log_amount_out",
    "log_amount_out_std", "log_amount_in_std", "age", "idle", "out_share", "round_out", "round_in", "funded",
    "funded_share", "burst_share", "log_amount_max", "rate", "idle_in", "idle_out",
)  # fmt: skip
WITHOUT_NAMES: Final = (
    "n_in", "n_out", "parties_in", "parties_out", "value_in", "value_out", "log_amount_in", "log_amount_out", "age",
    "idle", "out_share", "funded",
)  # fmt: skip
OUTLINE_NAMES: Final = (
    "n_in", "n_out", "out_share", "log_amount_in", "log_amount_out", "parties_in", "parties_out", "forwarded", "age",
    "idle", "life", "value_in", "round_in", "round_out", "dwell", "first_out", "first_log_amount",
)  # fmt: skip
N_WITHOUT: Final = len(WITHOUT_NAMES)
N_OUTLINE: Final = len(OUTLINE_NAMES)
assert len(PARTY_NAMES) == N_PARTY


@njit(cache=True)
def log_seconds(late: int, early: int) -> float:
    """log1p of the seconds between two times; a late event gives 0, never a negative gap."""
    return math.log1p(max(late - early, 0))


@njit(cache=True)
def spread(total: float, squares: float, n: int) -> float:
    """Standard deviation from a sum and a sum of squares."""
    mean = total / n
    return math.sqrt(max(squares / n - mean * mean, 0.0))


@njit(cache=True)
def party_state(arrays: Arrays, party: int, now: int, out: NDArray[np.float32]) -> None:
    """A counterparty as of `now`, before the event at hand is counted: float32 [N_PARTY] into `out`; -1 for no
    counterparty.
    """
    if party < 0:
        out[:N_PARTY] = -1.0
        return
    c, f = arrays.counts[party], arrays.totals[party]
    n_in, n_out = c[N_IN], c[N_OUT]
    n = n_in + n_out
    out[0] = math.log1p(n_in)
    out[1] = math.log1p(n_out)
    out[2] = math.log1p(c[P_IN])
    out[3] = math.log1p(c[P_OUT])
    out[4] = math.log1p(f[V_IN])
    out[5] = math.log1p(f[V_OUT])
    out[6] = f[LV_IN] / n_in if n_in else NONE
    out[7] = f[LV_OUT] / n_out if n_out else NONE
    out[8] = spread(f[LV_OUT], f[LV2_OUT], n_out) if n_out else -1.0
    out[9] = spread(f[LV_IN], f[LV2_IN], n_in) if n_in else -1.0
    out[10] = log_seconds(now, c[FIRST_T]) if n else -1.0
    out[11] = log_seconds(now, c[LAST_T]) if n else -1.0
    out[12] = n_out / n if n else -1.0
    out[13] = c[ROUND_OUT] / n_out if n_out else -1.0
    out[14] = c[ROUND_IN] / n_in if n_in else -1.0
    out[15] = math.log1p(c[FUNDED])
    out[16] = c[FUNDED] / n_out if n_out else -1.0
    out[17] = c[BURSTS] / n_out if n_out else -1.0
    out[18] = f[MAX_LV] if n else NONE
    out[19] = math.log1p(n / (max(now - c[FIRST_T], 0) + 3600.0) * 86400.0) if n else -1.0
    out[20] = log_seconds(now, c[LAST_IN_T]) if n_in else -1.0
    out[21] = log_seconds(now, c[LAST_OUT_T]) if n_out else -1.0


@njit(cache=True)
def party_without(arrays: Arrays, party: int, wallet: int, now: int, out: NDArray[np.float32]) -> None:
    """A counterparty as it is now with all its legs with `wallet` taken out: float32 [N_WITHOUT] into `out`."""
    c, f = arrays.counts[party], arrays.totals[party]
    to_party = slot_of(arrays.pair_key, (wallet << 32) | party)
    from_party = slot_of(arrays.pair_key, (party << 32) | wallet)
    n_in, n_out, p_in, p_out = c[N_IN], c[N_OUT], c[P_IN], c[P_OUT]
    v_in, v_out, lv_in, lv_out = f[V_IN], f[V_OUT], f[LV_IN], f[LV_OUT]
    if arrays.pair_key[to_party] != -1:
        pair = arrays.pair_sum[to_party]
        n_in -= np.int64(pair[0])
        p_in -= 1
        v_in -= pair[1]
        lv_in -= pair[2]
    if arrays.pair_key[from_party] != -1:
        pair = arrays.pair_sum[from_party]
        n_out -= np.int64(pair[0])
        p_out -= 1
        v_out -= pair[1]
        lv_out -= pair[2]
    n = n_in + n_out
    out[0] = math.log1p(n_in)
    out[1] = math.log1p(n_out)
    out[2] = math.log1p(max(p_in, 0))
    out[3] = math.log1p(max(p_out, 0))
    out[4] = math.log1p(max(v_in, 0.0))
    out[5] = math.log1p(max(v_out, 0.0))
    out[6] = lv_in / n_in if n_in > 0 else NONE
    out[7] = lv_out / n_out if n_out > 0 else NONE
    out[8] = log_seconds(now, c[FIRST_T])
    out[9] = log_seconds(now, c[LAST_T])
    out[10] = n_out / n if n > 0 else -1.0
    out[11] = math.log1p(c[FUNDED])


@njit(cache=True)
def outline(arrays: Arrays, wallet: int, now: int, out: NDArray[np.float32]) -> None:
    """The shape of a wallet two hops away, as of `now`: float32 [N_OUTLINE] into `out`."""
    c, f = arrays.counts[wallet], arrays.totals[wallet]
    n_in, n_out = c[N_IN], c[N_OUT]
    out[0] = math.log1p(n_in)
    out[1] = math.log1p(n_out)
    out[2] = n_out / max(n_in + n_out, 1)
    out[3] = f[LV_IN] / n_in if n_in else NONE
    out[4] = f[LV_OUT] / n_out if n_out else NONE
    out[5] = math.log1p(c[P_IN])
    out[6] = math.log1p(c[P_OUT])
    out[7] = min(f[V_OUT] / f[V_IN], 3.0) if f[V_IN] > 0 else 3.0
    out[8] = log_seconds(now, c[FIRST_T])
    out[9] = log_seconds(now, c[LAST_T])
    out[10] = log_seconds(c[LAST_T], c[FIRST_T])
    out[11] = math.log1p(f[V_IN])
    out[12] = c[ROUND_IN] / n_in if n_in else -1.0
    out[13] = c[ROUND_OUT] / n_out if n_out else -1.0
    out[14] = f[DWELL_SUM] / c[DWELLS] if c[DWELLS] else -1.0
    out[15] = c[FIRST_DIR]
    out[16] = f[FIRST_LV]
