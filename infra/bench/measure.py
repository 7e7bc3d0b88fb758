"""Repetitions, medians and ranges: how every figure of the bench is taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Stage:
    """One line of the table: rates of ours and of the baseline, pair by pair, in events a second."""

    name: str
    baseline: str
    reach: str
    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    def add(self, ours: float, bare: float) -> None:
        """One repetition: both measured one after the other, so that a slow moment of the machine meets both."""
        self.ours.append(ours)
        self.bare.append(bare)

    @property
    def ratios(self) -> list[float]:
        """Ours over bare, pair by pair."""
        return [a / b for a, b in zip(self.ours, self.bare, strict=True) if b]

    def as_json(self) -> dict[str, Any]:
        """The line as plain values."""
        return {
            "name": self.name, "baseline": self.baseline, "reach": self.reach,
            "events_per_s": spread(self.ours), "baseline_per_s": spread(self.bare), "ratio": spread(self.ratios, 3),
        }  # fmt: skip


def spread(values: list[float], digits: int = 0) -> dict[str, float] | None:
    """Median and range."""
    if not values:
        return None
    return {
        "median": round(statistics.median(values), digits), "min": round(min(values), digits), "max": round(max(values), digits),
    }  # fmt: skip


def rate(count: int, work: Callable[[], Any]) -> float:
    """Events a second of `work`, which handles `count`."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)
