"""Errors of the learner.

TidemarkError
├── TrainingDataError   the labels known by the cut do not suffice; says what to do
├── PackageError        a model package is damaged, altered or of another format
└── RequestError        a scoring request is wrong; carries a stable code and every mistake by field
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.errors import TidemarkError


class TrainingDataError(TidemarkError):
    """There is too little to learn from."""


class PackageError(TidemarkError):
    """A model package cannot be trusted or read."""


class RequestError(TidemarkError):
    """A scoring request that cannot be answered: `code` is stable, `status` is HTTP's, `mistakes` holds all that was
    found.
    """

    def __init__(self, code: str, status: int, mistakes: Sequence[tuple[str, str]]) -> None:
        super().__init__(f"{code}: " + "; ".join(f"{field}: {text}" for field, text in mistakes))
        self.code = code
        self.status = status
        self.mistakes = tuple(mistakes)
