"""The rhythm of days and weeks: events spread evenly over a made-up clock, which one function turns into real times.

Everything that is simulated goes through the same function, so no hour or weekday gives a scheme away.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_HOUR_S = 3600
# Shares of a day's events by hour (UTC) and of a week's by day from Monday on: a quiet night, a quieter weekend.
_BY_HOUR = np.array(
    [
        2.2,
        1.8,
        1.6,
        1.5,
        1.6,
        1.9,
        2.6,
        3.6,
        4.6,
        5.2,
        5.5,
        5.6,
        5.6,
        5.6,
        5.7,
        5.7,
        5.6,
        5.4,
        5.2,
        4.9,
        4.5,
        4.0,
        3.3,
        2.7,
    ]
)
_BY_DAY = np.array([1.08, 1.1, 1.1, 1.08, 1.06, 0.82, 0.76])
_THURSDAY = 3  # 1970-01-01


class Rhythm:
    """Real time over an interval.

    Args:
        start_s: first second since 1970 UTC.
        days: length of the interval.
    """

    def __init__(self, start_s: int, days: int) -> None:
        hours = np.arange(days * 24)
        clock = start_s // _HOUR_S + hours
        weights = _BY_HOUR[clock % 24] * _BY_DAY[(clock // 24 + _THURSDAY) % 7]
        self._cumulated = np.concatenate([[0.0], np.cumsum(weights / weights.sum())])
        self._edges_s = start_s + np.arange(days * 24 + 1) * float(_HOUR_S)

    def micros(self, phase: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Phases in [0, 1) [n] as microseconds since 1970, whole seconds, in the same order."""
        seconds: npt.NDArray[np.int64] = np.interp(phase, self._cumulated, self._edges_s).astype(np.int64)
        return seconds * np.int64(1_000_000)
