"""Ctrl-C during work that has places where it may stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

from infra.cli import output


def told_to_end() -> Event:
    """Set by Ctrl-C, or by the supervisor's signal: for what serves until then."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


@contextmanager
def until_interrupted(saying: str) -> Iterator[Event]:
    """The first Ctrl-C is set and answered with a line, so that the work can stop where nothing is left half done; a second one ends
    at once."""
    stop = Event()

    def interrupted(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        output.say(saying)

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
