"""Event times from text to microseconds since 1970 UTC, many at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from infra.sources.mapping import TimeField
from infra.sources.numbers import NumberFault, scaled_integers

_Ints = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]
MAX_MICROS = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z, the last time that Python can hold
_DIGITS_OF_SECOND = {"unix_s": 6, "unix_ms": 3, "unix_us": 0}


def micros(column: pa.Array, field: TimeField) -> tuple[_Ints, _Flags, _Flags]:
    """Times as microseconds since 1970 UTC; digits past a microsecond are cut off.

    Returns:
        The numbers [n], where [n] the text is no time, and where [n] it lies before 1970.
    """
    if pa.types.is_timestamp(column.type):
        return _typed(column, field)
    texts = column.cast(pa.string())
    if field.format in _DIGITS_OF_SECOND:
        return _numbers(texts, _DIGITS_OF_SECOND[field.format])
    if field.format == "step":
        assert field.step_s is not None
        values, is_bad, is_early = _numbers(texts, 6)
        is_bad |= values > MAX_MICROS // field.step_s
        found = field.base_micros + np.where(is_bad, 0, values) * field.step_s
        return found, is_bad | is_early | (found > MAX_MICROS), found < 0
    if field.format == "iso":
        found, has_zone, is_bad = _iso(texts)
    else:
        assert field.pattern is not None
        found, has_zone, is_bad = _pattern(texts, field.pattern)
    is_bad |= np.asarray(texts.is_null())
    if field.zone != "UTC" and not has_zone.all():
        found, missing = _in_zone(found, has_zone, field.zone)
        is_bad |= missing
    return found, is_bad, ~is_bad & (found < 0)


def _numbers(texts: pa.Array, scale: int) -> tuple[_Ints, _Flags, _Flags]:
    words, faults = scaled_integers(texts, scale, is_truncating=True)
    is_early = faults == NumberFault.NEGATIVE
    is_bad = ((faults != NumberFault.NONE) & ~is_early) | np.asarray(texts.is_null())
    is_bad |= (words[:, 1] != 0) | (words[:, 0] > MAX_MICROS)
    return np.where(is_bad | is_early, 0, words[:, 0]).astype(np.int64), is_bad & ~is_early, is_early


def _typed(column: pa.Array, field: TimeField) -> tuple[_Ints, _Flags, _Flags]:
    is_null = np.asarray(column.is_null())
    found = pc.fill_null(column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64()), 0)
    values = np.array(found)
    if column.type.tz is None and field.zone != "UTC":
        values, missing = _in_zone(values, np.zeros(len(values), np.bool_), field.zone)
        is_null |= missing
    return values, is_null | (values > MAX_MICROS), values < 0


def _pattern(texts: pa.Array, pattern: str) -> tuple[_Ints, _Flags, _Flags]:
    has_zone = "%z" in pattern
    parsed = pl.Series(texts.to_pylist(), dtype=pl.String).str.to_datetime(
        pattern, time_unit="us", time_zone="UTC" if has_zone else None, strict=False
    )
    is_bad = parsed.is_null().to_numpy()
    return parsed.to_physical().fill_null(0).to_numpy().copy(), np.full(len(texts), has_zone), is_bad


def _in_zone(found: _Ints, has_zone: _Flags, zone: str) -> tuple[_Ints, _Flags]:
    """Wall-clock times as UTC where [n] no zone was given; and where [n] that clock never shows the time."""
    local = pl.Series(found).cast(pl.Datetime("us"))
    moved = local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    missing = moved.is_null().to_numpy() & ~has_zone
    utc = moved.dt.convert_time_zone("UTC").to_physical().fill_null(0).to_numpy()
    return np.where(has_zone, found, utc), missing


def _iso(texts: pa.Array) -> tuple[_Ints, _Flags, _Flags]:
    large = texts.cast(pa.large_string())
    n = len(large)
    offsets = np.frombuffer(large.buffers()[1], np.int64)[large.offset : large.offset + n + 1]
    data = large.buffers()[2]
    buffer = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8)
    out, has_zone, is_bad = np.zeros(n, np.int64), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    _parse_iso(buffer, offsets, out, has_zone, is_bad)
    return out, has_zone, is_bad


@njit(cache=True, nogil=True, boundscheck=False)
def _number(buffer, at, end, width):  # type: ignore[no-untyped-def]
    """Exactly `width` digits, -1 where they are not there."""
    if at + width > end:
        return -1
    value = 0
    for k in range(width):
        digit = buffer[at + k] - 48
        if digit < 0 or digit > 9:
            return -1
        value = value * 10 + digit
    return value


@njit(cache=True, nogil=True, boundscheck=False)
def _days(year, month, day):  # type: ignore[no-untyped-def]
    """Days since 1970-01-01 (proleptic Gregorian; H. Hinnant, "chrono-Compatible Low-Level Date Algorithms")."""
    year -= month <= 2
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146097 + day_of_era - 719468


_MONTH_DAYS = np.array([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)


@njit(cache=True, nogil=True, boundscheck=False)
def _parse_iso(buffer, offsets, out, has_zone, is_bad):  # type: ignore[no-untyped-def]
    """YYYY-MM-DD or YYYY/MM/DD, then optionally T or a space, HH:MM, :SS, .fraction, and Z, ±HH:MM, ±HHMM or ±HH."""
    for i in range(out.shape[0]):
        at = offsets[i]
        end = offsets[i + 1]
        is_bad[i] = True
        year = _number(buffer, at, end, 4)
        month = _number(buffer, at + 5, end, 2)
        day = _number(buffer, at + 8, end, 2)
        if year < 1 or month < 1 or month > 12 or day < 1:
            continue
        if buffer[at + 4] != buffer[at + 7] or (buffer[at + 4] != 45 and buffer[at + 4] != 47):
            continue
        is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        if day > _MONTH_DAYS[month - 1] or (month == 2 and day == 29 and not is_leap):
            continue
        at += 10
        hour = 0
        minute = 0
        second = 0
        fraction = 0
        if at < end:
            if buffer[at] != 84 and buffer[at] != 116 and buffer[at] != 32:
                continue
            hour = _number(buffer, at + 1, end, 2)
            minute = _number(buffer, at + 4, end, 2)
            if hour < 0 or hour > 23 or minute < 0 or minute > 59 or buffer[at + 3] != 58:
                continue
            at += 6
            if at < end and buffer[at] == 58:
                second = _number(buffer, at + 1, end, 2)
                if second < 0 or second > 59:
                    continue
                at += 3
                if at < end and (buffer[at] == 46 or buffer[at] == 44):
                    at += 1
                    start = at
                    while at < end and 48 <= buffer[at] <= 57:
                        if at - start < 6:
                            fraction = fraction * 10 + (buffer[at] - 48)
                        at += 1
                    if at == start:
                        continue
                    for _ in range(at - start, 6):
                        fraction *= 10
        offset = 0
        if at < end:
            if buffer[at] == 32 and at + 1 < end:
                at += 1
            if at < end and (buffer[at] == 90 or buffer[at] == 122):
                has_zone[i] = True
                at += 1
            elif at < end and (buffer[at] == 43 or buffer[at] == 45):
                sign = 1 if buffer[at] == 43 else -1
                hours = _number(buffer, at + 1, end, 2)
                at += 3
                minutes = 0
                if at < end and buffer[at] == 58:
                    at += 1
                    minutes = _number(buffer, at, end, 2)
                    at += 2
                elif at < end:
                    minutes = _number(buffer, at, end, 2)
                    at += 2
                if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
                    continue
                has_zone[i] = True
                offset = sign * (hours * 60 + minutes)
        if at != end:
            continue
        seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute - offset) * 60 + second
        out[i] = np.int64(seconds) * 1_000_000 + fraction
        is_bad[i] = False
