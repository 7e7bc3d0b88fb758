"""What the supervisor must know about one part of the stack: how to start it, tell that it is ready, and stop it."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# The parts that `up` starts, in the order in which they are shown.
SERVERS = ("kafka", "registry", "s3", "postgres", "neo4j", "guides", "aws")


def nothing() -> None:
    """Do nothing: the default of every optional step."""


@dataclass(frozen=True)
class Part:
    """One process that the supervisor keeps running.

    `prepare` runs before each start and may take seconds; `probe` raises until the part answers by its own protocol;
    `on_ready` runs once after each start, when the probe has passed and before the part counts as ready.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    folder: Path
    prepare: Callable[[], None] = nothing
    probe: Callable[[], None] = nothing
    on_ready: Callable[[], None] = nothing
    ports: Sequence[int] = ()
    depends_on: Sequence[str] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 20.0
    is_worker: bool = False
    restarts_after_success: bool = True

    @property
    def fingerprint(self) -> str:
        """Tell whether a running process is the one that is wanted: a hash of its command and environment."""
        text = json.dumps([list(self.argv), sorted(self.env.items())])
        return hashlib.sha256(text.encode()).hexdigest()[:16]
