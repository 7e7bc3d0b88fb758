"""The report's figures as PNG, drawn offline. Each title says what is seen and whether the data is real or simulated.

Colours are Okabe and Ito's, told apart by colour-blind readers too; shapes and words repeat what colour says.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import altair as alt

from infra.report.model import LABELS, Latency, Report
from infra.report.wording import (
    P50_TARGET_MS,
    P99_TARGET_MS,
    forest_verdict,
    kind_of_data,
    maturities,
    rate,
    ratio,
    signed,
    visible,
)

SCALE = 2  # pixels per point: sharp on dense screens and in print
WIDTH = 640  # points, of the plotting area

BLUE, ORANGE, GREEN, RED, GREY, INK, SOFT = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A94A0", "#1C2733", "#5B6875"
_LABEL_COLOURS = {"illicit": RED, "licit": BLUE, "unlabelled": GREY}
_VERDICT_COLOURS = {"beaten": BLUE, "undecided": GREY, "behind": RED}
_FONT = "Liberation Sans, DejaVu Sans, Arial, sans-serif"
_MAX_BARS = 60  # of alerts over time
_LOG_SPREAD = 8  # rates further apart than this share no linear axis legibly


def draw(report: Report) -> dict[str, bytes]:
    """PNG by name, for what the report holds figures of: detection, throughput, latency, scores, alerts."""
    makers: dict[str, Callable[[Report], Any]] = {
        "detection": detection_chart,
        "throughput": throughput_chart,
        "latency": latency_chart,
        "scores": scores_chart,
        "alerts": alerts_chart,
    }
    charts = {name: maker(report) for name, maker in makers.items()}
    return {name: png(chart) for name, chart in charts.items() if chart is not None}


def detection_chart(report: Report) -> Any | None:
    """AUROC by maturity: the model, the forest, the features alone; below, the paired difference to the forest."""
    rows, differences, order = [], [], []
    for name, found in maturities(report):
        k = "last" if name == "all" else name
        order.append(k)
        series = (("model", found.auroc), ("features alone", found.features_only_auroc), ("forest", found.forest_auroc))
        rows += [{"k": k, "series": label, "auroc": value} for label, value in series if value is not None]
        if (known := found.paired_difference) is not None:
            text = f"{signed(known.point)}"
            differences.append(
                {
                    "k": k,
                    "point": known.point,
                    "low": known.low,
                    "high": known.high,
                    "text": text,
                    "colour": _VERDICT_COLOURS[forest_verdict(found)],
                }
            )
    if not rows:
        return None
    scale = alt.Scale(domain=["model", "features alone", "forest"], range=[BLUE, GREEN, ORANGE])
    x = alt.X(
        "k:N",
        sort=order,
        title=None if differences else _K_TITLE,
        axis=alt.Axis(labelAngle=0, grid=False),
        scale=alt.Scale(type="point", padding=0.4),
    )
    base = alt.Chart(rows_of(rows)).encode(
        x=x,
        y=alt.Y("auroc:Q", title="AUROC", scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(format=".2f", tickCount=6)),
        color=alt.Color("series:N", scale=scale, title=None, legend=alt.Legend(orient="top")),
    )
    shape = alt.Shape(
        "series:N",
        scale=alt.Scale(domain=["model", "features alone", "forest"], range=["circle", "triangle-up", "square"]),
        title=None,
        legend=alt.Legend(orient="top"),
    )
    upper = (base.mark_line(strokeWidth=2.5) + base.mark_point(filled=True, size=75, opacity=1).encode(shape=shape)).properties(
        width=WIDTH, height=250
    )
    title = _title(
        report,
        "How well illicit wallets are found",
        "AUROC after a wallet's k-th transaction, scores read back from the log",
    )
    if not differences:
        return upper.properties(title=title)
    colour = alt.Color("colour:N", scale=None)
    lower_x = alt.X(
        "k:N",
        sort=order,
        title=_K_TITLE,
        axis=alt.Axis(labelAngle=0, grid=False),
        scale=alt.Scale(type="point", padding=0.4),
    )
    data = rows_of(differences)
    y_title = "model − forest"
    lower = (
        alt.Chart(rows_of([{"zero": 0}])).mark_rule(color=INK, strokeDash=[4, 3]).encode(y=alt.Y("zero:Q", title=y_title))
        + alt.Chart(data).mark_rule(strokeWidth=3).encode(x=lower_x, y=alt.Y("low:Q", title=y_title), y2="high:Q", color=colour)
        + alt.Chart(data).mark_point(filled=True, size=80, opacity=1).encode(x=lower_x, y="point:Q", color=colour)
        + alt.Chart(data).mark_text(align="left", dx=9, fontSize=11, color=INK).encode(x=lower_x, y="point:Q", text="text:N")
    ).properties(
        width=WIDTH,
        height=130,
        title=_subtitle("Paired difference of AUROC, 95 % bootstrap interval: above 0 the forest is beaten"),
    )
    return alt.vconcat(upper, lower, spacing=18).properties(title=title)


def throughput_chart(report: Report) -> Any | None:
    """Events per second by stage, beside the bare tool where that was measured."""
    stages = [stage for stage in report.stages if stage.events_per_s]
    if not stages:
        return None
    rows = []
    for stage in stages:
        beside = f"{rate(stage.events_per_s)}/s" + (f", {ratio(stage.ratio)} of bare" if stage.ratio is not None else "")
        rows.append({"stage": visible(stage.name, 44), "ours": stage.events_per_s, "bare": stage.baseline_per_s, "text": beside})
    values = [value for row in rows for value in (row["ours"], row["bare"]) if isinstance(value, float) and value > 0]
    is_log = max(values) / min(values) > _LOG_SPREAD
    if is_log:
        scale = alt.Scale(type="log", domain=[_power_below(min(values)), max(values) * 6], nice=False)
    else:
        scale = alt.Scale(domain=[0, max(values) * 1.35], nice=False)
    x_title = "events per second" + (" (log scale)" if is_log else "")
    order = [str(row["stage"]) for row in rows]
    y = alt.Y(
        "stage:N",
        sort=order,
        title=None,
        axis=alt.Axis(labelLimit=260, ticks=False, domain=False, labelPadding=10, labelFontSize=12),
    )
    axis = alt.Axis(format="~s", tickCount=6, grid=True, values=_log_ticks(values) if is_log else alt.Undefined)
    bare = rows_of([{**row, "text": "bare"} for row in rows if row["bare"]])
    names = ["Tidemark", "bare tool, same rows"]
    kinds = alt.Scale(domain=names, range=[BLUE, ORANGE])
    shapes = alt.Scale(domain=names, range=["circle", "diamond"])
    points = rows_of(
        [{"stage": row["stage"], "value": row["ours"], "kind": names[0]} for row in rows]
        + [{"stage": row["stage"], "value": row["bare"], "kind": names[1]} for row in rows if row["bare"]]
    )
    far = [{**row, "at": max(row["ours"] or 0, row["bare"] or 0)} for row in rows]
    chart = (
        alt.Chart(bare)
        .mark_rule(color="#C9D1D9", strokeWidth=3)
        .encode(y=y, x=alt.X("ours:Q", scale=scale, axis=axis, title=x_title), x2="bare:Q")
        + alt.Chart(points)
        .mark_point(filled=True, size=120, opacity=1)
        .encode(
            y=y,
            x=alt.X("value:Q", scale=scale, axis=axis, title=x_title),
            color=alt.Color("kind:N", scale=kinds, title=None, legend=alt.Legend(orient="top")),
            shape=alt.Shape("kind:N", scale=shapes, title=None, legend=alt.Legend(orient="top")),
        )
        + alt.Chart(rows_of(far))
        .mark_text(align="left", dx=12, fontSize=11, color=INK)
        .encode(y=y, x=alt.X("at:Q", scale=scale), text="text:N")
    )
    return chart.properties(
        width=WIDTH,
        height=max(90, 40 * len(rows)),
        title=_title(report, "Events per second by stage", "Wall clock, on this machine"),
    )


def latency_chart(report: Report) -> Any | None:
    """The distribution of latency with its percentiles, or the percentiles alone where only they were kept."""
    latency = report.latency_ms
    if latency is None:
        return None
    what = (
        f"{latency.n:,} scores at {latency.offered_per_s:,.0f} transactions/s offered; from event append to the score read back committed"
    )
    chart = _latency_histogram(latency) if latency.bins else _latency_percentiles(latency)
    return chart.properties(title=_title(report, "How long a score takes", what))


def scores_chart(report: Report) -> Any | None:
    """Scores by label, each label's as shares of its own total: the unlabelled would hide the others."""
    found = report.scores
    if found is None:
        return None
    rows, names = [], []
    for label in LABELS:
        counts = found.counts.get(label, ())
        total = sum(counts)
        if not total:
            continue
        name = f"{label} ({total:,})"
        names.append((name, _LABEL_COLOURS[label]))
        rows += [
            {"label": name, "from": low, "to": high, "share": n / total, "zero": 0}
            for low, high, n in zip(found.edges[:-1], found.edges[1:], counts, strict=True)
        ]
    if not rows:
        return None
    domain = [name for name, _ in names]
    bars = (
        alt.Chart(rows_of(rows))
        .mark_rect(stroke="white", strokeWidth=1)
        .encode(
            x=alt.X(
                "from:Q",
                title="score",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".1f", tickCount=10, grid=False),
            ),
            x2="to:Q",
            y=alt.Y("zero:Q", title=None, axis=alt.Axis(format="~%", tickCount=3)),
            y2="share:Q",
            color=alt.Color("label:N", scale=alt.Scale(domain=domain, range=[colour for _, colour in names]), legend=None),
            row=alt.Row(
                "label:N",
                sort=domain,
                title=None,
                spacing=12,
                header=alt.Header(
                    labelAngle=0,
                    labelAlign="left",
                    labelAnchor="start",
                    labelOrient="top",
                    labelFontSize=12,
                    labelFontWeight="bold",
                    labelPadding=4,
                    labelColor=INK,
                ),
            ),
        )
    )
    unit = visible(found.unit, 40)
    return (
        bars.properties(width=WIDTH, height=95)
        .resolve_scale(y="independent")
        .properties(title=_title(report, "Scores by what a wallet turned out to be", f"Share of the {unit} with each label, by score"))
    )


