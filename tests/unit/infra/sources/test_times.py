"""Event times from text: what Python's own parser says, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.values import EPOCH
from infra.sources.mapping import TimeField
from infra.sources.times import micros

zones = st.none() | st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def micros_of(value: datetime) -> int:
    return (value - EPOCH) // timedelta(microseconds=1)


@settings(deadline=None, max_examples=200)
@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)), zones, st.sampled_from(["T", " "]))
def test_an_iso_time_is_what_python_reads(value: datetime, zone: timezone | None, separator: str) -> None:
    text = value.replace(tzinfo=zone).isoformat(separator)
    found, is_bad, is_early = micros(pa.array([text]), TimeField(column="t", format="iso"))
    expected = micros_of(value.replace(tzinfo=zone or UTC))
    assert not is_bad[0]
    assert found[0] == expected
    assert is_early[0] == (expected < 0)


@pytest.mark.parametrize(
    "text",
    ["", "x", "2024-13-01", "2024-02-30", "2023-02-29", "2024-01-01T24:00", "2024-01-01T10:60", "2024-01-01T10",
     "2024-01-01T10:00:00.", "2024-01-01T10:00 ", "2024-01/01", "2024-01-01T10:00:00Zx", "2024-01-01T10:00+25:00",
     "0000-01-01", "20240101"],
)  # fmt: skip
def test_what_is_no_iso_time_is_said_to_be_none(text: str) -> None:
    assert micros(pa.array([text]), TimeField(column="t", format="iso"))[1].tolist() == [True]


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ({"format": "unix_s"}, "1438920403", 1438920403_000_000),
        ({"format": "unix_s"}, "1438920403.1234567", 1438920403_123_456),
        ({"format": "unix_s"}, "1.438920403e9", 1438920403_000_000),
        ({"format": "unix_ms"}, "1438920403123", 1438920403_123_000),
        ({"format": "unix_us"}, "1438920403123456", 1438920403_123_456),
        ({"format": "step", "base": "1970-01-02T00:00:00Z", "step_s": 3600}, "2", (86_400 + 7_200) * 1_000_000),
        ({"format": "step", "base": "1970-01-02T00:00:00Z", "step_s": 1}, "0.5", 86_400_500_000),
        ({"format": "pattern", "pattern": "%d.%m.%Y %H:%M"}, "02.01.1970 00:01", 86_460_000_000),
        ({"format": "pattern", "pattern": "%d.%m.%Y %H:%M", "zone": "Europe/Berlin"}, "02.01.1970 01:01",
         86_460_000_000),
        ({"format": "pattern", "pattern": "%Y%m%d %H:%M %z"}, "19700102 02:01 +0200", 86_460_000_000),
    ],
    ids=["s", "s-fraction", "s-scientific", "ms", "us", "step", "half-step", "pattern", "zoned-pattern", "offset"],
)  # fmt: skip
def test_each_format_gives_microseconds(field: dict[str, object], text: str, expected: int) -> None:
    found, is_bad, _ = micros(pa.array([text]), TimeField(column="t", **field))
    assert not is_bad[0]
    assert found[0] == expected


def test_a_time_shown_twice_means_the_earlier() -> None:
    field = TimeField(column="t", format="iso", zone="Europe/Berlin")
    found, is_bad, _ = micros(pa.array(["2024-10-27T02:30:00"]), field)
    assert not is_bad[0]
    assert found[0] == micros_of(datetime(2024, 10, 27, 0, 30, tzinfo=UTC))


def test_typed_times_are_taken_as_they_are() -> None:
    column = pa.array([datetime(2024, 1, 1, 12), None], pa.timestamp("ms"))
    found, is_bad, _ = micros(column, TimeField(column="t", format="iso", zone="Europe/Berlin"))
    assert found[0] == micros_of(datetime(2024, 1, 1, 11, tzinfo=UTC))
    assert is_bad.tolist() == [False, True]
