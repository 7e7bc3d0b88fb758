"""Errors of the wallet graph's readers.

TidemarkError
└── GraphError
    ├── UnknownQuery        no investigation has this name
    ├── InvalidParameter    a parameter of an investigation is missing or breaks its rule; names it
    └── GraphUnavailable    the graph does not answer, or not within the query's time
"""

from __future__ import annotations

from domain.errors import InvalidValue, TidemarkError


class GraphError(TidemarkError):
    """Root of what reading the wallet graph raises."""


class UnknownQuery(GraphError):
    """No investigation has this name; the message lists those that exist."""


class InvalidParameter(GraphError, InvalidValue):
    """A parameter that an investigation cannot take. `field` names it."""


class GraphUnavailable(GraphError):
    """The graph refused or did not answer in time."""
