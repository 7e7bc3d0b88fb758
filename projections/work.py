"""The three ways to commit: in the sink's own transaction, in a Kafka transaction, or by a ledger of sent effects.

Each is a `Work`: what the runner gives records to. Bad records go to quarantine, durably, before the position passes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import stamina
import structlog

from domain.log import Headers, NewRecord, Position, TopicPartition
from projections.decoding import decode, drop
from projections.errors import BatchRefused, StalePosition, StoreUnavailable
from projections.failpoints import COMMITTED, DECIDED, DECODED, INDEXED, MARKED, SENT, SET_ASIDE, reach
from projections.key_order import KeyOrder
from projections.protocol import EventBatch, Projection, Rejection
from projections.quarantine import QuarantineLog, quarantine_records
from projections.records import RecordBatch, by_topic
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.record_codec import RecordCodec

log = structlog.get_logger(__name__)
_Place = tuple[str, int, int]

STORE_ATTEMPTS = 8  # with backoff about 40 s: longer than a restart of any store here, shorter than a reader's patience


@dataclass(frozen=True, slots=True)
class Done:
    """What one flush did: records taken, of them quarantined, the position now stored, transactions that the store had to repeat."""

    records: int
    quarantined: int
    after: Position
    retries: int = 0


class Work(Protocol):
    """What the runner drives. `process` is atomic in the work's own store and moves its position from `before` to `after`."""

    name: str
    topics: tuple[str, ...]
    ordered_topic: str | None
    """A topic whose records must come in order of seq, if any."""

    def load_position(self) -> Position:
        """Where to go on, read from where the position is stored."""

    def next_seq(self) -> int:
        """The first seq not yet taken; asked only where `ordered_topic` is set."""

    def process(self, batches: Sequence[RecordBatch], strays: Sequence[Rejection], before: Position, after: Position) -> Done:
        """Take records in, with those that the order has no place for.

        Raises:
            StalePosition: another worker has written.
            StoreUnavailable: the store did not come back in time.
        """


Step = Callable[[Position, Position], Done]
"""The rest of a flush: given the positions before and after, it does what `Work.process` does."""


@runtime_checkable
class StagedWork(Work, Protocol):
    """A work whose next flush can be made ready while one is completed: `process` in two parts.

    `prepare` touches nothing that a step touches, for a step runs in another thread. Steps run one at a time, in the order
    in which they were prepared; after one that failed no other is run.
    """

    def prepare(self, batches: Sequence[RecordBatch]) -> Step:
        """Take records in, as far as that needs neither the store nor its position."""


class RawProjection(Protocol):
    """A projection that keeps records as received, poison included: nothing of it can be quarantined."""

    name: str
    topics: tuple[str, ...]

    def load_position(self) -> Position: ...

    def apply_records(self, batches: Sequence[RecordBatch], before: Position, after: Position) -> None:
        """As `Projection.apply`."""


@dataclass(frozen=True, slots=True)
class Append:
    """Records to append to one topic, in columns of equal length."""

    topic: str
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]


class Transformer(Protocol):
    """Reads events and appends events, in one Kafka transaction with its position. Its state is a function of the log.

    `process` may advance the state in memory before the transaction commits: after a failure the worker is restarted
    and `restore`d, never continued.
    """

    name: str
    topics: tuple[str, ...]
    ordered_topic: str | None
    reads: Mapping[str, tuple[str, ...]]
    is_raw: bool
    """Whether it decodes for itself; then `process` gets an empty `EventBatch`, and rejects by itself."""

    def next_seq(self) -> int: ...

    def process(self, events: EventBatch, batches: Sequence[RecordBatch]) -> tuple[list[Append], list[Rejection]]:
        """What to append for these records, and which of them are bad."""

    def committed(self) -> None:
        """The last `process` is durable in the log: local state may follow."""


class TransactionalLog(Protocol):
    """Appends and position in one atomic step of the log."""

    def load_position(self) -> Position: ...

    def commit(self, appends: Sequence[Append], records: Sequence[NewRecord], position: Position) -> None:
        """Append all and store the position, or nothing.

        Raises:
            Fenced: a newer owner of the transactional id is active.
            LogError: the log refused; the transaction was aborted.
        """


@dataclass(frozen=True, slots=True)
class Effect:
    """Something a reactor does outside the log. The same facts give the same `effect_id`."""

    effect_id: str
    perform: Callable[[], None]


class Reactor(Protocol):
    """Causes effects outside the log: at least once, each with a stable id."""

    name: str
    topics: tuple[str, ...]
    reads: Mapping[str, tuple[str, ...]]

    def effects(self, events: EventBatch) -> list[Effect]: ...


class Ledger(Protocol):
    """Which effects were sent, and the position up to which all were."""

    def load_position(self) -> Position: ...

    def was_sent(self, effect_id: str) -> bool: ...

    def mark_sent(self, effect_id: str) -> None: ...

    def store_position(self, position: Position) -> None: ...