def alerts_chart(report: Report) -> Any | None:
    """Alerts over time by label."""
    dated = [(alert.known_at, alert.label) for alert in report.alerts if alert.known_at is not None]
    if not dated:
        return None
    first, last = min(at for at, _ in dated), max(at for at, _ in dated)
    step, step_name = _step(last - first)
    counted = Counter(((at - first) // step, label) for at, label in dated)
    present = [label for label in LABELS if any(label == found for _, found in dated)]
    names = {label: f"{label} ({sum(1 for _, found in dated if found == label):,})" for label in present}
    rows: list[dict[str, Any]] = []
    height: Counter[int] = Counter()
    for label in present:
        for i in sorted(i for i, found in counted if found == label):
            low, high = height[i], height[i] + counted[i, label]
            height[i] = high
            span = {"from": (first + i * step).isoformat(), "to": (first + (i + 1) * step).isoformat()}
            rows.append({**span, "low": low, "high": high, "label": names[label]})
    domain = list(names.values())
    axis = alt.Axis(grid=False, labelOverlap=True, tickCount=8, format=_time_format(last - first))
    # Rectangles with both ends given: bars over time with a colour would be stacked along the wrong axis.
    bars = (
        alt.Chart(rows_of(rows))
        .mark_rect(stroke="white", strokeWidth=1)
        .encode(
            x=alt.X("from:T", title=None, scale=alt.Scale(type="utc", nice=False), axis=axis),
            x2="to:T",
            y=alt.Y(
                "low:Q",
                title="alerts",
                scale=alt.Scale(domainMin=0),
                axis=alt.Axis(tickMinStep=1, format=",d", tickCount=5),
            ),
            y2="high:Q",
            color=alt.Color(
                "label:N",
                sort=domain,
                scale=alt.Scale(domain=domain, range=[_LABEL_COLOURS[label] for label in present]),
                title=None,
                legend=alt.Legend(orient="top", symbolStrokeWidth=0),
            ),
        )
    )
    return bars.properties(
        width=WIDTH,
        height=230,
        title=_title(report, "Alerts over time", f"Each bar spans {step_name}, by what the wallet turned out to be"),
    )


_K_TITLE = "judged after a wallet's k-th transaction"


def _latency_histogram(latency: Latency) -> Any:
    bins = [{"from": found.from_ms, "to": found.to_ms, "n": found.n} for found in latency.bins]
    # The last bin holds the slow tail; drawn at its full length it would squeeze the rest.
    width = bins[0]["to"] - bins[0]["from"]
    bins[-1]["to"] = bins[-1]["from"] + width
    right = max(float(bins[-1]["to"]), latency.p99 * 1.05)
    x = alt.X(
        "from:Q",
        bin="binned",
        title="milliseconds (the last bar holds all slower ones)",
        scale=alt.Scale(domain=[0, right], nice=False),
        axis=alt.Axis(grid=False, tickCount=10),
    )
    bars = (
        alt.Chart(rows_of(bins))
        .mark_bar(color=BLUE, opacity=0.75, binSpacing=1)
        .encode(x=x, x2="to:Q", y=alt.Y("n:Q", title="scores", axis=alt.Axis(format=",d", tickCount=5, tickMinStep=1)))
    )
    marks = [("p50", latency.p50), ("p95", latency.p95), ("p99", latency.p99)]
    rows = [
        {"at": at, "text": f"{name} {at:,.1f} ms", "level": 10 + 17 * i, "is_late": at > right * 0.8} for i, (name, at) in enumerate(marks)
    ]
    rules = alt.Chart(rows_of(rows)).mark_rule(color=INK, strokeWidth=1.5, strokeDash=[5, 3]).encode(x=alt.X("at:Q"))
    chart = bars + rules
    for row in rows:
        chart += (
            alt.Chart(rows_of([row]))
            .mark_text(
                align="right" if row["is_late"] else "left",
                dx=-6 if row["is_late"] else 6,
                fontSize=12,
                fontWeight="bold",
                color=INK,
            )
            .encode(x="at:Q", y=alt.value(row["level"]), text="text:N")
        )
    return chart.properties(width=WIDTH, height=230)


def _latency_percentiles(latency: Latency) -> Any:
    names = ("p50", "p95", "p99")
    series = [("model endpoint", latency)] + ([("echo endpoint", latency.echo)] if latency.echo else [])
    rows = [
        {"percentile": name, "ms": getattr(found, name), "kind": kind, "text": f"{getattr(found, name):,.1f} ms"}
        for kind, found in series
        for name in names
    ]
    targets = [
        {"percentile": "p50", "ms": P50_TARGET_MS, "kind": "target: below"},
        {"percentile": "p99", "ms": P99_TARGET_MS, "kind": "target: below"},
    ]
    kind_names = [kind for kind, _ in series] + ["target: below"]
    kinds = alt.Scale(domain=kind_names, range=[*[BLUE, ORANGE][: len(series)], INK])
    shapes = alt.Scale(domain=kind_names, range=[*["circle", "diamond"][: len(series)], "cross"])
    y = alt.Y(
        "percentile:N",
        sort=list(names),
        title=None,
        axis=alt.Axis(ticks=False, domain=False, labelFontSize=13, labelPadding=10),
    )
    x = alt.X("ms:Q", title="milliseconds", scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(tickCount=8))
    base = alt.Chart(rows_of(rows)).encode(y=y, x=x)
    legend = alt.Legend(orient="top")
    return (
        alt.Chart(rows_of(rows + targets))
        .mark_point(filled=True, size=130, opacity=1, strokeWidth=2)
        .encode(
            y=y,
            x=x,
            color=alt.Color("kind:N", scale=kinds, title=None, legend=legend),
            shape=alt.Shape("kind:N", scale=shapes, title=None, legend=legend),
        )
        + base.transform_filter("datum.kind == 'model endpoint'").mark_text(dy=-15, fontSize=11, color=INK).encode(text="text:N")
        + base.transform_filter("datum.kind == 'echo endpoint'").mark_text(dy=17, fontSize=11, color=SOFT).encode(text="text:N")
    ).properties(width=WIDTH, height=170)


def _title(report: Report, text: str, below: str) -> Any:
    source = visible(report.data.source, 60)
    return alt.TitleParams(
        text=text,
        subtitle=[below, f"{kind_of_data(report).capitalize()}: {source}"],
        anchor="start",
        fontSize=17,
        fontWeight="bold",
        color=INK,
        subtitleColor=SOFT,
        subtitleFontSize=12,
        subtitlePadding=5,
        offset=14,
    )


def _subtitle(text: str) -> Any:
    return alt.TitleParams(text=text, anchor="start", fontSize=12, fontWeight="normal", color=SOFT, offset=8)


def _step(length: timedelta) -> tuple[timedelta, str]:
    """The shortest step of time, with its name, that gives no more than `_MAX_BARS` bars."""
    names = [
        (timedelta(minutes=1), "a minute"),
        (timedelta(hours=1), "an hour"),
        (timedelta(days=1), "a day"),
        (timedelta(days=7), "a week"),
    ]
    for step, name in names:
        if length / step <= _MAX_BARS:
            return step, name
    weeks = -(-length // (timedelta(days=7) * _MAX_BARS))
    return timedelta(days=7) * weeks, f"{weeks} weeks"


def _time_format(length: timedelta) -> str:
    if length > timedelta(days=70):
        return "%b %Y"
    return "%d %b" if length > timedelta(days=3) else "%d %b %H:%M"


def _log_ticks(values: list[float]) -> list[float]:
    """1, 2 and 5 of each power of ten: as many as can be labelled."""
    ticks = []
    power = _power_below(min(values))
    while power <= max(values):
        ticks += [power, 2 * power, 5 * power]
        power *= 10
    return ticks


def rows_of(rows: list[dict[str, Any]]) -> Any:
    """Rows as a chart's data."""
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]


def _power_below(value: float) -> float:
    power = 1.0
    while power > value:
        power /= 10
    while power * 10 <= value:
        power *= 10
    return power


def png(chart: Any) -> bytes:
    """A chart as PNG, in the report's manner."""
    styled = (
        chart.configure(background="white", font=_FONT, padding={"left": 18, "right": 24, "top": 16, "bottom": 14})
        .configure_view(stroke=None)
        .configure_axis(
            gridColor="#E6EAEE",
            domainColor="#B8C2CC",
            tickColor="#B8C2CC",
            labelColor=SOFT,
            titleColor=SOFT,
            labelFontSize=11,
            titleFontSize=12,
            titleFontWeight="normal",
            titlePadding=8,
        )
        .configure_legend(labelFontSize=12, labelColor=INK, symbolSize=110, columnPadding=18)
    )
    target = io.BytesIO()
    styled.save(target, format="png", scale_factor=SCALE)
    return target.getvalue()
