"""Errors of the local stack.

TidemarkError
└── StackError      the local stack cannot do what was asked; the message says what to do
    ├── PartDown    a part is not ready; carries its name
    └── StackBusy   another process holds the stack or a data folder
"""

from __future__ import annotations

from domain.errors import TidemarkError


class StackError(TidemarkError):
    """The local stack cannot do what was asked; the message says what to do."""


class PartDown(StackError):
    """A part is not ready. `part` names it."""

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part


class StackBusy(StackError):
    """Another process holds the stack or one of its data folders."""
