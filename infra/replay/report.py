"""A replay's report: one HTML page that needs nothing else, and the same as JSON beside it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import altair as alt
from markupsafe import Markup

from infra.dashboards.charts import svg
from infra.dashboards.page import amount
from infra.replay.outcome import FRAUD, HONEST, UNKNOWN
from infra.replay.run import ReplayResult
from infra.report.files import put
from infra.report.html import environment
from infra.report.plots import rows_of
from infra.report.wording import visible

PAGE, DATA = "report.html", "report.json"
WIDTH = 900  # of the plotting area; the page scales it down where it is narrow
_TRUTHS = {FRAUD: ("on fraud", "var(--s3)"), HONEST: ("false alarms", "var(--s2)"), UNKNOWN: ("without a label", "var(--s6)")}
_SERIES = tuple(f"var(--s{number})" for number in (1, 2, 3, 4, 5, 6))
_TIMES = ((timedelta(days=3), "%d %b %H:%M"), (timedelta(days=400), "%d %b"))


def write(result: ReplayResult, folder: Path) -> Path:
    """Write page and JSON, each whole or not at all; returns the page's file.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    put(folder / DATA, (json.dumps(result.as_json(), indent=1, ensure_ascii=True) + "\n").encode())
    put(folder / PAGE, render(result).encode())
    return folder / PAGE


def render(result: ReplayResult) -> str:
    """The page."""
    made = environment(__package__)
    made.filters["money"] = _money
    outcome = result.outcome
    return made.get_template("replay.html.j2").render(
        result=result, outcome=outcome, measured=result.measured, inputs=result.inputs, charts=draw(result),
        start=datetime.fromisoformat(outcome["start"]), end=datetime.fromisoformat(outcome["end"]), quote=result.inputs["quote"],
        has_labels=any(one["true_alerts"] or one["false_alarms"] or one["at_stake"]["transactions"] for one in outcome["variants"]),
    )  # fmt: skip


def draw(result: ReplayResult) -> dict[str, Markup]:
    """SVG by name, for what there are figures of: `alerts <n>` for each variant, value, latency, strategies."""
    charts: dict[str, Markup] = {}
    for number, variant in enumerate(result.outcome["variants"], 1):
        if variant["alerts"]:
            title = f"Alerts over time: {visible(variant['variant'], 80)}"
            charts[f"alerts {number}"] = svg(_alerts(result, variant), f"alerts-{number}", title, "Bars by what the alert was on")
    if any(one["at_stake"]["transactions"] for one in result.outcome["variants"]):
        charts["value"] = svg(_value(result), "value", "Fraudulent transactions stopped in time", "One bar a variant")
    if (latency := result.measured["latency"]) is not None and len(latency["by_second"]) > 1:
        charts["latency"] = svg(_latency(latency), "latency", "Latency of a score under this load", "p50 and p99 of each second")
    if result.outcome["strategies"]:
        charts["strategies"] = svg(_curves(result), "strategies", "Value of each strategy's account", "One line a strategy")
    return charts


def _alerts(result: ReplayResult, variant: dict[str, Any]) -> Any:
    start, end = (datetime.fromisoformat(result.outcome[name]) for name in ("start", "end"))
    steps = len(variant["over_time"][FRAUD])
    width = (end - start) / steps
    rows = []
    for step in range(steps):
        low = 0
        for truth, (words, _) in _TRUTHS.items():
            if count := variant["over_time"][truth][step]:
                span = {"from": (start + width * step).isoformat(), "to": (start + width * (step + 1)).isoformat()}
                rows.append({**span, "low": low, "high": low + count, "name": words})
                low += count
    colours = alt.Scale(domain=[words for words, _ in _TRUTHS.values()], range=[colour for _, colour in _TRUTHS.values()])
    return (
        alt.Chart(rows_of(rows))
        .mark_rect(stroke="var(--card)", strokeWidth=0.6)
        .encode(
            x=alt.X("from:T", title=None, scale=_time(start, end), axis=_time_axis(start, end)),
            x2="to:T",
            y=alt.Y("low:Q", title="alerts", scale=alt.Scale(domainMin=0), axis=alt.Axis(format="~s", tickCount=4)),
            y2="high:Q",
            color=alt.Color("name:N", scale=colours, legend=alt.Legend(orient="top", title=None)),
        )
        .properties(width=WIDTH, height=120)
    )


