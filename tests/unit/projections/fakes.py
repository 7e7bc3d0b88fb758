"""Fakes of our own ports: a log to poll, a sink, a quarantine, a ledger; and records to feed them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Event as ThreadEvent
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from domain.log import NewRecord, Position, Record
from projections.errors import BatchRefused, StalePosition, StoreUnavailable
from projections.protocol import EventBatch, Excluded, Rejection
from projections.records import HeaderColumn, RecordBatch, seq_header
from projections.work import Done, Step
from schema_registry.byte_column import ByteColumn
from schema_registry.catalog import SchemaCatalog
from schema_registry.contracts import TRANSACTION_EVENTS, WALLET_EVENTS
from schema_registry.record_codec import RecordCodec
from tests.unit.domain.facts import transaction

CATALOG = SchemaCatalog.numbered()
CODEC = RecordCodec(CATALOG)
T, W = TRANSACTION_EVENTS, WALLET_EVENTS
_PLACE = (("_topic", pa.string()), ("_partition", pa.int32()), ("_offset", pa.int64()))


def value_of(number: int, **changes: Any) -> bytes:
    """Transaction `number` as bytes."""
    return CODEC.encode_event(transaction(tx_id=f"ethereum:{number}:0", **changes))


def record(offset: int, seq: int | None = None, *, partition: int = 0, topic: str = T, value: bytes | None = None) -> Record:
    """A record at its place; by default a transaction numbered by its seq or offset."""
    number = offset if seq is None else seq
    headers = () if seq is None else (seq_header(seq),)
    return Record(topic, partition, offset, 1_000 + offset, b"k", value_of(number) if value is None else value, headers)


def batch_of(*records: Record) -> RecordBatch:
    """Records of one topic as polled."""
    return RecordBatch.of(records)


def in_columns(batch: RecordBatch) -> RecordBatch:
    """The same records as the log gives them: columns in place of lists."""
    pairs = [pair for headers in batch.headers for pair in headers or ()]
    ends = np.cumsum([0, *(len(headers or ()) for headers in batch.headers)])
    headers = HeaderColumn(ends, ByteColumn.of([name.encode() for name, _ in pairs]), ByteColumn.of([content for _, content in pairs]))
    return replace(batch, keys=ByteColumn.of(batch.keys), values=ByteColumn.of(batch.values), headers=headers)


def offsets_of(batches: Iterable[RecordBatch]) -> list[tuple[int, int]]:
    """(partition, offset) of each record."""
    return [(p, o) for batch in batches for p, o in zip(batch.partitions.tolist(), batch.offsets.tolist(), strict=True)]


class FakeSource:
    """Gives what it was told, then nothing; a step may be a function that is called instead (a revocation, a stop)."""

    def __init__(self, *steps: list[RecordBatch] | Callable[[], None]) -> None:
        self.steps = list(steps)
        self.asked: list[int] = []
        self.is_closed = False
        self.assign: Callable[[], Position] = dict
        self.revoke: Callable[[], None] = lambda: None
        self.lose: Callable[[], None] = lambda: None
        self.after_all: Callable[[], None] = lambda: None

    def open(self, load_position: Callable[[], Position], on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self.assign, self.revoke, self.lose = load_position, on_revoked, on_lost
        load_position()

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        self.asked.append(max_records)
        if not self.steps:
            self.after_all()
            return []
        step = self.steps.pop(0)
        if callable(step):
            step()
            return []
        return step

    def close(self) -> None:
        self.is_closed = True


class ListWork:
    """Remembers what it was given."""

    name = "list"
    topics: tuple[str, ...] = (T,)

    def __init__(self, position: Position | None = None, ordered_topic: str | None = None, next_seq: int = 0) -> None:
        self.position = dict(position or {})
        self.ordered_topic = ordered_topic
        self.first_seq = next_seq
        self.calls: list[tuple[list[RecordBatch], list[Rejection], Position, Position]] = []

    def load_position(self) -> Position:
        return self.position

    def next_seq(self) -> int:
        return self.first_seq

    def process(self, batches: Sequence[RecordBatch], strays: Sequence[Rejection], before: Position, after: Position) -> Done:
        self.calls.append((list(batches), list(strays), before, after))
        self.position.update(after)
        return Done(sum(map(len, batches)), len(strays), after)


class MemoryTable:
    """One generation in memory: rows, where each came from, and the checkpoint. Sinks that share it are several writers on one store."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.places: list[tuple[str, int, int]] = []
        self.position: dict[tuple[str, int], int] = {}
        self.is_lossy = False
        self.lock = Lock()


