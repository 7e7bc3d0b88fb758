"""The one loop: when it flushes, with which positions, and how it ends."""

from __future__ import annotations

from itertools import count
from threading import Event, Timer

import pytest

from domain.errors import LogError
from projections import runner as runner_module
from projections.errors import StalePosition
from projections.runner import Flushed, FlushPolicy, Runner, SeqGap
from tests.unit.projections.fakes import FakeSource, ListWork, StagedListWork, T, W, batch_of, offsets_of, record

NEVER = FlushPolicy(max_records=1_000_000, max_age_s=1e9)
AT_ONCE = FlushPolicy(max_records=1_000_000, max_age_s=0.0)


def run(
    source: FakeSource, work: ListWork, policy: FlushPolicy = AT_ONCE, until: dict[tuple[str, int], int] | None = None
) -> list[Flushed]:
    """Until the source has nothing more to give."""
    stop, told = Event(), list[Flushed]()
    source.after_all = stop.set
    Runner(source, work, policy, told.append).run(stop, until)
    assert source.is_closed
    return told


def test_records_are_handed_over_with_the_positions_around_them() -> None:
    work = ListWork({(T, 0): 5, (T, 9): 1})
    source = FakeSource([batch_of(record(5), record(6))], [batch_of(record(0, partition=1)), batch_of(record(3, topic=W))])
    run(source, work)
    assert [(before, after) for _, _, before, after in work.calls] == [
        ({(T, 0): 5}, {(T, 0): 7}),
        ({}, {(T, 1): 1, (W, 0): 4}),
    ]


def test_small_polls_are_gathered_until_there_are_enough() -> None:
    work = ListWork()
    source = FakeSource([batch_of(record(0))], [batch_of(record(1))], [batch_of(record(2))], [batch_of(record(3))])
    told = run(source, work, FlushPolicy(max_records=3, max_age_s=1e9))
    assert [offsets_of(batches) for batches, *_ in work.calls] == [[(0, 0), (0, 1), (0, 2)], [(0, 3)]]
    assert source.asked[:4] == [3, 2, 1, 3]
    assert [(one.records, one.after) for one in told] == [(3, {(T, 0): 3}), (1, {(T, 0): 4})]


def test_what_has_waited_long_enough_is_flushed_without_being_many() -> None:
    work, clock, stop = ListWork(), count(), Event()
    source = FakeSource(*([batch_of(record(i))] for i in range(12)))
    source.after_all = stop.set
    Runner(source, work, FlushPolicy(1_000_000, 5.0), monotonic=lambda: float(next(clock))).run(stop)
    sizes = [sum(map(len, batches)) for batches, *_ in work.calls]
    assert sum(sizes) == 12
    assert 1 < len(sizes) < 12


def test_a_stop_flushes_what_was_polled() -> None:
    work, stop = ListWork(), Event()
    Runner(FakeSource([batch_of(record(0))], stop.set), work, NEVER).run(stop)
    assert offsets_of(work.calls[0][0]) == [(0, 0)]


def test_a_run_ends_when_every_partition_has_come_far_enough() -> None:
    work = ListWork()
    source = FakeSource([batch_of(record(0))], [batch_of(record(8, partition=1))], [batch_of(record(1))], [batch_of(record(2))])
    Runner(source, work, NEVER).run(Event(), until={(T, 0): 2, (T, 1): 5})
    assert work.position == {(T, 0): 2, (T, 1): 9}
    assert len(source.steps) == 1


def test_a_run_that_is_there_already_polls_nothing() -> None:
    source = FakeSource([batch_of(record(2))])
    Runner(source, ListWork({(T, 0): 2}), NEVER).run(Event(), until={(T, 0): 2})
    assert source.asked == []


def test_before_partitions_are_given_up_what_was_polled_is_stored() -> None:
    work = ListWork()
    source = FakeSource([batch_of(record(0))])
    source.steps.append(lambda: source.revoke())
    run(source, work, NEVER)
    assert [after for *_, after in work.calls] == [{(T, 0): 1}]


def test_what_was_polled_of_partitions_that_stay_is_stored_before_others_come_in() -> None:
    work = ListWork()
    source = FakeSource([batch_of(record(0))])
    loaded: list[object] = []
    source.steps += [lambda: loaded.append(dict(source.assign())), [batch_of(record(1))]]
    run(source, work, NEVER)
    assert loaded == [{(T, 0): 1}]
    assert [(offsets_of(b), before, after) for b, _, before, after in work.calls] == [
        ([(0, 0)], {}, {(T, 0): 1}),
        ([(0, 1)], {(T, 0): 1}, {(T, 0): 2}),
    ]


