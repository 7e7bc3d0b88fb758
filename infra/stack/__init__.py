"""The local stack: real servers as plain processes under one supervisor, in one state folder."""

from __future__ import annotations

from infra.stack.errors import PartDown, StackBusy, StackError
from infra.stack.stack import Addresses, Stack, clean_all, down_all

__all__ = ["Addresses", "PartDown", "Stack", "StackBusy", "StackError", "clean_all", "down_all"]
