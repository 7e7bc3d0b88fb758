"""Windows and steps: every transaction falls into a bar, and there are no more bars than can be seen."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.dashboards.gather import MOST_BARS, window_of
from infra.dashboards.model import Window, begin_of, end_of
from tests.unit.infra.dashboards import samples

TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@given(TIMES, TIMES, st.one_of(st.none(), st.integers(1, 4_000)))
def test_the_window_holds_what_was_asked_for_in_whole_steps(one: datetime, other: datetime, days: int | None) -> None:
    first, last = (begin_of(moment, "hour") for moment in sorted((one, other)))
    window = window_of(first, last, days)
    assert window is not None
    wanted = first if days is None else max(first, last + timedelta(hours=1) - timedelta(days=days))
    assert window.since <= wanted < window.until == last + timedelta(hours=1)
    assert window.since == begin_of(window.since, window.step)
    assert end_of(window.since, window.step) > wanted, "no empty bar before it"
    bars, begin = 0, window.since
    while begin < window.until:
        assert begin_of(begin, window.step) == begin
        begin = end_of(begin, window.step)
        bars += 1
    assert window.step == "year" or bars <= MOST_BARS + 2


def test_without_a_transaction_there_is_no_window() -> None:
    assert window_of(None, None, 30) is None


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (1, Window(at("2026-03-31T05"), at("2026-04-01T05"), "hour", False)),
        (30, Window(at("2026-03-02T00"), at("2026-04-01T05"), "day", False)),
        (365, Window(at("2025-03-31T00"), at("2026-04-01T05"), "week", False)),
        (None, Window(at("2016-01-01T00"), at("2026-04-01T05"), "quarter", True)),
    ],
)
def test_the_step_fits_the_window(days: int | None, expected: Window) -> None:
    assert window_of(at("2016-02-10T07"), at("2026-04-01T04"), days) == expected


def test_the_json_holds_every_digit() -> None:
    text = json.dumps(samples.full().as_json(), default=str)
    assert '"10234.123456789012345678"' in text and '"2026-03-02 00:00:00+00:00"' in text
