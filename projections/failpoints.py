"""The named steps of the engine, and a way for a test to end the process at one of them.

A crash matrix must hit each step, not a moment near it: work, sinks and the log's adapter say `reach(step)` where they pass.
Nothing happens there unless `arm` was called, which no worker does by itself; the cost is one look at a name.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final

FETCHED: Final = "fetched"
"""Records were polled; nothing is done with them yet."""
DECODED: Final = "decoded"
"""Records are decoded and screened."""
SET_ASIDE: Final = "set_aside"
"""The bad ones are durable in quarantine; the checkpoint stands before them."""
APPLIED: Final = "applied"
"""Effects and checkpoint are written in the store's transaction, which is open; of a table of files: its files are there, no snapshot
names them."""
COMMITTED: Final = "committed"
"""The store, or Kafka, has committed; this process has not taken note of it."""
ENCODED: Final = "encoded"
"""An archive object is ready to be put."""
UPLOADED: Final = "uploaded"
"""An archive object is put; others of the same flush may not be."""
DECIDED: Final = "decided"
"""A transformer has said what to append; its state in memory is ahead of the log."""
PRODUCED: Final = "produced"
"""Appends are in an open Kafka transaction."""
OFFSETS_SENT: Final = "offsets_sent"
"""The position is in the open Kafka transaction too."""
INDEXED: Final = "indexed"
"""A transformer's local state has followed the log."""
SENT: Final = "sent"
"""A reactor's effect took place; its ledger does not know."""
MARKED: Final = "marked"
"""The ledger knows of the effect; the position stands before it."""
ACKNOWLEDGED: Final = "acknowledged"
"""The runner has taken note of the new position."""

_armed: _Armed | None = None


class _Armed:
    def __init__(self, step: str, passes: int, act: Callable[[], None]) -> None:
        self.step, self.left, self.act = step, passes, act


def end_process() -> None:
    """End this process at once, as kill -9 does: no handler runs, no buffer is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(step: str, passes: int = 1, act: Callable[[], None] = end_process) -> None:
    """Do `act` at the `passes`-th time that this process reaches the step. For tests."""
    global _armed
    _armed = _Armed(step, passes, act)


def reach(step: str) -> None:
    """Say that the step was reached."""
    armed = _armed
    if armed is not None and armed.step == step:
        armed.left -= 1
        if armed.left == 0:
            armed.act()