class SinkWork:
    """Drives a projection: decode, quarantine what is bad, apply the rest with its position."""

    ordered_topic: str | None = None

    def __init__(self, projection: Projection, catalog: SchemaCatalog, quarantine: QuarantineLog, order: KeyOrder | None = None) -> None:
        self.name = projection.name
        self.topics = projection.topics
        self.projection = projection
        self._order = order if order is not None else KeyOrder(projection.name, getattr(projection, "key_ordered", frozenset()))
        self._codec = ColumnCodec(catalog, projection.reads)
        self._records = RecordCodec(catalog)
        self._quarantine = quarantine

    def load_position(self) -> Position:
        position = self.projection.load_position()
        self._order.loaded(position)
        return position

    def next_seq(self) -> int:
        raise AssertionError("a sink has no order to wait for")

    def process(self, batches: Sequence[RecordBatch], strays: Sequence[Rejection], before: Position, after: Position) -> Done:
        return self.prepare(batches)(before, after)

    def prepare(self, batches: Sequence[RecordBatch]) -> Step:
        """See `StagedWork`: decodes and screens; the step sets aside what is bad and applies the rest."""
        return self._prepare(batches, frozenset())

    def _prepare(self, batches: Sequence[RecordBatch], known: frozenset[_Place]) -> Step:
        events, rejections = decode(self._codec, batches)
        rejections += self.projection.screen(events)
        reach(DECODED)
        return partial(self._complete, batches, events, rejections, known)

    def _complete(
        self,
        batches: Sequence[RecordBatch],
        events: EventBatch,
        rejections: list[Rejection],
        known: frozenset[_Place],
        before: Position,
        after: Position,
    ) -> Done:
        repeated = self._retries()
        # Here and not before: what the flush before set aside is known only now.
        rejections, known = self._order.hold(batches, events, rejections, known)
        quarantined = self._set_aside(batches, [r for r in rejections if (r.topic, r.partition, r.offset) not in known])
        try:
            kept = drop(events, rejections)
            _apply(self.projection.load_position, lambda: self.projection.apply(kept, before, after), before, after)
        except BatchRefused as error:
            aside = known | {(r.topic, r.partition, r.offset) for r in rejections}
            return self._halve(batches, before, after, quarantined, aside, error)
        return Done(sum(map(len, batches)), quarantined, after, self._retries() - repeated)

    def _retries(self) -> int:
        """Transactions that the sink wrote again after a deadlock, ever; a sink that cannot meet one counts none."""
        return int(getattr(self.projection, "retries", 0))

    def _halve(
        self,
        batches: Sequence[RecordBatch],
        before: Position,
        after: Position,
        quarantined: int,
        known: frozenset[_Place],
        error: BatchRefused,
    ) -> Done:
        """A store that refuses a batch for its data: find the record by halving, so that the others are applied."""
        total = sum(map(len, batches))
        log.warning("batch_refused", projection=self.name, records=total, error=str(error))
        if total == 1:
            rejection = Rejection(
                batches[0].topic, int(batches[0].partitions[0]), int(batches[0].offsets[0]), "refused_by_store", str(error)
            )
            quarantined += self._set_aside(batches, [rejection])
            _apply(self.projection.load_position, lambda: self.projection.apply(EventBatch({}), before, after), before, after)
            return Done(1, quarantined, after)
        first, second = _split(batches)
        middle = {**before, **_next_offsets(first)}
        reached = {tp: middle[tp] for tp in after if tp in middle and middle[tp] != before.get(tp)}
        done = self._prepare(first, known)(before, reached)
        rest = self._prepare(second, known)(middle, {tp: after[tp] for tp in after if after[tp] != middle.get(tp)})
        return Done(done.records + rest.records, quarantined + done.quarantined + rest.quarantined, after, done.retries + rest.retries)

    def _set_aside(self, batches: Sequence[RecordBatch], rejections: Sequence[Rejection]) -> int:
        if rejections:
            found = quarantine_records(self._records, self.name, batches, rejections)
            self._quarantine.append(found)
            reach(SET_ASIDE)
            self._order.set_aside(batches, rejections)
            log.warning("records_quarantined", projection=self.name, records=len(found), reason=rejections[0].reason)
        return len(rejections)


