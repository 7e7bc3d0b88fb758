"""A worker in a thread of its own that a test moves by hand: the real runner and work, a log that is handed out, a store that can stall.

Between two moves nothing runs, so a test decides every order: `settle` returns once the worker waits for records, is stalled in
its store, or has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Queue
from threading import Condition, Event
from typing import Any, Literal

from domain.log import Position, TopicPartition
from projections.key_order import KeyOrder
from projections.quarantine import QuarantineLog
from projections.records import RecordBatch
from projections.runner import FlushPolicy, Runner
from projections.work import SinkWork, Step
from tests.unit.projections.fakes import CATALOG, MemorySink

WAIT_S = 120.0  # nothing here takes a second: a longer wait is a deadlock
MOST_RECORDS = 4

Outcome = Literal["commits", "away", "answer_lost", "dies_before", "dies_after"]


class Killed(BaseException):
    """The process is no more: nothing that runs after this may touch what outlives it."""


class LockstepWorker:
    """One process of a projection.

    Args:
        read: the records of some partitions from a position on, at most as many as given.
        order: what the projection must not take.
        quarantine: where bad records go.
    """

    def __init__(
        self,
        sink: MemorySink,
        read: Callable[[Position, int], list[RecordBatch]],
        order: KeyOrder,
        quarantine: Any,
        parts: Sequence[TopicPartition],
    ) -> None:
        self.sink, self._read = sink, read
        self.parts, self.reached = tuple(parts), dict[TopicPartition, int]()
        self.error: BaseException | None = None
        self.is_dead = False
        self._moves: Queue[Callable[[], list[RecordBatch]]] = Queue()
        self._outcomes: Queue[Outcome] = Queue()
        self._turn = Condition()
        self._is_polling = self._has_ended = self._is_stalled = self.stalls = False
        self._prepared = self._finished = 0
        self._stop = Event()
        sink.at_apply, sink.at_committed = self._in_store, self._after_commit
        self._dies_after = False
        work = _Observed(self, sink, order, quarantine)
        self._runner = Runner(self, work, FlushPolicy(MOST_RECORDS, 0.0, 0.0))
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        self.settle()

    @property
    def is_stalled(self) -> bool:
        """Whether it stands in its store, before the transaction."""
        return self._is_stalled

    @property
    def has_ended(self) -> bool:
        return self._has_ended

    @property
    def is_idle(self) -> bool:
        """Whether it waits for records."""
        return self._is_polling and not self._has_ended

    def give(self, most: int, stalls: bool = False) -> None:
        """Let it poll up to `most` records; with `stalls` the flush they belong to stops in the store."""
        self.stalls = stalls
        self._move(lambda: self._fetch(most))

    def revoke(self) -> None:
        """Take its partitions away, in its own poll as Kafka does: what it had polled is stored."""
        self._move(lambda: self._called(self._on_revoked, ()))

    def assign(self, parts: Sequence[TopicPartition]) -> None:
        """Give it partitions, read from the position that it loads now."""
        self._move(lambda: self._called(self._load, parts))

    def release(self, outcome: Outcome) -> None:
        """Let the stalled store go on to an end."""
        self._is_stalled = False
        self._outcomes.put(outcome)
        self.settle()

    def stop(self) -> None:
        """End it as SIGTERM does."""
        self._stop.set()
        self._move(list)

    def kill(self) -> None:
        """End it as SIGKILL does."""
        self.is_dead = True
        if self._is_stalled:
            self.release("dies_before")
        if not self._has_ended:
            self._move(list)
        self._thread.join(WAIT_S)
        assert self._has_ended

    def settle(self) -> None:
        """Wait until it can do nothing by itself."""
        with self._turn:
            assert self._turn.wait_for(self._is_quiet, WAIT_S), "the worker neither waits, nor is stalled, nor has ended"

    # The runner's source.

    def open(self, load_position: Callable[[], Position], on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self._load, self._on_revoked = load_position, on_revoked
        self._called(load_position, self.parts)

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        with self._turn:
            self._is_polling = True
            self._turn.notify_all()
        move = self._moves.get()
        if self.is_dead:
            raise Killed
        self._room = max_records
        return move()

    def close(self) -> None:
        pass

    def _live(self) -> None:
        try:
            self._runner.run(self._stop)
        except BaseException as error:
            self.error = error
        with self._turn:
            self._has_ended = True
            self._turn.notify_all()

    def _move(self, move: Callable[[], list[RecordBatch]]) -> None:
        with self._turn:
            self._is_polling = False
        self._moves.put(move)
        self.settle()

    def _fetch(self, most: int) -> list[RecordBatch]:
        found = self._read({tp: self.reached[tp] for tp in self.parts}, min(most, self._room))
        for batch in found:
            self.reached.update(batch.next_offsets())
        return found

    def _called(self, callback: Callable[[], Position | None], parts: Sequence[TopicPartition]) -> list[RecordBatch]:
        position = callback() or {}
        self.parts = tuple(parts)
        self.reached = {tp: position.get(tp, 0) for tp in parts}
        return []

    def _is_quiet(self) -> bool:
        if self._has_ended:
            return True
        outstanding = self._prepared - self._finished
        # Two outstanding: the loop waits for the stalled one before it may give the next.
        return (self._is_stalled and (self._is_polling or outstanding == 2)) or (self._is_polling and outstanding == 0)

    def _in_store(self) -> None:
        if self.is_dead:
            raise Killed
        if not self.stalls:
            return
        with self._turn:
            self._is_stalled = True
            self._turn.notify_all()
        outcome = self._outcomes.get()
        if outcome == "dies_before":
            self.is_dead = True
            raise Killed
        self.stalls = outcome == "away"  # then it stands here again
        self._dies_after = outcome == "dies_after"
        self.sink.fail_before_commit = int(outcome == "away")
        self.sink.fail_after_commit = int(outcome == "answer_lost")

    def _after_commit(self) -> None:
        if self._dies_after:
            self.is_dead = True
            raise Killed

    def note(self, prepared: int = 0, finished: int = 0) -> None:
        with self._turn:
            self._prepared += prepared
            self._finished += finished
            self._turn.notify_all()


class _Observed(SinkWork):
    """The real work, which says when a flush was made ready and when it ended."""

    def __init__(self, worker: LockstepWorker, sink: MemorySink, order: KeyOrder, quarantine: QuarantineLog) -> None:
        super().__init__(sink, CATALOG, quarantine, order)
        self._worker = worker

    def prepare(self, batches: Sequence[RecordBatch]) -> Step:
        step = super().prepare(batches)
        self._worker.note(prepared=1)

        def observed(before: Position, after: Position) -> Any:
            try:
                return step(before, after)
            finally:
                self._worker.note(finished=1)

        return observed


__all__ = ["Killed", "LockstepWorker", "Outcome"]