class MemorySink:
    """A projection in memory: rows and checkpoint move together, by compare-and-set. The hooks are moments at which a test may act."""

    name = "memory"
    topics: tuple[str, ...] = (T,)
    reads: Mapping[str, tuple[str, ...]] = {"TransactionRecorded": ("tx_id", "block")}

    def __init__(self, table: MemoryTable | None = None) -> None:
        self.table = table if table is not None else MemoryTable()
        self.rows, self.position = self.table.rows, self.table.position
        self.applied = 0
        self.refuses: set[str] = set()
        self.takes_block_13 = False
        self.fail_before_commit = 0
        self.fail_after_commit = 0
        self.at_apply: Callable[[], None] = lambda: None
        self.at_commit: Callable[[], None] = lambda: None
        self.at_committed: Callable[[], None] = lambda: None

    def load_position(self) -> Position:
        with self.table.lock:
            return dict(self.position)

    def screen(self, batch: EventBatch) -> Sequence[Rejection]:
        table = batch.tables.get("TransactionRecorded")
        rows = table.to_pylist() if table is not None and not self.takes_block_13 else []
        return [
            Rejection(row["_topic"], row["_partition"], row["_offset"], "block_13", "expected another block, found 13")
            for row in rows
            if row["block"] == 13
        ]

    def apply(self, batch: EventBatch, before: Position, after: Position) -> None:
        self.applied += 1
        self.at_apply()
        if self.fail_before_commit:
            self.fail_before_commit -= 1
            raise StoreUnavailable("the store is away")
        with self.table.lock:
            if any(self.position.get(tp) != before.get(tp) for tp in after):
                raise StalePosition(f"expected {dict(before)}, found {self.position}")
            found = [row for table in batch.tables.values() for row in table.to_pylist()]
            if self.refuses & {row["tx_id"] for row in found}:
                raise BatchRefused("the store does not like a row")
            self.at_commit()
            self.rows += [row["tx_id"] for row in found]
            self.table.places += [(row["_topic"], row["_partition"], row["_offset"]) for row in found]
            self.position.update(after)
        self.at_committed()
        if self.fail_after_commit:
            self.fail_after_commit -= 1
            raise StoreUnavailable("the answer was lost")

    def expected(self, batches: Iterator[EventBatch], excluded: Excluded) -> Iterator[tuple[str, pa.Table]]:
        for batch in batches:
            for table in batch.tables.values():
                yield "rows", table.select(["_topic", "_partition", "_offset", "tx_id"])

    def read_back(self) -> Iterator[tuple[str, pa.Table]]:
        with self.table.lock:
            places, rows = list(zip(*self.table.places, strict=True)) or [(), (), ()], list(self.rows)
        columns = {name: pa.array(list(places[i]), kind) for i, (name, kind) in enumerate(_PLACE)}
        yield "rows", pa.table({**columns, "tx_id": pa.array(rows, pa.string())})


class MemoryQuarantine:
    """The quarantine topic as a list."""

    def __init__(self) -> None:
        self.records: list[NewRecord] = []

    def append(self, records: list[NewRecord]) -> None:
        self.records += records

    def entries(self) -> list[dict[str, Any]]:
        return [CODEC.decode(record.value)[1] for record in self.records]


class MemoryLedger:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self.position: Position = {}

    def load_position(self) -> Position:
        return self.position

    def was_sent(self, effect_id: str) -> bool:
        return effect_id in self.sent

    def mark_sent(self, effect_id: str) -> None:
        self.sent.add(effect_id)

    def store_position(self, position: Position) -> None:
        self.position = {**self.position, **position}


def table_of(**columns: list[Any]) -> pa.Table:
    """A small table."""
    return pa.table(columns)


class StagedListWork(ListWork):
    """The same in two parts. Each step waits until it may `go_on` and then does what `fails` says of its number, from 0."""

    def __init__(self, position: Position | None = None) -> None:
        super().__init__(position)
        self.go_on = ThreadEvent()
        self.go_on.set()
        self.prepared = 0
        self.on_prepared: Callable[[int], None] = lambda number: None
        self.running = 0
        self.overlapped = False
        self.fails: dict[int, BaseException] = {}

    def process(self, batches: Sequence[RecordBatch], strays: Sequence[Rejection], before: Position, after: Position) -> Done:
        raise AssertionError("a staged work is given to in two parts")

    def prepare(self, batches: Sequence[RecordBatch]) -> Step:
        number, self.prepared = self.prepared, self.prepared + 1
        self.on_prepared(number)

        def step(before: Position, after: Position) -> Done:
            self.overlapped |= self.running > 0
            self.running += 1
            assert self.go_on.wait(10)
            self.running -= 1
            if number in self.fails:
                raise self.fails[number]
            return super(StagedListWork, self).process(batches, (), before, after)

        return step
