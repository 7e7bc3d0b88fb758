"""Ends a worker that stands still: a call into a client's library that never returns holds its partitions for ever, and says nothing.

A group's heartbeats come from the library's own threads, so neither Kafka nor the supervisor sees that the loop has stopped. Here
Python's faulthandler counts on a thread that needs no interpreter: it writes where every thread stands to standard error, and ends the
process. What was not committed is done again by the next one, as after any crash.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Callable

from domain.log import Position
from projections.records import RecordBatch
from projections.runner import Source

STILL_S = 240.0
"""So long may one step take: a store that does not answer is given up, in words, well before that."""
_ARM_EVERY_S = 5.0  # arming starts a thread


def arm(still_s: float = STILL_S) -> None:
    """End this process in so many seconds, unless armed again or released before."""
    faulthandler.dump_traceback_later(still_s, exit=True)


def release() -> None:
    """Watch no longer."""
    faulthandler.cancel_dump_traceback_later()


class Watched:
    """A source whose polls show that the loop goes on: the process ends when one is `still_s` seconds late. Closing takes its time
    out of the same; whoever closes last releases.
    """

    def __init__(self, source: Source, still_s: float = STILL_S) -> None:
        self._source, self._still_s = source, still_s
        self._armed_at = 0.0

    def open(self, load_position: Callable[[], Position], on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """See `projections.runner.Source`."""
        self._arm()
        self._source.open(load_position, on_revoked, on_lost)

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """See `projections.runner.Source`."""
        if time.monotonic() - self._armed_at >= min(_ARM_EVERY_S, self._still_s / 4):
            self._arm()
        return self._source.poll(max_records, timeout_s)

    def close(self) -> None:
        """See `projections.runner.Source`."""
        self._arm()
        self._source.close()

    def _arm(self) -> None:
        arm(self._still_s)
        self._armed_at = time.monotonic()