def _value(result: ReplayResult) -> Any:
    rows = [
        {"name": visible(one["variant"], 60), "share": one["prevented"]["transactions"] / one["at_stake"]["transactions"], "zero": 0}
        for one in result.outcome["variants"] if one["at_stake"]["transactions"]
    ]  # fmt: skip
    axis = alt.Axis(format="~%", tickCount=5)
    # Names stand over their bars: how wide they are, whoever draws this does not know.
    base = alt.Chart(rows_of(rows)).encode(
        y=alt.Y("name:N", sort=[row["name"] for row in rows], axis=None),
        x=alt.X("zero:Q", title="share of the transactions at stake", scale=alt.Scale(domain=[0, 1]), axis=axis),
    )
    bars = base.mark_bar(color="var(--s3)", height=12, yOffset=8).encode(x2="share:Q")
    names = base.mark_text(align="left", dx=2, dy=-8, fontSize=12, color="var(--ink)").encode(text="name:N")
    return (bars + names).properties(width=WIDTH, height=44 * len(rows))


def _latency(latency: dict[str, Any]) -> Any:
    rows = [
        {"at": second, "ms": value, "name": name}
        for second, p50, p99, _ in latency["by_second"] for name, value in (("p50", p50), ("p99", p99))
    ]  # fmt: skip
    colours = alt.Scale(domain=["p50", "p99"], range=["var(--s1)", "var(--s2)"])
    return (
        alt.Chart(rows_of(rows))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("at:Q", title="second of the replay", axis=alt.Axis(grid=False, tickMinStep=1, format="d")),
            y=alt.Y("ms:Q", title="ms", scale=alt.Scale(domainMin=0)),
            color=alt.Color("name:N", scale=colours, legend=alt.Legend(orient="top", title=None)),
        )
        .properties(width=WIDTH, height=130)
    )


def _curves(result: ReplayResult) -> Any:
    start, end = (datetime.fromisoformat(result.outcome[name]) for name in ("start", "end"))
    names = [visible(one["strategy"], 60) for one in result.outcome["strategies"]]
    rows = [
        {"at": datetime.fromtimestamp(at / 1e6, tz=start.tzinfo).isoformat(), "value": float(value), "name": name}
        for name, one in zip(names, result.outcome["strategies"], strict=True) for at, value in one["curve"]
    ]  # fmt: skip
    colours = alt.Scale(domain=names, range=[_SERIES[number % len(_SERIES)] for number in range(len(names))])
    return (
        alt.Chart(rows_of(rows))
        .mark_line(strokeWidth=2, interpolate="step-after")
        .encode(
            x=alt.X("at:T", title=None, scale=_time(start, end), axis=_time_axis(start, end)),
            y=alt.Y("value:Q", title=visible(result.inputs["quote"], 20), scale=alt.Scale(zero=False), axis=alt.Axis(format="~s")),
            color=alt.Color("name:N", scale=colours, legend=alt.Legend(orient="top", title=None)),
        )
        .properties(width=WIDTH, height=170)
    )


def _time(start: datetime, end: datetime) -> Any:
    return alt.Scale(type="utc", nice=False, domain=[start.isoformat(), end.isoformat()])


def _time_axis(start: datetime, end: datetime) -> Any:
    form = next((form for length, form in _TIMES if end - start <= length), "%b %Y")
    return alt.Axis(grid=False, labelOverlap="greedy", tickCount=8, format=form)


def _money(value: dict[str, Any], quote: str) -> str:
    """A value as people read it: in the quote asset where every transaction had a price, else asset by asset."""
    if not value["transactions"]:
        return "–"
    if value["in_quote"] is not None and not value["unpriced"]:
        return f"{amount(Decimal(value['in_quote']))} {visible(quote, 20)}"
    parts = sorted(value["by_asset"].items(), key=lambda item: -Decimal(item[1]))
    shown = [f"{amount(Decimal(number))} {visible(asset, 20)}" for asset, number in parts[:4]]
    return ", ".join(shown) + (f" and {len(parts) - 4} more" if len(parts) > 4 else "")
