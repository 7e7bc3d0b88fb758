"""Steps in a thread of their own: one at a time, in order, none after a failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import structlog

from projections.overlap import InOrder


@pytest.fixture
def steps() -> Iterator[InOrder[int]]:
    found: InOrder[int] = InOrder("test")
    yield found
    found.close()


def test_a_step_runs_beside_whoever_gave_it(steps: InOrder[int]) -> None:
    may_end = threading.Event()
    steps.give(lambda: may_end.wait(60) and threading.get_ident())
    assert steps.is_busy
    may_end.set()
    assert steps.settle() not in (None, False, threading.get_ident())
    assert not steps.is_busy


def test_what_was_settled_has_no_second_result(steps: InOrder[int]) -> None:
    assert steps.settle() is None
    steps.give(lambda: 7)
    assert (steps.settle(), steps.settle()) == (7, None)


def test_a_second_step_waits_for_the_first_to_be_settled(steps: InOrder[int]) -> None:
    steps.give(lambda: 1)
    with pytest.raises(RuntimeError, match="expected the step before to be settled"):
        steps.give(lambda: 2)
    assert steps.settle() == 1


def test_after_a_failure_nothing_runs_and_the_error_stays(steps: InOrder[int]) -> None:
    ran: list[int] = []
    steps.give(lambda: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            steps.settle()
    with pytest.raises(ZeroDivisionError):
        steps.give(lambda: ran.append(1) or 1)
    assert ran == []


def test_closing_waits_for_what_runs() -> None:
    steps: InOrder[None] = InOrder("test")
    may_end, ended = threading.Event(), threading.Event()
    steps.give(lambda: (may_end.wait(60), ended.set())[1])
    threading.Timer(0.05, may_end.set).start()
    steps.close()
    assert ended.is_set()


def test_a_step_logs_under_the_names_of_whoever_gave_it(steps: InOrder[int]) -> None:
    seen: list[object] = []
    with structlog.contextvars.bound_contextvars(worker="warehouse"):
        steps.give(lambda: seen.append(structlog.contextvars.get_contextvars()["worker"]) or 1)
        steps.settle()
    assert seen == ["warehouse"]
