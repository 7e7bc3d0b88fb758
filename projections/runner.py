"""The one consume loop. Every worker is this loop around a `Work`.

It polls, keeps what it polled until a flush is due, hands it over with the positions before and after, and reports. It stops
cleanly between flushes; killed anywhere, the next start goes on from the stored position.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Protocol

import structlog

from domain.log import Position, TopicPartition
from projections.failpoints import ACKNOWLEDGED, FETCHED, reach
from projections.merge import SeqMerge
from projections.protocol import Rejection
from projections.records import RecordBatch, by_topic
from projections.work import Work

log = structlog.get_logger(__name__)

MAX_WAITING = 2_000_000  # records held for a smaller seq; more means that a seq is missing from the log


class Source(Protocol):
    """The runner's view of the log: committed records, from the positions that it is told."""

    def open(self, load_position: Callable[[], Position], on_revoked: Callable[[], None]) -> None:
        """Start to read. Each partition that comes in is read from `load_position`, asked anew; before partitions are given up
        `on_revoked` is called, so that what was polled can be stored."""

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
    """A report of one flush, for metrics and status: records, seconds in the work, the position and what waits."""

    name: str
    records: int
    quarantined: int
    seconds: float
    after: Position
    waiting: int


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
        self._buffer: list[RecordBatch] = []
        self._strays: list[Rejection] = []
        self._stray_batches: list[RecordBatch] = []
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
        if self._work.ordered_topic is not None:
            self._merge = SeqMerge(self._work.next_seq())
        self._source.open(self._load_position, self._flush)
        try:
            while not stop.is_set() and not self._has_reached(until):
                room = max(1, self._policy.max_records - self._buffered)
                batches = self._source.poll(room, self._policy.poll_timeout_s)
                self._take(batches)
                # What is there already is taken along: a flush has a fixed cost, and behind a backlog small ones would never catch up.
                while self._policy.gathers and batches and self._buffered < self._policy.max_records and not stop.is_set():
                    batches = self._source.poll(self._policy.max_records, 0.0)
                    self._take(batches)
                is_due = self._buffered >= self._policy.max_records or (
                    self._buffered and self._monotonic() - self._since >= self._policy.max_age_s
                )
                if is_due or self._would_reach(until):
                    self._flush()
            self._flush()
        finally:
            self._source.close()

    def _load_position(self) -> Position:
        self._position = dict(self._work.load_position())
        self._clear()
        return self._position

    def _take(self, batches: Sequence[RecordBatch]) -> None:
        if batches and not self._buffered:
            self._since = self._monotonic()
        for batch in batches:
            if self._merge is None or batch.topic != self._work.ordered_topic:
                self._buffer.append(batch)
                self._buffered += len(batch)
                continue
            ready, strays = self._merge.push(batch)
            self._buffer += ready
            self._buffered += sum(map(len, ready))
            if strays is not None:
                self._stray_batches.append(strays)
                self._buffered += len(strays)
                self._strays += [
                    Rejection(strays.topic, int(p), int(o), "out_of_order", "expected the next seq in its header, found none or an old one")
                    for p, o in zip(strays.partitions, strays.offsets, strict=True)
                ]
            if self._merge.waiting > MAX_WAITING:
                raise SeqGap(f"{self._work.name}: seq {self._merge.next_seq} never came, {self._merge.waiting} later records wait")

    def _flush(self) -> None:
        if not self._buffered:
            return
        reach(FETCHED)
        batches = by_topic(self._buffer)
        after = {tp: offset for batch in batches for tp, offset in batch.next_offsets().items()}
        self._pass_strays(after)
        before = {tp: self._position[tp] for tp in after if tp in self._position}
        started = self._monotonic()
        done = self._work.process([*batches, *self._stray_batches], self._strays, before, after)
        self._position.update(done.after)
        reach(ACKNOWLEDGED)
        seconds = self._monotonic() - started
        waiting = self._merge.waiting if self._merge is not None else 0
        self._clear()
        log.info("flushed", worker=self._work.name, records=done.records, seconds=round(seconds, 4), quarantined=done.quarantined)
        self._on_flushed(Flushed(self._work.name, done.records, done.quarantined, seconds, dict(self._position), waiting))

    def _pass_strays(self, after: dict[TopicPartition, int]) -> None:
        """A stray moves the position too, unless a record before it still waits for its turn."""
        if self._merge is None or not self._stray_batches:
            return
        waiting = self._merge.first_waiting()
        for batch in self._stray_batches:
            for partition, offset in zip(batch.partitions.tolist(), batch.offsets.tolist(), strict=True):
                tp = (batch.topic, partition)
                if offset < waiting.get(partition, offset + 1):
                    after[tp] = max(after.get(tp, 0), offset + 1)

    def _clear(self) -> None:
        self._buffer, self._strays, self._stray_batches, self._buffered = [], [], [], 0

    def _has_reached(self, until: Position | None) -> bool:
        return until is not None and all(self._position.get(tp, 0) >= offset for tp, offset in until.items())

    def _would_reach(self, until: Position | None) -> bool:
        if until is None or not self._buffered:
            return False
        reached = {**self._position}
        for batch in self._buffer:
            for tp, offset in batch.next_offsets().items():
                reached[tp] = max(reached.get(tp, 0), offset)
        return all(reached.get(tp, 0) >= offset for tp, offset in until.items())
