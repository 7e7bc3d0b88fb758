"""The alert policy's threshold: which scores become alerts within what people can look at.

The threshold follows the stream: the quantile of the last scores that leaves the budget's share above it, never below a floor. It is
set from earlier scores only, so that a replay alerts on the same transactions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.policy import AlertPolicy


class RunningThreshold:
    """The policy's threshold over a stream of scores."""

    REFRESH = 100  # scores between two looks at the quantile: it moves slowly, sorting 20,000 numbers costs a millisecond

    def __init__(self, policy: AlertPolicy) -> None:
        self._policy = policy
        self._scores: NDArray[np.float64] = np.zeros(policy.window)
        self._seen = 0
        self._threshold = np.inf

    def next(self, score: float) -> float:
        """The threshold for this score, from the scores before it; then the score is taken in. Infinite while warming up."""
        if self._seen >= self._policy.warm_up and (not np.isfinite(self._threshold) or self._seen % self.REFRESH == 0):
            kept = self._scores[: min(self._seen, self._policy.window)]
            # "higher": with many equal scores a linear quantile would let far more than the budget through.
            self._threshold = max(self._policy.floor, float(np.quantile(kept, 1.0 - self._policy.budget, method="higher")))
        threshold = self._threshold
        self._scores[self._seen % self._policy.window] = score
        self._seen += 1
        return float(threshold)
