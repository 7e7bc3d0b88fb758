"""Progress claims no rate and no time left before there is work to claim it from, and both from recent work."""

from __future__ import annotations

import pytest

from infra.cli.progress import Track


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tracked(clock: Clock) -> Track:
    return Track("read", is_terminal=False, monotonic=clock)


def test_nothing_is_claimed_at_once() -> None:
    clock = Clock()
    with tracked(clock) as track:
        clock.now += 0.5
        track.update(100, 1000)
        assert track.line(100, 1000) == "100 of 1,000 records"


def test_rate_and_time_left_follow_the_last_seconds() -> None:
    clock = Clock()
    with tracked(clock) as track:
        for second in range(1, 31):
            clock.now += 1
            track.update(second * 100, 6000)
        assert track.line(3000, 6000) == "3,000 of 6,000 records, 100/s, about 30 s left"
        for second in range(1, 31):  # it becomes ten times slower: the claim follows
            clock.now += 1
            track.update(3000 + second * 10, 6000)
        assert "10/s, about 4 min 30 s left" in track.line(3300, 6000)


def test_an_endless_stream_has_a_rate_and_no_end() -> None:
    clock = Clock()
    with tracked(clock) as track:
        clock.now += 2
        track.update(50)
        assert track.line(50, None, lag=7) == "50 records, 25/s, lag 7"


def test_elsewhere_than_on_a_terminal_a_line_comes_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with tracked(clock) as track:
        for _ in range(100):
            clock.now += 0.1
            track.update(1, 10)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert 2 <= len(shown.err.splitlines()) <= 4
    assert "\x1b" not in shown.err