def test_of_partitions_that_were_lost_what_was_polled_is_forgotten() -> None:
    work = ListWork()
    source = FakeSource([batch_of(record(0))])

    def lost_and_back() -> None:
        source.lose()
        work.position = {(T, 0): 7}  # what another one has stored meanwhile
        assert source.assign() == {(T, 0): 7}

    source.steps += [lost_and_back, [batch_of(record(7))]]
    run(source, work, NEVER)
    assert [(offsets_of(b), before, after) for b, _, before, after in work.calls] == [([(0, 7)], {(T, 0): 7}, {(T, 0): 8})]


def test_a_flush_that_finds_itself_fenced_while_partitions_are_lost_ends_nothing() -> None:
    work = StagedListWork()
    work.go_on.clear()
    work.fails = {0: StalePosition("another worker has written")}
    source = FakeSource([batch_of(record(0))])

    def lost_and_back() -> None:
        Timer(0.05, work.go_on.set).start()
        source.lose()
        work.position = {(T, 0): 7}
        assert source.assign() == {(T, 0): 7}

    source.steps += [lost_and_back, [batch_of(record(7))]]
    run(source, work, AT_ONCE)
    assert work.position == {(T, 0): 8}


def test_an_error_of_the_work_ends_the_loop_and_closes_the_source() -> None:
    class Stale(ListWork):
        def process(self, *args: object) -> object:  # type: ignore[override]
            raise StalePosition("another worker has written")

    source = FakeSource([batch_of(record(0))])
    with pytest.raises(StalePosition):
        Runner(source, Stale(), AT_ONCE).run(Event())
    assert source.is_closed


# In two parts: the next flush is made ready while one is completed.


def test_the_next_flush_is_made_ready_while_one_is_completed_and_waits_for_its_turn() -> None:
    work = StagedListWork()
    work.go_on.clear()
    completed: list[int] = []

    def second_is_ready(number: int) -> None:
        if number == 1:
            completed.append(len(work.calls))
            work.go_on.set()

    work.on_prepared = second_is_ready
    source = FakeSource([batch_of(record(0))], [batch_of(record(1))], [batch_of(record(2))])
    told = run(source, work, FlushPolicy(max_records=1))
    assert completed == [0]
    assert not work.overlapped
    assert [(offsets_of(b), before, after) for b, _, before, after in work.calls] == [
        ([(0, 0)], {}, {(T, 0): 1}),
        ([(0, 1)], {(T, 0): 1}, {(T, 0): 2}),
        ([(0, 2)], {(T, 0): 2}, {(T, 0): 3}),
    ]
    assert [one.after for one in told] == [{(T, 0): 1}, {(T, 0): 2}, {(T, 0): 3}]


def test_behind_a_slow_store_flushes_grow_instead_of_queueing() -> None:
    work = StagedListWork()
    work.go_on.clear()
    source = FakeSource(*([batch_of(record(i))] for i in range(6)))
    source.steps.append(work.go_on.set)
    run(source, work, AT_ONCE)
    assert [offsets_of(b) for b, *_ in work.calls] == [[(0, 0)], [(0, i) for i in range(1, 6)]]


def test_after_a_step_that_failed_nothing_is_applied_and_its_error_ends_the_loop() -> None:
    work = StagedListWork()
    work.fails = {1: StalePosition("another worker has written")}
    source = FakeSource(*([batch_of(record(i))] for i in range(9)))
    with pytest.raises(StalePosition):
        Runner(source, work, FlushPolicy(max_records=1)).run(Event())
    assert [after for *_, after in work.calls] == [{(T, 0): 1}]
    assert source.is_closed


def test_a_failure_while_nothing_else_comes_is_heard_of_too() -> None:
    work = StagedListWork()
    work.fails = {0: StalePosition("another worker has written")}
    source = FakeSource([batch_of(record(0))])
    with pytest.raises(StalePosition):
        Runner(source, work, AT_ONCE).run(Event())


@pytest.mark.parametrize("is_over_at", [{(T, 0): 4}, None], ids=["reached", "stopped"])
def test_a_staged_work_has_stored_all_that_was_polled_when_the_loop_ends(is_over_at: dict[tuple[str, int], int] | None) -> None:
    work = StagedListWork()
    source = FakeSource(*([batch_of(record(i))] for i in range(4)))
    told = run(source, work, FlushPolicy(max_records=3, max_age_s=1e9), is_over_at)
    assert work.position == {(T, 0): 4}
    assert told[-1].after == {(T, 0): 4}