class RawWork:
    """Drives a projection that keeps records as received."""

    ordered_topic: str | None = None

    def __init__(self, projection: RawProjection) -> None:
        self.name = projection.name
        self.topics = projection.topics
        self.projection = projection

    def load_position(self) -> Position:
        return self.projection.load_position()

    def next_seq(self) -> int:
        raise AssertionError("an archive has no order to wait for")

    def process(self, batches: Sequence[RecordBatch], strays: Sequence[Rejection], before: Position, after: Position) -> Done:
        return self.prepare(batches)(before, after)

    def prepare(self, batches: Sequence[RecordBatch]) -> Step:
        """See `StagedWork`: nothing to make ready, but the next records are polled while these are stored."""
        return partial(self._store, batches)

    def _store(self, batches: Sequence[RecordBatch], before: Position, after: Position) -> Done:
        _apply(self.projection.load_position, lambda: self.projection.apply_records(batches, before, after), before, after)
        return Done(sum(map(len, batches)), 0, after)


class TransactionWork:
    """Drives a transformer: its events, its bad records and its position in one Kafka transaction."""

    def __init__(self, transformer: Transformer, log_: TransactionalLog, catalog: SchemaCatalog) -> None:
        self.name = transformer.name
        self.topics = transformer.topics
        self.ordered_topic = transformer.ordered_topic
        self._transformer = transformer
        self._log = log_
        self._codec = ColumnCodec(catalog, transformer.reads)
        self._records = RecordCodec(catalog)

    def load_position(self) -> Position:
        return self._log.load_position()

    def next_seq(self) -> int:
        return self._transformer.next_seq()

    def process(self, batches: Sequence[RecordBatch], strays: Sequence[Rejection], before: Position, after: Position) -> Done:
        events, rejections = (EventBatch({}), []) if self._transformer.is_raw else decode(self._codec, batches)
        appends, refused = self._transformer.process(drop(events, strays), batches)
        reach(DECIDED)
        rejections = [*rejections, *refused, *strays]
        bad = quarantine_records(self._records, self.name, batches, rejections) if rejections else []
        if appends or bad or after:
            self._log.commit(appends, bad, after)
        reach(COMMITTED)
        self._transformer.committed()
        reach(INDEXED)
        return Done(sum(map(len, batches)), len(bad), after)


class LedgerWork:
    """Drives a reactor: each effect once it is not in the ledger, then the position."""

    ordered_topic: str | None = None

    def __init__(self, reactor: Reactor, ledger: Ledger, catalog: SchemaCatalog, quarantine: QuarantineLog) -> None:
        self.name = reactor.name
        self.topics = reactor.topics
        self._reactor = reactor
        self._ledger = ledger
        self._codec = ColumnCodec(catalog, reactor.reads)
        self._records = RecordCodec(catalog)
        self._quarantine = quarantine

    def load_position(self) -> Position:
        return self._ledger.load_position()

    def next_seq(self) -> int:
        raise AssertionError("a reactor has no order to wait for")

    def process(self, batches: Sequence[RecordBatch], strays: Sequence[Rejection], before: Position, after: Position) -> Done:
        events, rejections = decode(self._codec, batches)
        if rejections:
            self._quarantine.append(quarantine_records(self._records, self.name, batches, rejections))
        for effect in self._reactor.effects(events):
            if not self._ledger.was_sent(effect.effect_id):
                perform(effect, self._ledger)
        self._ledger.store_position(after)
        return Done(sum(map(len, batches)), len(rejections), after)


def perform(effect: Effect, ledger: Ledger) -> None:
    """Cause an effect, tried again while the other side does not answer, then mark it as sent.

    Raises:
        StoreUnavailable: the other side did not come back in time, or the ledger cannot be written.
    """
    for attempt in stamina.retry_context(on=StoreUnavailable, attempts=STORE_ATTEMPTS):
        with attempt:
            effect.perform()
    reach(SENT)
    ledger.mark_sent(effect.effect_id)
    reach(MARKED)


def _apply(load_position: Callable[[], Position], apply: Callable[[], None], before: Position, after: Position) -> None:
    """Apply with retries. After a lost answer the store says whether the transaction took place: never applied twice."""
    has_failed = False
    for attempt in stamina.retry_context(on=StoreUnavailable, attempts=STORE_ATTEMPTS, wait_max=10.0):
        with attempt:
            if has_failed:
                stored = load_position()
                if all(stored.get(tp) == offset for tp, offset in after.items()):
                    return
                if any(stored.get(tp) != before.get(tp) for tp in after):
                    raise StalePosition(f"expected the checkpoint {dict(before)}, found {dict(stored)}")
            has_failed = True
            apply()
            reach(COMMITTED)


def _split(batches: Sequence[RecordBatch]) -> tuple[list[RecordBatch], list[RecordBatch]]:
    merged = by_topic(batches)
    if len(merged) > 1:
        return merged[:1], merged[1:]
    middle = len(merged[0]) // 2
    return [merged[0].take(np.arange(middle))], [merged[0].take(np.arange(middle, len(merged[0])))]


def _next_offsets(batches: Sequence[RecordBatch]) -> dict[TopicPartition, int]:
    return {tp: offset for batch in batches for tp, offset in batch.next_offsets().items()}
