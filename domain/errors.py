"""Errors of the domain.

TidemarkError
├── InvalidValue      a value breaks its own rule (amount, id, time); carries the field
├── CommandRefused    a command may not happen now; carries a stable reason
└── LogError          the event log refused or cannot be read
    └── Fenced        a newer owner of the same transactional id is active
"""

from __future__ import annotations


class TidemarkError(Exception):
    """Root of every error that Tidemark raises on purpose."""


class InvalidValue(TidemarkError, ValueError):
    """A value breaks its own rule. `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class CommandRefused(TidemarkError):
    """A command that may not happen. `reason` is a stable code; the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LogError(TidemarkError):
    """The event log refused a write or cannot be read."""


class Fenced(LogError):
    """A newer process owns this transactional id: this one must stop."""
