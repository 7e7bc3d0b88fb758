"""What an exit status means, and which error gives which."""

from __future__ import annotations

from domain.errors import Fenced, LogError, TidemarkError

OK = 0
FAILED = 1
USAGE = 2
RED = 3
DOWN = 4
NOT_READY = 5
HELD_BACK = 6
STOPPED = 130

MEANINGS = {
    OK: "done",
    FAILED: "failed; the message says why",
    USAGE: "the command or a setting is wrong",
    RED: "a store does not equal the log",
    DOWN: "a server is down",
    NOT_READY: "something must be done first, or a worker is behind",
    HELD_BACK: "a gate held a model back",
    STOPPED: "stopped by Ctrl-C",
}
"""Every exit status with its meaning, for scripts."""


def is_expected(error: BaseException) -> bool:
    """Whether an error is one of ours: a sentence says all, a traceback says nothing more."""
    # Imported only once something failed: a help text must not wait for it.
    from infra.composition import NotReady

    return isinstance(error, (TidemarkError, NotReady))


def status_of(error: BaseException) -> int:
    """The exit status that an error gives."""
    from graph.errors import GraphUnavailable
    from infra.composition import NotReady
    from infra.settings import SettingsError
    from infra.stack.errors import PartDown
    from projections.errors import StoreUnavailable

    if isinstance(error, SettingsError):
        return USAGE
    if isinstance(error, NotReady):
        return NOT_READY
    is_down = isinstance(error, (PartDown, StoreUnavailable, GraphUnavailable, LogError)) and not isinstance(error, Fenced)
    return DOWN if is_down else FAILED
