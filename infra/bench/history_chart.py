"""The cost of an event over the length of the history behind it, as PNG."""

from __future__ import annotations

from typing import Any

import altair as alt

from infra.report.plots import BLUE, GREEN, INK, ORANGE, RED, SOFT, WIDTH, png, rows_of

_COLOURS = {"command-handler": BLUE, "archive": GREEN, "warehouse": ORANGE, "graph": RED}
_MILLION = 1e6


def history_chart(result: dict[str, Any]) -> bytes:
    """One line a worker: microseconds of processor for an event, worker and servers together, at each length of history."""
    rows = [{"path": one["path"], "behind": one["behind"] / _MILLION, "cost": one["cpu_us"]} for one in result["steps"]]
    names = [name for name in _COLOURS if any(row["path"] == name for row in rows)]
    colours = alt.Scale(domain=names, range=[_COLOURS[name] for name in names])
    legend = alt.Legend(orient="top")
    # Each worker's cost is another power of ten; on a log scale the same growth is the same slope for all of them.
    log_scale = alt.Scale(type="log", nice=True)
    chart = (
        alt.Chart(rows_of(rows))
        .mark_line(strokeWidth=2.5, point=alt.OverlayMarkDef(filled=True, size=60))
        .encode(
            x=alt.X("behind:Q", title="millions of events in the log before", axis=alt.Axis(grid=False)),
            y=alt.Y("cost:Q", title="µs of processor an event (log scale)", scale=log_scale, axis=alt.Axis(tickCount=6)),
            color=alt.Color("path:N", scale=colours, title=None, legend=legend),
        )
        .properties(width=WIDTH, height=300, title=_title(result))
    )
    return png(chart)


def _title(result: dict[str, Any]) -> Any:
    below = f"Worker and servers together, {result['events']:,} simulated events"
    return alt.TitleParams(
        text="What an event costs as history grows", subtitle=[below], anchor="start", fontSize=17, fontWeight="bold", color=INK,
        subtitleColor=SOFT, subtitleFontSize=12, subtitlePadding=5, offset=14,
    )  # fmt: skip
