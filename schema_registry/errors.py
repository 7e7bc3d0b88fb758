"""Errors of schemas and codecs.

TidemarkError
└── SchemaError
    ├── UndecodableRecord   bytes that are no value of their schema; carries a stable reason
    ├── IncompatibleSchema  a change that some reader could not follow
    └── RegistryError       the registry does not answer, or disagrees with the code
"""

from __future__ import annotations

from domain.errors import TidemarkError


class SchemaError(TidemarkError):
    """Root of what schemas and codecs raise."""


class UndecodableRecord(SchemaError):
    """Bytes that are no value of their schema.

    `reason` is one of `no_value`, `not_framed`, `unknown_schema_id`, `truncated`, `malformed`, `trailing_bytes`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class IncompatibleSchema(SchemaError):
    """A schema change that some reader or writer of the log could not follow."""


class RegistryError(SchemaError):
    """The registry does not answer, or holds something else than the code."""
