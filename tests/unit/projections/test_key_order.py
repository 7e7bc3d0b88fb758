"""Order of a key through the quarantine: nothing overtakes, nothing is applied twice, what was given up stays so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from domain.log import Position, Record
from projections.key_order import KeyOrder
from projections.quarantine import QuarantineEntry, as_record, decoded, dropped_record, replay_place, replayed_record
from projections.records import RecordBatch
from projections.work import SinkWork
from tests.unit.domain.facts import AT
from tests.unit.projections.fakes import CATALOG, CODEC, MemoryQuarantine, MemorySink, T, record, value_of


class OrderedSink(MemorySink):
    key_ordered = frozenset({T})


def keyed(offset: int, key: bytes | None, *, is_bad: bool = False) -> Record:
    return Record(T, 0, offset, 0, key, value_of(offset, block=13 if is_bad else 1))


def work_on(sink: MemorySink, topic: MemoryQuarantine) -> SinkWork:
    """A worker as it starts: it knows what the store and the quarantine topic say."""

    def read(start: Position) -> tuple[Iterable[tuple[str, Mapping[str, Any], int]], Position]:
        begin = start.get(("q", 0), 0)
        kept = [Record(new.topic, 0, i, 0, new.key, new.value) for i, new in enumerate(topic.records)]
        return decoded(CODEC, kept[begin:]), {("q", 0): len(kept)}

    order = KeyOrder(sink.name, getattr(sink, "key_ordered", frozenset()), read, sink.load_position)
    work = SinkWork(sink, CATALOG, topic, order)
    work.load_position()
    return work


def feed(work: SinkWork, *records: Record) -> int:
    sink = work.projection
    before = {tp: at for tp, at in sink.load_position().items() if tp == (T, 0)}
    batch = RecordBatch.of(records)
    return work.process([batch], [], before, batch.next_offsets()).quarantined


def reasons(topic: MemoryQuarantine) -> list[tuple[int, str]]:
    return [(entry["offset"], entry["reason"]) for entry in topic.entries() if "payload" in entry]


def close(topic: MemoryQuarantine, sink: MemorySink, *offsets: int) -> None:
    """What a replay does: the store first, then the topic."""
    for offset in offsets:
        sink.rows.append(f"ethereum:{offset}:0")
        sink.position[replay_place(T, 0, offset)] = 1
        topic.append([replayed_record(CODEC, ("memory", T, 0, offset), "applied", "ann", AT)])


def test_later_records_of_a_key_wait_and_others_do_not() -> None:
    sink, topic = OrderedSink(), MemoryQuarantine()
    work = work_on(sink, topic)
    assert feed(work, keyed(0, b"a"), keyed(1, b"a", is_bad=True), keyed(2, b"b"), keyed(3, b"a"), keyed(4, None)) == 2
    assert reasons(topic) == [(1, "block_13"), (3, "waits_for_key")]
    assert feed(work, keyed(5, b"a"), keyed(6, b"b")) == 1
    assert sink.rows == [f"ethereum:{n}:0" for n in (0, 2, 4, 6)]
    assert sink.position == {(T, 0): 7}


def test_a_projection_without_key_order_lets_them_pass() -> None:
    sink, topic = MemorySink(), MemoryQuarantine()
    assert feed(work_on(sink, topic), keyed(0, b"a", is_bad=True), keyed(1, b"a")) == 1
    assert sink.rows == ["ethereum:1:0"]


def test_a_restarted_worker_still_knows_who_waits() -> None:
    sink, topic = OrderedSink(), MemoryQuarantine()
    feed(work_on(sink, topic), keyed(0, b"a", is_bad=True))
    assert feed(work_on(sink, topic), keyed(1, b"a"), keyed(2, b"b")) == 1
    assert sink.rows == ["ethereum:2:0"]


def test_once_all_of_a_key_was_given_back_the_next_is_applied_at_once() -> None:
    sink, topic = OrderedSink(), MemoryQuarantine()
    work = work_on(sink, topic)
    feed(work, keyed(0, b"a", is_bad=True), keyed(1, b"a"))
    close(topic, sink, 0)
    assert feed(work, keyed(2, b"a")) == 1, "the second still waits"
    close(topic, sink, 1, 2)
    assert feed(work, keyed(3, b"a")) == 0
    assert sink.rows == [f"ethereum:{n}:0" for n in range(4)]


def test_what_was_dropped_is_never_applied_and_frees_its_key() -> None:
    sink, topic = OrderedSink(), MemoryQuarantine()
    work = work_on(sink, topic)
    feed(work, keyed(0, b"a", is_bad=True))
    topic.append([dropped_record(CODEC, ("memory", T, 0, 0), "ticket", "ann", AT)])
    assert feed(work, keyed(1, b"a")) == 0
    # Read again from the start, as another generation does, by a sink that would take it now.
    fresh = OrderedSink()
    again = SinkWork(fresh, CATALOG, topic, KeyOrder("memory", frozenset({T}), dropped=[("memory", T, 0, 0)]))
    again.load_position()
    assert feed(again, keyed(0, b"a"), keyed(1, b"a")) == 0
    assert fresh.rows == ["ethereum:1:0"]
    assert len(reasons(topic)) == 1, "and it is not put into quarantine again"


def test_a_crash_between_quarantine_and_checkpoint_neither_doubles_nor_overtakes() -> None:
    sink, topic = OrderedSink(), MemoryQuarantine()
    records = keyed(0, b"a", is_bad=True), keyed(1, b"a"), keyed(2, b"b")
    sink.position[(T, 0)] = 0
    for rejected, reason in ((records[0], "block_13"), (records[1], "waits_for_key")):  # durable, and then the process died
        topic.append([as_record(CODEC, QuarantineEntry("memory", rejected, reason, "m", 1))])
    before = len(topic.records)
    assert feed(work_on(sink, topic), *records) == 0
    assert (sink.rows, len(topic.records)) == (["ethereum:2:0"], before)
    # The same, but a replay came between: the store has them already.
    other = OrderedSink()
    other.position[(T, 0)] = 0
    close(topic, other, 0, 1)
    assert feed(work_on(other, topic), *records) == 0
    assert other.rows == [f"ethereum:{n}:0" for n in (0, 1, 2)]


def test_a_new_generation_takes_what_the_old_one_was_given_back() -> None:
    sink, topic = OrderedSink(), MemoryQuarantine()
    feed(work_on(sink, topic), keyed(0, b"a", is_bad=True), keyed(1, b"a"))
    close(topic, sink, 0, 1)
    fresh = OrderedSink()
    assert feed(work_on(fresh, topic), keyed(0, b"a"), keyed(1, b"a")) == 0
    assert fresh.rows == ["ethereum:0:0", "ethereum:1:0"]


def test_a_record_that_only_the_store_refuses_makes_its_key_wait_too() -> None:
    sink, topic = OrderedSink(), MemoryQuarantine()
    sink.refuses = {"ethereum:1:0"}
    assert feed(work_on(sink, topic), keyed(0, b"b"), keyed(1, b"a"), keyed(2, b"a"), keyed(3, b"b")) == 2
    assert sink.rows == ["ethereum:0:0", "ethereum:3:0"]
    assert reasons(topic) == [(1, "refused_by_store"), (2, "waits_for_key")]


@pytest.mark.parametrize("key", [b"", b"\x00\xff"])
def test_any_bytes_are_a_key(key: bytes) -> None:
    sink, topic = OrderedSink(), MemoryQuarantine()
    assert feed(work_on(sink, topic), keyed(0, key, is_bad=True), keyed(1, key)) == 2


def test_bytes_that_are_no_record_hold_their_key_too() -> None:
    sink, topic = OrderedSink(), MemoryQuarantine()
    assert feed(work_on(sink, topic), record(0, value=b"noise"), keyed(1, b"k")) == 2
    assert reasons(topic)[1] == (1, "waits_for_key")
