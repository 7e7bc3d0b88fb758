"""The Kafka mapping: batches by number, bytes and window, the whole batch again after a failure, the position only after success."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from domain.errors import Fenced
from domain.log import NewRecord, Position, Record
from infra.lambdas import kafka_source
from infra.lambdas.kafka_event import records_of
from infra.lambdas.kafka_source import KafkaEventSource, KafkaSourceOptions
from infra.lambdas.runtime import FunctionError
from projections.errors import StoreUnavailable
from projections.records import RecordBatch
from projections.work import Append


class Log:
    """Records and a group's position in memory: `projections.runner.Source` and `kafka_source.Positions`."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = list(records)
        self.position: dict[tuple[str, int], int] = {}
        self.commits: list[dict[tuple[str, int], int]] = []
        self.is_fenced = False
        self._at: dict[tuple[str, int], int] = {}

    def open(self, load_position: Callable[[], Position], on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self._at = dict(load_position())

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        fresh = [r for r in self.records if r.offset >= self._at.get((r.topic, r.partition), 0)][:max_records]
        for record in fresh:
            self._at[(record.topic, record.partition)] = record.offset + 1
        return [RecordBatch.of(fresh)] if fresh else []

    def load_position(self) -> Position:
        return dict(self.position)

    def commit(self, appends: Sequence[Append], records: Sequence[NewRecord], position: Position) -> None:
        if self.is_fenced:
            raise Fenced("another one has taken over")
        self.position.update(position)
        self.commits.append(dict(position))

    def close(self) -> None: ...


class Recorder:
    """A function that fails as often as it is told, and remembers the offsets of every call."""

    def __init__(self, failures: int = 0) -> None:
        self.calls: list[list[int]] = []
        self.left = failures

    def offsets(self) -> list[int]:
        """Of all calls together."""
        return [offset for call in self.calls for offset in call]

    def __call__(self, event: dict[str, Any]) -> Any:
        self.calls.append([record.offset for record in records_of(event)])
        if self.left:
            self.left -= 1
            raise FunctionError("ValueError", "not now")
        return None


def records(count: int, size: int = 1, partition: int = 0) -> list[Record]:
    return [Record("t", partition, n, 0, None, b"x" * size) for n in range(count)]


def mapping(log: Log, function: Any, stopped: Callable[[], bool] = lambda: False, **options: Any) -> KafkaEventSource:
    return KafkaEventSource(
        log, log, "h:1", function, "f", KafkaSourceOptions(**{"window_s": 0.0, **options}), stopped=stopped, sleep=lambda seconds: None
    )


def drained(source: KafkaEventSource) -> None:
    while source.poll():
        pass


def test_batches_come_in_order_and_a_second_start_goes_on_after_the_first() -> None:
    log, function = Log(records(5)), Recorder()
    drained(mapping(log, function, batch_size=2))
    assert function.calls == [[0, 1], [2, 3], [4]] and log.position == {("t", 0): 5}
    log.records = records(6)
    again = Recorder()
    drained(mapping(log, again, batch_size=2))
    assert again.calls == [[5]]


def test_a_batch_gathers_until_its_window_has_passed() -> None:
    log, function = Log([]), Recorder()
    clock = iter([0.0, 0.0, 0.2, 0.4, 0.6, 0.8])
    polls = iter([records(1), [], records(3)[1:]])

    def poll(max_records: int, timeout_s: float) -> list[RecordBatch]:
        found = next(polls)
        return [RecordBatch.of(found)] if found else []

    log.poll = poll  # type: ignore[method-assign]
    source = KafkaEventSource(log, log, "h:1", function, "f", KafkaSourceOptions(window_s=0.5), monotonic=lambda: next(clock))
    assert source.poll() == 3 and function.calls == [[0, 1, 2]]


def test_a_batch_that_fails_comes_again_whole_and_nothing_after_it_is_read_meanwhile() -> None:
    log, function = Log(records(4)), Recorder(failures=2)
    source = mapping(log, function, batch_size=2)
    drained(source)
    assert function.calls == [[0, 1], [0, 1], [0, 1], [2, 3]]
    assert log.commits == [{("t", 0): 2}, {("t", 0): 4}]
    assert (source.delivered.batches, source.delivered.records, source.delivered.retries) == (4, 4, 2)


def test_a_function_that_keeps_failing_is_told_and_nothing_is_passed_over() -> None:
    log, function = Log(records(2)), Recorder(failures=99)
    with pytest.raises(StoreUnavailable, match=r"f has failed 8 times in a row: ValueError: not now"):
        mapping(log, function).poll()
    assert log.position == {} and len(function.calls) == 8
    again = Recorder()
    drained(mapping(log, again))
    assert again.calls == [[0, 1]]


def test_dying_after_the_call_and_before_the_position_hands_the_batch_over_again() -> None:
    log, function = Log(records(2)), Recorder()
    log.is_fenced = True
    with pytest.raises(Fenced):
        mapping(log, function).poll()
    log.is_fenced = False
    again = Recorder()
    drained(mapping(log, again))
    assert function.calls == again.calls == [[0, 1]]


def test_an_event_stays_below_lambda_s_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_source, "_BATCH_BYTES", 1_000)
    log, function = Log(records(6, size=300)), Recorder()
    drained(mapping(log, function))
    assert max(map(len, function.calls)) < 3 and function.offsets() == list(range(6))
    assert log.position == {("t", 0): 6}


def test_partitions_share_a_batch_and_each_keeps_its_position() -> None:
    log, function = Log([*records(2), *records(3, partition=1)]), Recorder()
    drained(mapping(log, function))
    assert log.position == {("t", 0): 2, ("t", 1): 3} and sorted(function.offsets()) == [0, 0, 1, 1, 2]


def test_stopped_it_calls_no_more_and_stores_nothing() -> None:
    log, function = Log(records(4)), Recorder()
    is_stopped = iter([False, True])
    assert mapping(log, function, stopped=lambda: next(is_stopped, True)).poll() == 0
    assert function.calls == [] and log.position == {}
