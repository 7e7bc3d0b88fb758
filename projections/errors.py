"""Errors of projections.

TidemarkError
└── ProjectionError
    ├── StalePosition      another worker moved the checkpoint: stop this one
    ├── BatchRefused       the target refused a batch for its data: the runner finds the record
    ├── StoreUnavailable   the target does not answer: retried, then the worker stops
    └── StoreDisagrees     a store does not equal the log
"""

from __future__ import annotations

from domain.errors import TidemarkError


class ProjectionError(TidemarkError):
    """Root of what a projection raises."""


class StalePosition(ProjectionError):
    """The stored checkpoint is not the one this worker started from: a second copy has written. Nothing was changed."""


class StoreUnavailable(ProjectionError):
    """The target store refused or did not answer."""


class StoreDisagrees(ProjectionError):
    """A store holds something else than the log says; the message names the first difference."""


class BatchRefused(ProjectionError):
    """The target refused a batch for what some record in it holds; the runner finds that record by halving."""
