"""Progress of long work: a bar on a terminal, a line every few seconds elsewhere; always on standard error.

Rate and time left come from the last seconds of real work, and nothing is claimed before there is something to claim it from.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from infra.cli import output

WINDOW_S = 10.0
EVIDENCE_S = 1.5  # less than this says little about the rest
LINE_EVERY_S = 3.0


class Track:
    """Tracks one piece of work. `update` may be called as often as one likes.

    Args:
        what: what is done, in a few words.
        unit: what is counted.
        monotonic: clock in seconds.
    """

    def __init__(
        self,
        what: str,
        unit: str = "records",
        *,
        is_terminal: bool | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._unit, self._monotonic = what, unit, monotonic
        self._is_terminal = sys.stderr.isatty() if is_terminal is None else is_terminal
        self._seen: deque[tuple[float, int]] = deque()
        self._told_at = monotonic()
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[told]}"),
            console=output.errors, transient=True, disable=not self._is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(output.safe(what), total=None, told="")

    def __enter__(self) -> Self:
        self._progress.start()
        self._seen.append((self._monotonic(), 0))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def update(self, done: int, total: int | None = None, *, what: str | None = None, lag: int | None = None) -> None:
        """Report how much is done, of how much where that is known, and how far the readers are behind."""
        if what is not None and what != self._what:
            self._what = what
            self._seen.clear()
        now = self._monotonic()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        told = self.line(done, total, lag)
        self._progress.update(self._task, description=output.safe(self._what), completed=done, total=total, told=told)
        if not self._is_terminal and now - self._told_at >= LINE_EVERY_S:
            self._told_at = now
            output.say(f"{output.safe(self._what)}: {told}")

    def say(self, what: str) -> None:
        """Name a stage of which nothing can be counted."""
        self._progress.update(self._task, description=output.safe(what), completed=0, total=None, told="")

    def line(self, done: int, total: int | None, lag: int | None = None) -> str:
        """What is known now, in words."""
        parts = [
            f"{output.count(done)} of {output.count(total)} {self._unit}" if total is not None else f"{output.count(done)} {self._unit}"
        ]
        (first_at, first), (last_at, last) = self._seen[0], self._seen[-1]
        seconds = last_at - first_at
        if seconds >= EVIDENCE_S and last > first:
            rate = (last - first) / seconds
            parts.append(f"{output.count(rate)}/s")
            if total is not None and total > done:
                parts.append(f"about {output.duration((total - done) / rate)} left")
        if lag is not None:
            parts.append(f"lag {output.count(lag)}")
        return ", ".join(parts)
