"""What an exit status means, and which error gives which."""

from __future__ import annotations

from domain.errors import Fenced, LogError
from graph.errors import GraphUnavailable
from infra.composition import NotReady
from infra.settings import SettingsError
from infra.stack.errors import PartDown, StackError
from projections.errors import StoreUnavailable

OK = 0
FAILED = 1
USAGE = 2
RED = 3
DOWN = 4
NOT_READY = 5
STOPPED = 130

MEANINGS = {
    OK: "done",
    FAILED: "failed; the message says why",
    USAGE: "the command or a setting is wrong",
    RED: "a store does not equal the log",
    DOWN: "a server is down",
    NOT_READY: "something must be done first, or a worker is behind",
    STOPPED: "stopped by Ctrl-C",
}
"""Every exit status with its meaning, for scripts."""


def status_of(error: BaseException) -> int:
    """The exit status that an error gives."""
    if isinstance(error, SettingsError):
        return USAGE
    if isinstance(error, Fenced):
        return FAILED
    if isinstance(error, (PartDown, StoreUnavailable, GraphUnavailable, LogError)):
        return DOWN
    if isinstance(error, NotReady):
        return NOT_READY
    return DOWN if isinstance(error, StackError) and "does not start" in str(error) else FAILED
