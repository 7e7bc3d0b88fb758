"""The page's charts as SVG inside of it. Their colours are the page's variables, so that they turn dark and print with it.

Every chart has a title and a description for who does not see it; the page gives the same figures as a table beside.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import cycle
from typing import Any

import altair as alt
from markupsafe import Markup, escape

from infra.dashboards.model import Dashboard, Step, Volume, Window, begin_of, end_of
from infra.report.plots import rows_of
from infra.report.wording import visible

WIDTH, HALF_WIDTH = 900, 420  # of the plotting area; the page scales it down where it is narrow
NETWORKS, ASSETS = 6, 6  # that have a colour, a chart of their own
REST = "all others"
_COLOURS = tuple(f"var(--s{i})" for i in range(1, NETWORKS + 1))
_FONT = 'system-ui, "Segoe UI", "Liberation Sans", "DejaVu Sans", sans-serif'
_TIME_FORMATS: Mapping[Step, str] = {
    "hour": "%d %b %H:%M", "day": "%d %b", "week": "%d %b %Y", "month": "%b %Y", "quarter": "%b %Y", "year": "%Y",
}  # fmt: skip
Bar = tuple[datetime, str, float]
"""Begin of a step, a name, how much."""


def draw(page: Dashboard) -> dict[str, Markup]:
    """SVG by name, for what there are figures of: volume, unsettled, scores, alerts, and `amount <n>` for each asset in order."""
    figures = page.figures
    window = figures.window
    if window is None:
        return {}
    charts: dict[str, Markup] = {}
    if figures.volume:
        by_network = networks(figures.volume)
        counts = per_step(figures.volume, by_network, lambda one: one.transactions)
        chart = stacked(counts, by_network, window, "transactions", WIDTH, 190)
        charts["volume"] = svg(chart, "volume", "Transactions over time", f"One bar a {window.step}, by network")
        charts["unsettled"] = svg(
            _unsettled(figures.volume, by_network, window), "unsettled", "Share of transactions that failed or were declined",
            f"One line a network, one point a {window.step}",
        )  # fmt: skip
        for i, (network, asset) in enumerate(assets(figures.volume)):
            moved = [one for one in figures.volume if (one.network, one.asset) == (network, asset)]
            colours = {"": by_network.get(visible(network, 40)) or by_network[REST]}
            chart = stacked([(one.at, "", float(one.amount)) for one in moved], colours, window, "", HALF_WIDTH, 96)
            name = f"{visible(asset, 40)} on {visible(network, 40)}"
            charts[f"amount {i}"] = svg(chart, f"amount-{i}", f"Settled amount of {name}", f"One bar a {window.step}")
    if figures.scores:
        charts["scores"] = svg(_scores(figures.scores), "scores", "Distribution of scores", "Number of scores by value, on a root scale")
    if figures.alerts:
        counts = [(one.at, words(one.reason), one.alerts) for one in figures.alerts]
        reasons = coloured(dict.fromkeys(name for _, name, _ in counts))
        chart = stacked(counts, reasons, window, "alerts", HALF_WIDTH, 170)
        charts["alerts"] = svg(chart, "alerts", "Alerts over time", f"One bar a {window.step}, by reason")
    return charts


def networks(volume: Iterable[Volume]) -> dict[str, str]:
    """The networks with most transactions, with their colours; `REST` where there are more than have one."""
    totals: defaultdict[str, int] = defaultdict(int)
    for one in volume:
        totals[visible(one.network, 40)] += one.transactions
    ranked = sorted(totals, key=lambda name: (-totals[name], name))
    return coloured(ranked if len(ranked) <= NETWORKS else [*ranked[: NETWORKS - 1], REST])


def coloured(names: Iterable[str]) -> dict[str, str]:
    """Names with a colour each; where there are more than colours, they begin anew."""
    return dict(zip(names, cycle(_COLOURS), strict=False))


def words(name: str) -> str:
    """A name of the code, as words."""
    return visible(name, 60).replace("_", " ")


def assets(volume: Iterable[Volume]) -> list[tuple[str, str]]:
    """(network, asset) of the assets with most transactions: each has a chart of its own, for different assets are never added."""
    return list(asset_totals(volume))[:ASSETS]


def asset_totals(volume: Iterable[Volume]) -> dict[tuple[str, str], tuple[int, int, Decimal]]:
    """(network, asset) → transactions, how many settled, the settled amount; those with most transactions first."""
    totals: dict[tuple[str, str], tuple[int, int, Decimal]] = {}
    for one in volume:
        n, settled, amount = totals.get((one.network, one.asset), (0, 0, Decimal(0)))
        totals[one.network, one.asset] = (n + one.transactions, settled + one.settled, amount + one.amount)
    return dict(sorted(totals.items(), key=lambda item: (-item[1][0], item[0])))


def per_step(volume: Iterable[Volume], names: Container[str], value: Any) -> list[Bar]:
    """Sums by step and network, in order of time; networks without a colour together."""
    sums: defaultdict[tuple[datetime, str], float] = defaultdict(float)
    for one in volume:
        name = visible(one.network, 40)
        sums[one.at, name if name in names else REST] += value(one)
    return [(at, name, n) for (at, name), n in sorted(sums.items())]


def stacked(rows: Iterable[Bar], colours: Mapping[str, str], window: Window, title: str, width: int, height: int) -> Any:
    """Bars over the window, one on the other in the order of the colours."""
    drawn: list[dict[str, Any]] = []
    heights: defaultdict[datetime, float] = defaultdict(float)
    names = list(colours)
    for at, name, n in sorted(rows, key=lambda row: (row[0], names.index(row[1]))):
        low = heights[at]
        heights[at] = low + n
        drawn.append({**_span(at, window.step), "low": low, "high": low + n, "name": name})
    # Rectangles with both ends given: bars over time with a colour would be stacked along the wrong axis.
    return (
        alt.Chart(rows_of(drawn))
        .mark_rect(stroke="var(--card)", strokeWidth=0.6)
        .encode(
            x=_time_axis(window, width),
            x2="to:T",
            y=alt.Y("low:Q", title=title or None, scale=alt.Scale(domainMin=0), axis=alt.Axis(format="~s", tickCount=height // 36)),
            y2="high:Q",
            color=_colour(colours),
        )
        .properties(width=width, height=height)
    )


def svg(chart: Any, name: str, title: str, description: str) -> Markup:
    """A chart as SVG that stands in the page, titled and described; `name` makes its ids."""
    styled = (
        chart.configure(background="transparent", font=_FONT, padding=4, aria=False)
        .configure_view(stroke=None)
        .configure_axis(
            gridColor="var(--line)", domainColor="var(--line)", tickColor="var(--line)", labelColor="var(--soft)", titleColor="var(--soft)",
            labelFontSize=11, titleFontSize=11, titleFontWeight="normal", titlePadding=8,
        )
        .configure_legend(labelFontSize=12, labelColor="var(--ink)", symbolSize=90, columnPadding=16, symbolStrokeWidth=0)
    )  # fmt: skip
    target = io.StringIO()
    styled.save(target, format="svg")
    head, _, body = target.getvalue().partition(">")
    named = f'{head} role="img" aria-labelledby="{name}-title {name}-text">'
    # What the library writes is escaped by it; a hostile name of an asset is text in there.
    return Markup(named + f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(description)}</desc>' + body)


def _unsettled(volume: Sequence[Volume], colours: Mapping[str, str], window: Window) -> Any:
    counted = per_step(volume, colours, lambda one: one.transactions)
    missing = {(at, name): n for at, name, n in per_step(volume, colours, lambda one: one.transactions - one.settled)}
    rows = [{**_span(at, window.step), "share": missing[at, name] / n, "name": name} for at, name, n in counted if n]
    base = alt.Chart(rows_of(rows)).encode(
        x=_time_axis(window, WIDTH),
        y=alt.Y("share:Q", title=None, scale=alt.Scale(domainMin=0), axis=alt.Axis(format="~%", tickCount=4)),
        color=_colour(colours),
    )
    lines = base.mark_line(strokeWidth=2) + base.mark_point(filled=True, size=22, opacity=1)
    return lines.properties(width=WIDTH, height=130)


def _scores(counts: Sequence[int]) -> Any:
    rows = [{"from": i / len(counts), "to": (i + 1) / len(counts), "n": n, "zero": 0} for i, n in enumerate(counts)]
    return (
        alt.Chart(rows_of(rows))
        .mark_rect(stroke="var(--card)", strokeWidth=0.6, color="var(--s1)")
        .encode(
            x=alt.X("from:Q", title="score", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".1f", tickCount=10, grid=False)),
            x2="to:Q",
            # Most scores are small, and the few high ones are what matters.
            y=alt.Y("zero:Q", title="scores (root scale)", scale=alt.Scale(type="sqrt"), axis=alt.Axis(format="~s", tickCount=5)),
            y2="n:Q",
        )
        .properties(width=HALF_WIDTH, height=170)
    )


def _span(at: datetime, step: Step) -> dict[str, str]:
    return {"from": at.isoformat(), "to": end_of(at, step).isoformat()}


def _time_axis(window: Window, width: int) -> Any:
    axis = alt.Axis(grid=False, labelOverlap="greedy", tickCount=max(3, width // 110), format=_TIME_FORMATS[window.step])
    # The same for all charts, so that one below the other can be compared.
    domain = [window.since.isoformat(), end_of(begin_of(window.until - timedelta(hours=1), window.step), window.step).isoformat()]
    return alt.X("from:T", title=None, scale=alt.Scale(type="utc", nice=False, domain=domain), axis=axis)


def _colour(colours: Mapping[str, str]) -> Any:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color("name:N", sort=list(colours), scale=scale, legend=alt.Legend(orient="top", title=None) if len(colours) > 1 else None)
