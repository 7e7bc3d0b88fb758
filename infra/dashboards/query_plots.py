"""Answers of `tidemark query` and `tidemark communities`, drawn: PNG or SVG by the file's ending."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import altair as alt

from domain.errors import InvalidValue
from infra.report.files import put
from infra.report.plots import BLUE, GREEN, GREY, ORANGE, RED, png, rows_of
from infra.report.wording import visible
from projections.warehouse.queries import Answer

WIDTH = 640  # points, of the plotting area
MOST_ROWS = 20_000  # that are read for one
MOST_ASSETS = 4  # one chart below the other
BARS = 25  # that stand one below the other and can still be read
_ENDINGS = (".png", ".svg")


def write_plot(chart: Any, file: Path) -> None:
    """Write a chart, whole or not at all.

    Raises:
        InvalidValue: another ending than .png and .svg.
        OSError: it cannot be written.
    """
    if file.suffix not in _ENDINGS:
        raise InvalidValue("plot", f"expected a file that ends in {' or '.join(_ENDINGS)}, found {file.name[:80]!r}")
    if file.suffix == ".png":
        put(file, png(chart))
        return
    target = io.StringIO()
    chart.save(target, format="svg")
    put(file, target.getvalue().encode())


def plot_of(name: str, answer: Answer) -> Any:
    """The chart of an answer.

    Raises:
        InvalidValue: this query has none, or nothing was found to draw.
    """
    if name not in PLOTS:
        raise InvalidValue("plot", f"{name} has no plot; these have: {', '.join(PLOTS)}")
    if not answer.rows:
        raise InvalidValue("plot", f"{name} found nothing to draw")
    rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    return PLOTS[name](rows, answer.bound).properties(title=_title(name, answer.bound))


def _title(name: str, bound: Mapping[str, Any]) -> Any:
    shown = [f"{key}={visible(value, 60)}" for key, value in bound.items()]
    return alt.TitleParams(name.replace("-", " "), subtitle=[", ".join(shown)], anchor="start", fontSize=16, subtitleFontSize=11)


def _flows(rows: list[dict[str, Any]], bound: Mapping[str, Any]) -> Any:
    """In above the line, out below it, day by day; an asset each."""
    sums: dict[tuple[datetime, str, str], float] = {}
    for row in rows:
        for way, sign in (("in", 1.0), ("out", -1.0)):
            key = (row["day"], visible(row["asset"], 20), way)
            sums[key] = sums.get(key, 0.0) + sign * float(row[f"amount_{way}"])
    busiest = Counter[str]()
    for row in rows:
        busiest[visible(row["asset"], 20)] += row["transactions"]
    assets = [asset for asset, _ in busiest.most_common(MOST_ASSETS)]
    left_out = f" ({len(busiest) - MOST_ASSETS} assets with fewer transactions are not drawn)" if len(busiest) > MOST_ASSETS else ""
    drawn = [
        {"day": day.isoformat(), "asset": asset, "way": way, "amount": n, "zero": 0.0}
        for (day, asset, way), n in sorted(sums.items()) if asset in assets and n
    ]  # fmt: skip
    colours = alt.Scale(domain=["in", "out"], range=[GREEN, RED])
    return alt.vconcat(
        *(
            alt.Chart(rows_of([row for row in drawn if row["asset"] == asset]), title=asset + (left_out if asset == assets[-1] else ""))
            .mark_bar(size=7)
            .encode(
                x=alt.X("day:T", title=None, scale=alt.Scale(type="utc")),
                y=alt.Y("zero:Q", title=asset, axis=alt.Axis(format="~s")),
                y2="amount:Q",
                color=alt.Color("way:N", scale=colours, legend=alt.Legend(orient="top", title=None)),
            )
            .properties(width=WIDTH, height=150)
            for asset in assets
        )
    )


def _volume(rows: list[dict[str, Any]], bound: Mapping[str, Any]) -> Any:
    """Worth in the quote asset, assets stacked; where an asset has no price its number of trades says that it is not in it."""
    unpriced = sum(int(row["unpriced"]) for row in rows)
    drawn = [
        {"day": row["day"].isoformat(), "asset": visible(row["asset"], 20), "worth": float(row["worth"])}
        for row in rows if row["worth"] is not None
    ]  # fmt: skip
    left_out = f"; {unpriced:,} trades without a price are not in it" if unpriced else ""
    title = f"{visible(bound['quote'], 20)} a day{left_out}"
    return (
        alt.Chart(rows_of(drawn))
        .mark_bar(size=7)
        .encode(
            x=alt.X("day:T", title=None, scale=alt.Scale(type="utc")),
            y=alt.Y("worth:Q", title=title, axis=alt.Axis(format="~s")),
            color=alt.Color("asset:N", title=None, legend=alt.Legend(orient="top")),
        )
        .properties(width=WIDTH, height=260)
    )


def _hubs(rows: list[dict[str, Any]], bound: Mapping[str, Any]) -> Any:
    return _bars(rows, "wallet_id", (("counterparties", "counterparties", BLUE),), "different wallets dealt with")


def _growth(rows: list[dict[str, Any]], bound: Mapping[str, Any]) -> Any:
    return _bars(rows, "wallet_id", (("per_hour", "now", RED), ("per_hour_before", "before", GREY)), "transactions an hour")


def _fan_in(rows: list[dict[str, Any]], bound: Mapping[str, Any]) -> Any:
    return _bars(rows, "wallet_id", (("senders", "senders", ORANGE),), "different senders")


def _bars(rows: Sequence[Mapping[str, Any]], name: str, values: Sequence[tuple[str, str, str]], title: str) -> Any:
    """One group of bars a row, longest first as they were found."""
    shown = [visible(row[name], 46) for row in rows[:BARS]]
    drawn = [
        {"name": label, "series": series, "n": float(row[column]), "zero": 0.0}
        for label, row in zip(shown, rows, strict=False) for column, series, _ in values
    ]  # fmt: skip
    colours = alt.Scale(domain=[series for _, series, _ in values], range=[colour for _, _, colour in values])
    legend = alt.Legend(orient="top", title=None) if len(values) > 1 else None
    return (
        alt.Chart(rows_of(drawn))
        .mark_bar()
        .encode(
            y=alt.Y("name:N", sort=list(dict.fromkeys(shown)), title=None, axis=alt.Axis(labelLimit=330, labelFont="monospace")),
            yOffset=alt.YOffset("series:N"),
            x=alt.X("n:Q", title=title, axis=alt.Axis(format="~s")),
            color=alt.Color("series:N", scale=colours, legend=legend),
        )
        .properties(width=WIDTH - 200, height=alt.Step(20 if len(values) == 1 else 14))
    )


PLOTS: Mapping[str, Callable[[list[dict[str, Any]], Mapping[str, Any]], Any]] = {
    "wallet-flows": _flows, "trading-volume": _volume, "hubs": _hubs, "sudden-growth": _growth, "fan-in": _fan_in,
}  # fmt: skip
"""Queries that can be drawn."""
