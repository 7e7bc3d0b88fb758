"""Drift: whether the last whole day of transactions looks like the twenty days before it, each network and asset for itself.

Looked at are how many there are, how many lack a side or did not settle, and what they move (median, and the value that one in twenty
passes). A figure must lie within what those days had, widened: by a factor for numbers and amounts, by some hundredths for shares.
The bounds are wide on purpose: they speak of a feed that broke, was cut or doubled, not of a slow week.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
from adbc_driver_manager.dbapi import Cursor

from projections.warehouse.connection import run
from projections.warehouse.suites import Expectation, Suite

DAYS = 20
LEAST_DAYS = 5
"""Fewer days before it say nothing of a day."""
LEAST_TRANSACTIONS = 50
"""A network and asset with fewer a day, in the middle of those days, is left out: chance alone would move it."""
LIVE = timedelta(days=2)
"""So far apart may it be when the last transaction occurred and when it came in, for the warehouse to count as live."""
MOST_STREAMS = 20
FACTOR, SHARE = 2.0, 0.05
_SHARES = ("without_source", "without_target", "unsettled")
_FACTORS = ("transactions", "amount_median", "amount_p95")

NEWEST = "SELECT max(occurred_at), max(ingested_at) FROM fact_transaction"
PROFILE = """
SELECT network, asset, CAST(date_trunc('day', occurred_at AT TIME ZONE 'UTC') AS date) AS occurred_on,
       count(*) AS transactions,
       avg(CASE WHEN source_wallet_id IS NULL THEN 1.0 ELSE 0.0 END) AS without_source,
       avg(CASE WHEN target_wallet_id IS NULL THEN 1.0 ELSE 0.0 END) AS without_target,
       avg(CASE WHEN status = 'settled' THEN 0.0 ELSE 1.0 END) AS unsettled,
       CAST(percentile_cont(0.5) WITHIN GROUP (ORDER BY amount) AS double precision) AS amount_median,
       CAST(percentile_cont(0.95) WITHIN GROUP (ORDER BY amount) AS double precision) AS amount_p95
FROM fact_transaction
WHERE occurred_at >= $1 AND occurred_at < $2
GROUP BY 1, 2, 3
"""
"""A row a network, asset and day; takes the times of the first day's start and the last one's end."""


@dataclass(slots=True)
class Stream:
    """The days of one network and asset: figures by name."""

    network: str
    asset: str
    days: dict[date, dict[str, float]] = field(default_factory=dict)


def drift_suites(cursor: Cursor, now: datetime) -> dict[str, Suite]:
    """What is expected of the last whole day, for each network and asset that has enough days before it; empty where none has.

    That day is yesterday where transactions come in as they occur; of a history that was brought in at once, its own last whole day.

    Raises:
        adbc_driver_manager.Error: as any statement.
    """
    ((newest, came_in),) = run(cursor, NEWEST)
    if newest is None:
        return {}
    is_live = abs(came_in - newest) < LIVE
    end = (now if is_live else min(now, newest)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    rows = run(cursor, PROFILE, (end - timedelta(days=DAYS + 1), end))
    streams: dict[tuple[str, str], Stream] = {}
    for network, asset, day, *figures in rows:
        names = (*_FACTORS[:1], *_SHARES, *_FACTORS[1:])
        streams.setdefault((network, asset), Stream(network, asset)).days[day] = {
            name: float(value) for name, value in zip(names, figures, strict=True)
        }
    return dict(_suites(list(streams.values()), (end - timedelta(days=1)).date()))


def _suites(streams: Sequence[Stream], judged: date) -> Iterator[tuple[str, Suite]]:
    by_size = sorted(streams, key=lambda stream: (-sum(day["transactions"] for day in stream.days.values()), stream.network, stream.asset))
    for number, stream in enumerate(by_size[:MOST_STREAMS], 1):
        known = [day for day in stream.days if day < judged]
        if len(known) < LEAST_DAYS:
            continue
        # A day without any has no row: one that rests on weekends may rest on the judged day too.
        before = [stream.days.get(day, {"transactions": 0.0}) for day in _days(min(known), judged)]
        if sorted(day["transactions"] for day in before)[len(before) // 2] < LEAST_TRANSACTIONS:
            continue
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{stream.network}-{stream.asset}")[:40].strip("-")
        yield f"drift-{number:02}-{name}", suite_of(before, stream.days.get(judged, {"transactions": 0.0}))


def suite_of(before: Sequence[Mapping[str, float]], judged: Mapping[str, float]) -> Suite:
    """What days before one expect of it. A day without any transaction has that figure alone."""
    expectations, columns = [], {}
    for name in (*_FACTORS, *_SHARES):
        if name not in judged:
            continue
        known = [day[name] for day in before if name in day]
        if name in _SHARES:
            low, high = max(0.0, min(known) - SHARE), min(1.0, max(known) + SHARE)
        else:
            low, high = min(known) / FACTOR, max(known) * FACTOR
        columns[name] = pa.array([judged[name]], pa.float64())
        expectations.append(Expectation("ExpectColumnValuesToBeBetween", {"column": name, "min_value": low, "max_value": high}))
    return Suite(pa.table(columns), expectations)


def _days(first: date, end: date) -> list[date]:
    """Each day from the first to before the end."""
    return [first + timedelta(days=number) for number in range((end - first).days)]