def test_before_partitions_are_given_up_a_staged_work_has_stored_what_was_polled() -> None:
    work = StagedListWork()
    source = FakeSource([batch_of(record(0))], [batch_of(record(1))])
    seen: list[dict[tuple[str, int], int]] = []

    def revoked() -> None:
        source.revoke()
        seen.append(dict(work.position))

    source.steps.append(revoked)
    run(source, work, FlushPolicy(max_records=1))
    assert seen == [{(T, 0): 2}]


def test_partitions_that_come_in_are_read_from_the_store_after_the_step_that_runs() -> None:
    work = StagedListWork()
    work.go_on.clear()
    source = FakeSource([batch_of(record(0))])

    def reassigned() -> None:
        Timer(0.05, work.go_on.set).start()
        assert source.assign() == {(T, 0): 1}

    source.steps.append(reassigned)
    run(source, work, AT_ONCE)


def test_an_error_of_the_log_waits_for_the_step_that_runs() -> None:
    work = StagedListWork()
    work.go_on.clear()
    source = FakeSource([batch_of(record(0))])

    def broken() -> None:
        Timer(0.05, work.go_on.set).start()
        raise LogError("the log cannot be read")

    source.steps.append(broken)
    with pytest.raises(LogError):
        Runner(source, work, AT_ONCE).run(Event())
    assert (work.position, work.running) == ({(T, 0): 1}, 0)


# In order of seq.


def test_records_reach_an_ordered_work_in_the_one_order() -> None:
    work = ListWork(ordered_topic=T)
    source = FakeSource(
        [batch_of(record(0, 1, partition=1), record(1, 2, partition=1))], [batch_of(record(0, 0))], [batch_of(record(1, 3))]
    )
    run(source, work)
    assert [offsets_of(batches) for batches, *_ in work.calls] == [[(0, 0), (1, 0), (1, 1)], [(0, 1)]]
    assert work.calls[0][3] == {(T, 0): 1, (T, 1): 2}


def test_the_position_never_passes_a_record_that_still_waits() -> None:
    work = ListWork(ordered_topic=T)
    source = FakeSource([batch_of(record(0, 0, partition=1), record(1, 2, partition=1))])
    run(source, work)
    assert work.position == {(T, 1): 1}


def test_a_record_without_a_place_in_the_order_is_a_stray_with_its_reason() -> None:
    work = ListWork(ordered_topic=T, next_seq=3)
    run(FakeSource([batch_of(record(0, 3), record(1), record(2, 1), record(3, 4))]), work)
    batches, strays, _, after = work.calls[0]
    assert offsets_of(batches[:1]) == [(0, 0), (0, 3)]
    assert [(s.offset, s.reason) for s in strays] == [(1, "out_of_order"), (2, "out_of_order")]
    assert after == {(T, 0): 4}


def test_a_stray_at_the_end_is_passed_unless_a_record_before_it_waits() -> None:
    work = ListWork(ordered_topic=T)
    run(FakeSource([batch_of(record(0, 0), record(1))]), work)
    assert work.position == {(T, 0): 2}
    waiting = ListWork(ordered_topic=T)
    run(FakeSource([batch_of(record(0, 0), record(1, 2), record(2))]), waiting)
    assert waiting.position == {(T, 0): 1}


def test_a_stray_behind_a_record_that_waits_is_passed_with_it_and_handed_over_once() -> None:
    work = ListWork(ordered_topic=T)
    run(FakeSource([batch_of(record(0, 1), record(1), record(2))], [batch_of(record(0, 0, partition=1))]), work)
    assert [[s.offset for s in strays] for _, strays, _, _ in work.calls] == [[1, 2], []]
    assert work.position == {(T, 0): 3, (T, 1): 1}


def test_a_seq_that_never_comes_is_an_error_not_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "MAX_WAITING", 2)
    source = FakeSource([batch_of(*(record(i, i + 1) for i in range(3)))])
    with pytest.raises(SeqGap, match="list: seq 0 never came, 3 later records wait"):
        Runner(source, ListWork(ordered_topic=T), AT_ONCE).run(Event())


def test_other_topics_pass_an_ordered_work_as_they_come() -> None:
    work = ListWork(ordered_topic=T)
    run(FakeSource([batch_of(record(9, topic=W)), batch_of(record(0, 1))]), work)
    assert [(b.topic, b.offsets.tolist()) for b in work.calls[0][0]] == [(W, [9])]
