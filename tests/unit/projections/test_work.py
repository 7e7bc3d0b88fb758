"""The three ways to commit: what goes to quarantine, what happens after a lost answer, and that no effect comes twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest
import stamina

from domain.errors import Fenced
from domain.log import NewRecord, Position
from projections.errors import StalePosition, StoreUnavailable
from projections.protocol import EventBatch, Rejection
from projections.records import RecordBatch
from projections.work import Append, Effect, LedgerWork, RawWork, SinkWork, TransactionWork
from tests.unit.projections.fakes import CATALOG, MemoryLedger, MemoryQuarantine, MemorySink, T, batch_of, record, value_of


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=3)
    yield
    stamina.set_testing(False)


def ids(*numbers: int) -> list[str]:
    return [f"ethereum:{n}:0" for n in numbers]


# In the sink's own transaction.


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def quarantine() -> MemoryQuarantine:
    return MemoryQuarantine()


@pytest.fixture
def work(sink: MemorySink, quarantine: MemoryQuarantine) -> SinkWork:
    return SinkWork(sink, CATALOG, quarantine)


def test_poison_goes_to_quarantine_whole_and_the_stream_goes_on(work: SinkWork, sink: MemorySink, quarantine: MemoryQuarantine) -> None:
    batch = batch_of(record(0), record(1, value=b"noise"), record(2), record(3, value=value_of(3, block=13)), record(4))
    done = work.process([batch], (), {}, {(T, 0): 5})
    assert (done.records, done.quarantined, done.after) == (5, 2, {(T, 0): 5})
    assert sink.rows == ids(0, 2, 4)
    assert sink.position == {(T, 0): 5}
    found = [(e["offset"], e["reason"], e["payload"], e["projection"]) for e in quarantine.entries()]
    assert found == [(1, "not_framed", b"noise", "memory"), (3, "block_13", value_of(3, block=13), "memory")]


def test_a_batch_of_nothing_but_poison_moves_the_position(work: SinkWork, sink: MemorySink) -> None:
    work.process([batch_of(record(0, value=b"x"))], (), {}, {(T, 0): 1})
    assert (sink.rows, sink.position) == ([], {(T, 0): 1})


def test_the_record_is_in_quarantine_before_the_position_passes_it(work: SinkWork, sink: MemorySink, quarantine: MemoryQuarantine) -> None:
    sink.fail_before_commit = 99
    with pytest.raises(StoreUnavailable):
        work.process([batch_of(record(0, value=b"x"))], (), {}, {(T, 0): 1})
    assert len(quarantine.records) == 1
    assert sink.position == {}


@pytest.mark.parametrize("bad", [0, 3, 6])
def test_a_record_that_the_store_refuses_is_found_by_halving(
    work: SinkWork, sink: MemorySink, quarantine: MemoryQuarantine, bad: int
) -> None:
    sink.refuses = set(ids(bad))
    batches = [batch_of(*(record(i) for i in range(5)), record(5, partition=1), record(6, partition=1))]
    done = work.process(batches, (), {}, {(T, 0): 5, (T, 1): 7})
    assert sorted(sink.rows) == [i for i in ids(*range(7)) if i not in sink.refuses]
    assert sink.position == {(T, 0): 5, (T, 1): 7}
    assert (done.records, done.quarantined) == (7, 1)
    assert [(e["reason"], e["message"]) for e in quarantine.entries()] == [("refused_by_store", "the store does not like a row")]


def test_poison_beside_a_refused_record_is_set_aside_once(work: SinkWork, sink: MemorySink, quarantine: MemoryQuarantine) -> None:
    sink.refuses = set(ids(2))
    done = work.process([batch_of(record(0), record(1, value=b"noise"), record(2), record(3))], (), {}, {(T, 0): 4})
    assert {(e["offset"], e["reason"]) for e in quarantine.entries()} == {(1, "not_framed"), (2, "refused_by_store")}
    assert (done.quarantined, sink.rows) == (2, ids(0, 3))


def test_a_store_that_was_away_is_tried_again(work: SinkWork, sink: MemorySink) -> None:
    sink.fail_before_commit = 2
    work.process([batch_of(record(0))], (), {}, {(T, 0): 1})
    assert (sink.rows, sink.applied) == (ids(0), 3)


def test_after_a_lost_answer_nothing_is_applied_twice(work: SinkWork, sink: MemorySink) -> None:
    sink.fail_after_commit = 1
    work.process([batch_of(record(0))], (), {}, {(T, 0): 1})
    assert (sink.rows, sink.applied) == (ids(0), 1)


def test_a_second_worker_that_wrote_meanwhile_stops_this_one(work: SinkWork, sink: MemorySink) -> None:
    sink.position = {(T, 0): 9}
    with pytest.raises(StalePosition):
        work.process([batch_of(record(0))], (), {(T, 0): 0}, {(T, 0): 1})
    assert sink.rows == []


def test_after_a_failure_a_checkpoint_that_is_neither_before_nor_after_is_another_workers(work: SinkWork, sink: MemorySink) -> None:
    def moved(batch: EventBatch, before: Position, after: Position) -> None:
        sink.position = {(T, 0): 50}
        raise StoreUnavailable("away")

    sink.apply = moved  # type: ignore[method-assign]
    with pytest.raises(StalePosition, match="50"):
        work.process([batch_of(record(0))], (), {}, {(T, 0): 1})


def test_an_archive_is_given_the_records_themselves() -> None:
    class Raw:
        name, topics = "raw", (T,)
        given: list[RecordBatch]

        def load_position(self) -> Position:
            return {}

        def apply_records(self, batches: Sequence[RecordBatch], before: Position, after: Position) -> None:
            self.given = list(batches)

    raw = Raw()
    poison = batch_of(record(0, value=b"noise"))
    assert RawWork(raw).process([poison], (), {}, {(T, 0): 1}).quarantined == 0
    assert raw.given == [poison]


# In a Kafka transaction.


class Echo:
    """Appends the tx_id of what it is given."""

    name = "echo"
    topics: tuple[str, ...] = (T,)
    ordered_topic: str | None = T
    reads: Mapping[str, tuple[str, ...]] = {"TransactionRecorded": ("tx_id",)}
    is_raw = False

    def __init__(self) -> None:
        self.commits = 0

    def next_seq(self) -> int:
        return 4

    def process(self, events: EventBatch, batches: Sequence[RecordBatch]) -> tuple[list[Append], list[Rejection]]:
        table = events.tables.get("TransactionRecorded")
        found = table["tx_id"].to_pylist() if table is not None else []
        return [Append("out", [None] * len(found), [i.encode() for i in found], [()] * len(found))] if found else [], []

    def committed(self) -> None:
        self.commits += 1


class MemoryTransactions:
    def __init__(self) -> None:
        self.commits: list[tuple[list[bytes | None], list[NewRecord], Position]] = []
        self.is_fenced = False

    def load_position(self) -> Position:
        return {(T, 0): 2}

    def commit(self, appends: Sequence[Append], records: Sequence[NewRecord], position: Position) -> None:
        if self.is_fenced:
            raise Fenced("another echo has taken over")
        self.commits.append(([v for a in appends for v in a.values], list(records), position))


def test_events_quarantine_and_position_are_one_commit() -> None:
    echo, log = Echo(), MemoryTransactions()
    work = TransactionWork(echo, log, CATALOG)
    assert (work.load_position(), work.next_seq()) == ({(T, 0): 2}, 4)
    done = work.process([batch_of(record(2, 4), record(3, 5, value=b"noise"))], (), {}, {(T, 0): 4})
    ((values, bad, position),) = log.commits
    assert (values, len(bad), position) == ([b"ethereum:4:0"], 1, {(T, 0): 4})
    assert (done.quarantined, echo.commits) == (1, 1)


def test_a_stray_is_quarantined_and_never_reaches_the_transformer() -> None:
    log = MemoryTransactions()
    stray = batch_of(record(9, 1))
    rejection = Rejection(T, 0, 9, "out_of_order", "an old seq")
    TransactionWork(Echo(), log, CATALOG).process([batch_of(record(2, 4)), stray], [rejection], {}, {(T, 0): 3})
    ((values, bad, _),) = log.commits
    assert values == [b"ethereum:4:0"]
    assert len(bad) == 1


def test_a_fenced_owner_is_told_and_its_state_does_not_follow() -> None:
    echo, log = Echo(), MemoryTransactions()
    log.is_fenced = True
    with pytest.raises(Fenced):
        TransactionWork(echo, log, CATALOG).process([batch_of(record(2, 4))], (), {}, {(T, 0): 3})
    assert echo.commits == 0


# By a ledger of sent effects.


class Bell:
    name = "bell"
    topics: tuple[str, ...] = (T,)
    reads: Mapping[str, tuple[str, ...]] = {"TransactionRecorded": ("tx_id",)}

    def __init__(self) -> None:
        self.rung: list[str] = []
        self.failures = 0

    def effects(self, events: EventBatch) -> list[Effect]:
        table = events.tables.get("TransactionRecorded")
        names = table["tx_id"].to_pylist() if table is not None else []
        return [Effect(name, lambda name=name: self._ring(name)) for name in names]  # type: ignore[misc]

    def _ring(self, name: str) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("no answer")
        self.rung.append(name)


def test_an_effect_happens_once_however_often_its_records_come(quarantine: MemoryQuarantine) -> None:
    bell, ledger = Bell(), MemoryLedger()
    work = LedgerWork(bell, ledger, CATALOG, quarantine)
    for _ in range(2):
        work.process([batch_of(record(0), record(1, value=b"noise"), record(2))], (), {}, {(T, 0): 3})
    assert bell.rung == ids(0, 2)
    assert work.load_position() == {(T, 0): 3}
    assert {e["offset"] for e in quarantine.entries()} == {1}


def test_a_crash_between_effect_and_ledger_repeats_it_with_the_same_id(quarantine: MemoryQuarantine) -> None:
    bell, ledger = Bell(), MemoryLedger()

    class Crash(Exception): ...

    def crash(effect_id: str) -> None:
        raise Crash

    mark, ledger.mark_sent = ledger.mark_sent, crash  # type: ignore[method-assign]
    work = LedgerWork(bell, ledger, CATALOG, quarantine)
    with pytest.raises(Crash):
        work.process([batch_of(record(0))], (), {}, {(T, 0): 1})
    assert ledger.position == {}
    ledger.mark_sent = mark  # type: ignore[method-assign]
    work.process([batch_of(record(0))], (), {}, {(T, 0): 1})
    assert bell.rung == ids(0, 0)


def test_an_effect_that_fails_is_tried_again_and_holds_the_position_back(quarantine: MemoryQuarantine) -> None:
    bell, ledger = Bell(), MemoryLedger()
    work = LedgerWork(bell, ledger, CATALOG, quarantine)
    bell.failures = 2
    work.process([batch_of(record(0))], (), {}, {(T, 0): 1})
    assert bell.rung == ids(0)
    bell.failures = 99
    with pytest.raises(StoreUnavailable):
        work.process([batch_of(record(1))], (), {}, {(T, 0): 2})
    assert ledger.position == {(T, 0): 1}
