"""The alert policy: which scores become alerts within what people can look at.

The threshold follows the stream: the quantile of the last scores that leaves the budget's share above it, never below a floor. It is
set from earlier scores only, so that a replay alerts on the same transactions.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """What becomes an alert.

    budget: the share of transactions that people can look at; floor: no score below it alerts; window: how many of the last scores the
    threshold is taken from; warm_up: how many must have come before the first alert.
    """

    budget: float = 0.01
    floor: float = 0.5
    window: int = 20_000
    warm_up: int = 500

    def to_json(self) -> str:
        """The policy as the text that `PolicyChanged` carries."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> AlertPolicy:
        """The policy in a `PolicyChanged`.

        Raises:
            TypeError: an unknown field.
            ValueError: no JSON.
        """
        return cls(**json.loads(text))


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
