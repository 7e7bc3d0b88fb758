"""Card payments of the shape of Kaggle's `creditcard.csv` (mlg-ulb): Time, V1..V28, Amount, Class, two days in order of time.

A simulation: the columns, their number and the share of fraud are the file's, the values are drawn here. Figures on it show that the
road works and how rare fraud is met; they say nothing of how well anything detects fraud in the real file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from domain.errors import InvalidValue

CARD_ROWS: Final = 284_807
CARD_FRAUDS: Final = 492
FEATURES: Final = tuple(f"V{i}" for i in range(1, 29))
COLUMNS: Final = ("Time", *FEATURES, "Amount", "Class")
LEAST_ROWS: Final = 100
SPAN_S: Final = 172_792  # the file's last Time

_DECIMALS = 9  # of V1..V28: below what a sum's last bits may differ in from one processor to another
_SPREAD_FIRST, _SPREAD_LAST = 1.96, 0.33  # standard deviations of V1 and V28: principal components come in falling order
_TAIL = 5.0  # degrees of freedom of Student's t: components of real payments have tails
# Where fraud stands apart, in standard deviations of its component: a handful out of 28, and no single one tells it.
_SHIFTS: Final = {3: -1.6, 4: 2.0, 7: -1.4, 10: -2.2, 11: 1.8, 12: -2.6, 14: -3.0, 16: -1.5, 17: -2.4}
_HIDDEN = 0.1  # of the frauds look like anybody: nothing can find them
_LOOK_ALIKES = 0.003  # of the genuine payments are as odd in some of these components
_HOURLY = np.array([4, 3, 2, 2, 2, 2, 4, 8, 12, 15, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 15, 14, 11, 7], np.float64)
_NIGHT_TOO = 0.5  # the share of fraud that keeps no hours
_MEDIAN_EUR, _AMOUNT_SPREAD, _MOST_EUR = 22.0, 1.65, 25_691.16
_PROBE_EUR, _PROBES = 1.0, 0.3  # the share of frauds that try a card with one euro


@dataclass(frozen=True, slots=True)
class CardOptions:
    """What is drawn. The same options give the same rows, bit by bit.

    Raises:
        InvalidValue: too few rows, or more frauds than half of them.
    """

    count: int = CARD_ROWS
    frauds: int = CARD_FRAUDS
    seed: int = 7

    def __post_init__(self) -> None:
        if self.count < LEAST_ROWS:
            raise InvalidValue("count", f"expected at least {LEAST_ROWS} payments, found {self.count}")
        if not 0 <= self.frauds <= self.count // 2:
            raise InvalidValue("frauds", f"expected 0 to {self.count // 2} of {self.count} payments, found {self.frauds}")


def card_payments(options: CardOptions) -> pa.Table:
    """Payments in order of time with the columns `COLUMNS`: Time in whole seconds from the first, Amount in euros, Class 1 for fraud."""
    rng = np.random.default_rng(options.seed)
    n = options.count
    is_fraud = np.zeros(n, np.bool_)
    is_fraud[rng.choice(n, options.frauds, replace=False)] = True
    times = _times(rng, is_fraud)
    features = _features(rng, is_fraud)
    amounts = _amounts(rng, is_fraud)
    order = np.argsort(times, kind="stable")
    columns: dict[str, NDArray[Any]] = {"Time": times[order] - times[order[0]]}
    columns |= {name: features[order, i] for i, name in enumerate(FEATURES)}
    columns |= {"Amount": amounts[order], "Class": is_fraud[order].astype(np.int64)}
    return pa.table({name: pa.array(columns[name]) for name in COLUMNS})


def write_card_payments(options: CardOptions, path: Path) -> pa.Table:
    """Draw payments and write them as CSV (`.csv` or `.csv.gz`), the same bytes for the same options; returns them.

    Raises:
        ValueError: another ending.
    """
    if not path.name.endswith((".csv", ".csv.gz")):
        raise ValueError(f"expected a name that ends in .csv or .csv.gz, found {path.name}")
    table = card_payments(options)
    compression = "gzip" if path.name.endswith(".gz") else None
    partial = path.with_name(f".{path.name}.part")
    with pa.output_stream(str(partial), compression=compression) as out:
        csv.write_csv(table, out, csv.WriteOptions(quoting_style="none"))
    partial.replace(path)
    return table


def _times(rng: np.random.Generator, is_fraud: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Seconds in two days: people sleep, half of the fraud does not."""
    share = np.cumsum(np.tile(_HOURLY, 2))
    share /= share[-1]
    n = len(is_fraud)
    by_day = np.interp(rng.random(n), np.concatenate([[0.0], share]), np.linspace(0.0, SPAN_S, len(share) + 1))
    keeps_none = is_fraud & (rng.random(n) < _NIGHT_TOO)
    return np.where(keeps_none, rng.random(n) * SPAN_S, by_day).astype(np.int64)


def _features(rng: np.random.Generator, is_fraud: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Float64 [n, 28], uncorrelated: each column is drawn by itself, then the odd rows are moved in the columns of `_SHIFTS`."""
    n = len(is_fraud)
    spread = np.geomspace(_SPREAD_FIRST, _SPREAD_LAST, len(FEATURES))
    drawn = rng.standard_t(_TAIL, (n, len(FEATURES))) / np.sqrt(_TAIL / (_TAIL - 2.0))
    columns = np.array([i - 1 for i in _SHIFTS])
    shift = np.array(list(_SHIFTS.values()))
    # How far a fraud stands apart differs from one to the next, and from one component to the next.
    strength = np.where(rng.random(n) < _HIDDEN, 0.0, rng.gamma(3.0, 0.45, n))
    look_alike = ~is_fraud & (rng.random(n) < _LOOK_ALIKES)
    strength = np.where(is_fraud, strength, np.where(look_alike, rng.gamma(1.5, 0.4, n), 0.0))
    takes_part = rng.random((n, len(columns))) < np.where(is_fraud, 0.8, 0.45)[:, None]
    drawn[:, columns] += strength[:, None] * takes_part * shift
    rounded: NDArray[np.float64] = np.round(drawn * spread, _DECIMALS)
    return rounded


def _amounts(rng: np.random.Generator, is_fraud: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Euros with two decimals, most of them small, a few very large."""
    n = len(is_fraud)
    amounts = _MEDIAN_EUR * np.exp(_AMOUNT_SPREAD * rng.standard_normal(n))
    amounts = np.where(is_fraud & (rng.random(n) < _PROBES), _PROBE_EUR, amounts)
    rounded: NDArray[np.float64] = np.round(np.clip(amounts, 0.01, _MOST_EUR), 2).astype(np.float64)
    return rounded
