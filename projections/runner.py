"""The one consume loop. Every worker is this loop around a `Work`.

It polls, keeps what it polled until a flush is due, hands it over with the positions before and after, and reports. It stops
cleanly between flushes; killed anywhere, the next start goes on from the stored position. Where the work allows it
(`work.StagedWork`) a flush is completed in a thread of its own while the next one is polled and made ready: one at a
time, in order, and none after one that failed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Protocol

import structlog

from domain.log import Position, TopicPartition
from projections.errors import StalePosition
from projections.failpoints import ACKNOWLEDGED, FETCHED, reach
from projections.merge import SeqMerge
from projections.overlap import InOrder
from projections.protocol import Rejection
from projections.records import RecordBatch, by_topic
from projections.work import Done, StagedWork, Work

log = structlog.get_logger(__name__)

MAX_WAITING = 2_000_000  # records held for a smaller seq; more means that a seq is missing from the log


class Source(Protocol):
    """The runner's view of the log: committed records, from the positions that it is told."""

    def open(self, load_position: Callable[[], Position], on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Start to read. Each partition that comes in is read from `load_position`, asked anew; before partitions are given up
        `on_revoked` is called, so that what was polled can be stored. Where they went to another reader before this one could be
        asked (it had stood still), `on_lost` is called: what was polled is not to be stored any more."""

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Up to `max_records` records, at most one batch a topic; an empty list when `timeout_s` passed without any.

        Raises:
            LogError: the log cannot be read.
        """

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """When what was polled is handed over: at `max_records`, or `max_age_s` after the first of it came.

    `gathers`: take along all that is there already before looking at the age; for work whose every flush is a Kafka transaction.
    """

    max_records: int = 50_000
    max_age_s: float = 1.0
    poll_timeout_s: float = 0.2
    gathers: bool = False


@dataclass(frozen=True, slots=True)
class Flushed:
    """A report of one flush, for metrics and status: records, seconds in the work, the position, what waits, and the transactions that
    the store had to repeat (deadlocks)."""

    name: str
    records: int
    quarantined: int
    seconds: float
    after: Position
    waiting: int
    retries: int = 0


class SeqGap(RuntimeError):
    """A seq never came although later ones did: the log is corrupt or was written by a second handler."""


class Runner:
    """Drives one `Work` until stopped.

    Args:
        on_flushed: told of each flush.
        monotonic: the clock that ages are taken from, in seconds.
    """

    def __init__(
        self,
        source: Source,
        work: Work,
        policy: FlushPolicy,
        on_flushed: Callable[[Flushed], None] = lambda flushed: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._work = work
        self._policy = policy
        self._on_flushed = on_flushed
        self._monotonic = monotonic
        self._position: dict[TopicPartition, int] = {}
        self._handed: dict[TopicPartition, int] = {}
        self._polled: dict[TopicPartition, int] = {}
        self._steps: InOrder[tuple[Done, float]] = InOrder(work.name)
        self._buffer: list[RecordBatch] = []
        self._strays: list[Rejection] = []
        self._stray_batches: list[RecordBatch] = []
        self._not_passed: dict[TopicPartition, deque[int]] = {}  # offsets of strays that the position has not passed, ascending
        self._buffered = 0
        self._since = 0.0
        self._merge: SeqMerge | None = None

    def run(self, stop: Event, until: Position | None = None) -> None:
        """Run until `stop` is set, or every partition in `until` has been reached.

        Raises:
            StalePosition: another worker has taken over; nothing was written twice.
            StoreUnavailable: the store did not come back.
            LogError: the log cannot be read or refused a transaction.
            SeqGap: the order has a hole.
        """
        self._steps = InOrder(self._work.name)
        if self._work.ordered_topic is not None:
            self._merge = SeqMerge(self._work.next_seq())
        self._source.open(self._load_position, self._store_polled, self._forget_polled)
        try:
            while not stop.is_set() and not self._has_reached(until):
                room = max(1, self._policy.max_records - self._buffered)
                batches = self._source.poll(room, self._policy.poll_timeout_s)
                self._take(batches)
                # What is there already is taken along: a flush has a fixed cost, and behind a backlog small ones would never catch up.
                while self._policy.gathers and batches and self._buffered < self._policy.max_records and not stop.is_set():
                    batches = self._source.poll(self._policy.max_records, 0.0)
                    self._take(batches)
                # Behind a step that runs a flush would only wait: it may as well grow.
                is_due = self._buffered >= self._policy.max_records or (
                    self._buffered and not self._steps.is_busy and self._monotonic() - self._since >= self._policy.max_age_s
                )
                is_last = self._would_reach(until)
                if is_due or is_last:
                    self._flush()
                if is_last or not self._steps.is_busy:
                    self._settle()
            self._store_polled()
        finally:
            self._steps.close()
            self._source.close()

    def _load_position(self) -> Position:
        # Partitions come in beside others that stay: of those all that was polled is stored first, so that one position is true of all.
        self._store_polled()
        self._position = dict(self._work.load_position())
        self._handed = dict(self._position)
        self._clear()
        return self._position

    def _take(self, batches: Sequence[RecordBatch]) -> None:
        if batches and not self._buffered:
            self._since = self._monotonic()
        for batch in batches:
            if self._merge is None or batch.topic != self._work.ordered_topic:
                self._keep(batch)
                continue
            ready, strays = self._merge.push(batch)
            for part in ready:
                self._keep(part)
            if strays is not None:
                self._stray_batches.append(strays)
                self._buffered += len(strays)
                self._strays += [
                    Rejection(strays.topic, int(p), int(o), "out_of_order", "expected the next seq in its header, found none or an old one")
                    for p, o in zip(strays.partitions, strays.offsets, strict=True)
                ]
            if self._merge.waiting > MAX_WAITING:
                raise SeqGap(f"{self._work.name}: seq {self._merge.next_seq} never came, {self._merge.waiting} later records wait")

    def _keep(self, batch: RecordBatch) -> None:
        self._buffer.append(batch)
        self._buffered += len(batch)
        for tp, offset in batch.next_offsets().items():
            self._polled[tp] = max(self._polled.get(tp, 0), offset)

    def _store_polled(self) -> None:
        """All that was polled is stored when this returns."""
        self._flush()
        self._settle()

    def _forget_polled(self) -> None:
        """Others own the partitions already. A flush that is under way finds that out from the checkpoint, or was in time."""
        self._clear()
        self._handed, self._not_passed = {}, {}
        try:
            self._settle()
        except StalePosition as error:
            log.warning("fenced", worker=self._work.name, error=str(error))
            self._steps.close()
            self._steps = InOrder(self._work.name)

    def _flush(self) -> None:
        if not self._buffered:
            return
        reach(FETCHED)
        batches = by_topic(self._buffer)
        after = dict(self._polled)
        self._pass_strays(after)
        before = {tp: self._handed[tp] for tp in after if tp in self._handed}
        if isinstance(self._work, StagedWork):
            step = partial(self._work.prepare(batches), before, after)
            self._settle()
            self._steps.give(partial(self._timed, step))
        else:
            step = partial(self._work.process, [*batches, *self._stray_batches], self._strays, before, after)
            self._report(*self._timed(step))
        self._handed.update(after)
        self._clear()

    def _settle(self) -> None:
        finished = self._steps.settle()
        if finished is not None:
            self._report(*finished)

    def _timed(self, step: Callable[[], Done]) -> tuple[Done, float]:
        started = self._monotonic()
        done = step()
        return done, self._monotonic() - started

    def _report(self, done: Done, seconds: float) -> None:
        self._position.update(done.after)
        reach(ACKNOWLEDGED)
        waiting = self._merge.waiting if self._merge is not None else 0
        log.info("flushed", worker=self._work.name, records=done.records, seconds=round(seconds, 4), quarantined=done.quarantined,
                 retries=done.retries)  # fmt: skip
        self._on_flushed(Flushed(self._work.name, done.records, done.quarantined, seconds, dict(done.after), waiting, done.retries))

    def _pass_strays(self, after: dict[TopicPartition, int]) -> None:
        """A stray moves the position too, once no record before it waits for its turn any more: with this flush or with a later one."""
        for batch in self._stray_batches:
            for partition, offset in zip(batch.partitions.tolist(), batch.offsets.tolist(), strict=True):
                self._not_passed.setdefault((batch.topic, partition), deque()).append(offset)
        if self._merge is None or not self._not_passed:
            return
        waiting = self._merge.first_waiting()
        for tp, offsets in self._not_passed.items():
            while offsets and offsets[0] < waiting.get(tp[1], offsets[0] + 1):
                after[tp] = max(after.get(tp, 0), offsets.popleft() + 1)
        self._not_passed = {tp: offsets for tp, offsets in self._not_passed.items() if offsets}

    def _clear(self) -> None:
        self._buffer, self._strays, self._stray_batches, self._buffered, self._polled = [], [], [], 0, {}

    def _has_reached(self, until: Position | None) -> bool:
        return until is not None and all(self._position.get(tp, 0) >= offset for tp, offset in until.items())

    def _would_reach(self, until: Position | None) -> bool:
        if until is None or not self._buffered:
            return False
        return all(max(self._handed.get(tp, 0), self._polled.get(tp, 0)) >= offset for tp, offset in until.items())
