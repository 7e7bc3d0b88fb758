"""Repair in place: a part of the warehouse is deleted and applied again from the log, slice by slice, while its worker goes on.

The graph cannot be repaired in part: a flow's sum and a wallet's degree are folded from many records and remember none of them, and a
wallet keeps only the last of its labels, descriptions and scores. What would be applied again cannot be taken out first. Its repair
is the rebuild, which runs beside the live one just as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import stamina

from domain.errors import InvalidValue
from domain.log import Position, TopicPartition
from infra.composition import Composition
from projections.decoding import decode, drop
from projections.errors import StoreUnavailable
from projections.protocol import EventBatch, Rejection
from projections.records import RecordBatch
from projections.warehouse.repair import Range, Reapplied, RepairableWarehouse, RepairRefused
from schema_registry.column_codec import ColumnCodec

SLICE_RECORDS = 20_000  # the live worker waits for one slice: below a second
_ATTEMPTS = 8
Progress = Callable[[int, int], None]
"""Told offsets done and offsets in all."""


@dataclass(slots=True)
class RepairResult:
    """What a repair did: slices, records of the log applied again, and rows of facts deleted and written."""

    name: str
    generation: int
    slices: int = 0
    records: int = 0
    deleted: int = 0
    written: int = 0

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "name": self.name, "generation": self.generation, "slices": self.slices, "records": self.records,
            "deleted": self.deleted, "written": self.written,
        }  # fmt: skip


def position_at(composition: Composition, topics: tuple[str, ...], at_ms: int) -> Position:
    """The first offset of each partition whose record was appended at a time or later; the end where there is none.

    Args:
        at_ms: milliseconds since 1970.

    Raises:
        HistoryIncomplete: the time lies before what Kafka holds, and the archive does not have it.
    """
    found = dict(composition.clients.admin.at_time(topics, at_ms))
    starts = composition.log.starts(topics)
    # Kafka's answer is sure unless it is the first record that is left: an earlier one may be in the archive.
    unsure = [tp for tp, start in starts.items() if start and found[tp] <= start]
    if unsure:
        ends = {tp: starts[tp] for tp in unsure}
        least: dict[TopicPartition, int] = {}
        for batch in composition.log.read(sorted({topic for topic, _ in unsure}), {}, ends):
            for partition in np.unique(batch.partitions).tolist():
                tp = (batch.topic, partition)
                late = batch.offsets[(batch.partitions == partition) & (batch.timestamps_ms >= at_ms)]
                if len(late):
                    least[tp] = min(least.get(tp, int(late[0])), int(late[0]))
        found.update(least)
    return found


def repair(
    composition: Composition,
    name: str,
    *,
    start: Position,
    end: Position | None = None,
    wallet: str | None = None,
    progress: Progress = lambda done, total: None,
    on_slice: Callable[[Position], None] = lambda reached: None,
) -> RepairResult:
    """Delete and apply again what lies from `start` to `end`, at most up to the checkpoint, which stays where it is.

    Args:
        start: the first offset of each partition; absent is its first record.
        end: the offset after the last; a partition that is absent is not touched. By default the checkpoint.
        wallet: only records that name this wallet, and rows that do.
        on_slice: told after each slice up to where its partitions are done.

    Raises:
        InvalidValue: no read model of that name can be repaired in place.
        RepairRefused: a record cannot be applied now and is not in quarantine; slices before it are repaired.
        HistoryIncomplete: records of the part are neither in Kafka nor in the archive.
        StoreUnavailable: the warehouse does not answer; run it again.
    """
    if name != "warehouse":
        raise InvalidValue(
            "name",
            f"expected warehouse, found {name[:40]!r}: the graph's flows and degrees are sums of many records and the archive's objects"
            " are never changed, so neither can be repaired in part; `tidemark rebuild` builds them anew beside the live one",
        )
    store = RepairableWarehouse(composition.warehouse_dsn, composition.log.generations().get(name, 1))
    try:
        checkpoint = {tp: offset for tp, offset in store.load_position().items() if tp[0] in store.topics}
        ends = {tp: min(offset, checkpoint[tp] if end is None else end.get(tp, 0)) for tp, offset in checkpoint.items()}
        ends = {tp: offset for tp, offset in ends.items() if offset > start.get(tp, 0)}
        result = RepairResult(name, store.generation)
        total = sum(offset - start.get(tp, 0) for tp, offset in ends.items())
        done = 0
        progress(0, total)
        slices = _slices(composition, store, start, ends) if wallet is None else _slices_of(composition, store, start, ends, wallet)
        for ranges, batch, passed in slices:
            if ranges:
                found = _reapply(store, ranges, batch)
                result.slices += 1
                result.records += batch.rows
                result.deleted += found.deleted
                result.written += found.written
                on_slice({(topic, partition): last for topic, partition, _, last in ranges})
            done += passed
            progress(done, total)
        if result.slices:
            store.refresh()
        return result
    finally:
        store.close()


def _reapply(store: RepairableWarehouse, ranges: list[Range], batch: EventBatch) -> Reapplied:
    for attempt in stamina.retry_context(on=StoreUnavailable, attempts=_ATTEMPTS, wait_max=10.0):
        with attempt:
            return store.reapply(ranges, batch)
    raise AssertionError("the last attempt returns or raises")


_Slice = tuple[list[Range], EventBatch, int]


def _slices(composition: Composition, store: RepairableWarehouse, start: Position, ends: Position) -> Iterator[_Slice]:
    """Ranges without holes between them: a row where the log has no record goes too."""
    reached = {tp: start.get(tp, 0) for tp in ends}
    for batch, events in _events(composition, store, reached, ends):
        ranges: list[Range] = []
        for (topic, partition), offset in batch.next_offsets().items():
            ranges.append((topic, partition, reached[topic, partition], offset))
            reached[topic, partition] = offset
        yield ranges, events, sum(last - first for _, _, first, last in ranges)
    rest = [(topic, p, reached[topic, p], end) for (topic, p), end in ends.items() if reached[topic, p] < end]
    if rest:
        yield rest, EventBatch({}), sum(last - first for _, _, first, last in rest)


def _slices_of(composition: Composition, store: RepairableWarehouse, start: Position, ends: Position, wallet: str) -> Iterator[_Slice]:
    """Single records: those that name the wallet, and those whose rows do whatever the log says."""
    stored = store.places_of(wallet)
    stored = {(t, p, o) for t, p, o in stored if (t, p) in ends and start.get((t, p), 0) <= o < ends[t, p]}
    for batch, events in _events(composition, store, {tp: start.get(tp, 0) for tp in ends}, ends):
        tables = {name: table.filter(_names(table, wallet, stored)) for name, table in events.tables.items()}
        places = {place for table in tables.values() for place in _places(table)}
        here = set(zip([batch.topic] * len(batch), batch.partitions.tolist(), batch.offsets.tolist(), strict=True))
        places |= stored & here  # of records that give no row: whatever stands there goes
        stored -= here
        yield [(t, p, o, o + 1) for t, p, o in sorted(places)], EventBatch(tables), len(batch)
    if stored:
        yield [(t, p, o, o + 1) for t, p, o in sorted(stored)], EventBatch({}), 0


def _events(
    composition: Composition, store: RepairableWarehouse, start: Position, ends: Position
) -> Iterator[tuple[RecordBatch, EventBatch]]:
    """Records of the part in pieces of `SLICE_RECORDS`, with the events in them that the store should hold."""
    codec = ColumnCodec(composition.clients.catalog, store.reads)
    quarantined = {key[1:] for key in composition.log.quarantine() if key[0] == store.name}
    for whole in composition.log.read(sorted({topic for topic, _ in ends}), start, ends):
        for at in range(0, len(whole), SLICE_RECORDS):
            batch = whole.take(np.arange(at, min(at + SLICE_RECORDS, len(whole))))
            events, rejections = decode(codec, [batch])
            rejections += store.screen(events)
            for rejection in rejections:
                if (rejection.topic, rejection.partition, rejection.offset) not in quarantined:
                    raise RepairRefused(
                        f"{rejection.topic}-{rejection.partition}@{rejection.offset}: {rejection.message}, and it is not in quarantine:"
                        " its row cannot be written again. Rebuild the warehouse, which sets it aside"
                    )
            aside = [Rejection(*place, "", "") for place in quarantined if place[0] == batch.topic]
            yield batch, drop(events, [*rejections, *aside])


def _names(table: pa.Table, wallet: str, stored: set[tuple[str, int, int]]) -> pa.ChunkedArray:
    found = pa.chunked_array([pa.array([place in stored for place in _places(table)], pa.bool_())])
    for name in table.column_names:
        if name.endswith("wallet_id"):
            found = pc.or_(found, pc.fill_null(pc.equal(table[name].cast(pa.string()), wallet), False))
    return found


def _places(table: pa.Table) -> list[tuple[str, int, int]]:
    return list(zip(*(table[name].to_pylist() for name in ("_topic", "_partition", "_offset")), strict=True))
