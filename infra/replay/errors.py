"""What is wrong with a replay before it begins."""

from __future__ import annotations

from collections.abc import Mapping

from domain.errors import TidemarkError


class ReplayError(TidemarkError):
    """A replay cannot be: an empty range, a hole in history, a sandbox that is in use. The message says what to do."""


class SchemesError(ReplayError):
    """A file of schemes has mistakes; `mistakes` maps each place to what is wrong there."""

    def __init__(self, where: str, mistakes: Mapping[str, str]) -> None:
        super().__init__(f"{where}: " + "; ".join(f"{place}: {problem}" for place, problem in mistakes.items()))
        self.mistakes = dict(mistakes)


class StrategyError(ReplayError):
    """A strategy's file cannot be used: it does not run, or holds no strategy."""
