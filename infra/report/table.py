"""The report on a terminal: the figures and sentences of the page in 100 columns; outside text never becomes markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from infra.report import wording
from infra.report.model import Accounting, Report, utc_text

COLUMNS = 100
TERMINAL_ALERTS = 8

_VERDICT_STYLES = {"beaten": "green", "behind": "red", "undecided": "yellow", "not compared": "dim"}
_LABEL_STYLES = {"illicit": "red", "licit": "cyan", "unlabelled": "dim"}


def print_report(report: Report, console: Console) -> None:
    """Print the report, no wider than `COLUMNS`."""
    console.print(render(report), width=min(COLUMNS, console.width), highlight=False, markup=False, emoji=False)


def render(report: Report) -> RenderableType:
    """The report as one rich object. Every text in it is a `Text`, so no markup or emoji code is ever read."""
    parts: list[RenderableType] = [_verdict(report), Text()]
    parts += _section("Proof", _proof(report), _rows_line(report))
    parts += _section("Speed", _stages(report))
    if report.latency_ms is not None:
        parts += _section("Latency", _latency(report), Text(wording.on_latency(report.latency_ms), style="dim"))
    parts += _detection(report)
    parts += _section("Alerts", Text(wording.on_alerts(report)), _alerts(report))
    if report.memory_mib is not None:
        total = f"{wording.mib(report.memory_mib.total)} in all"
        peak = f", peak {wording.mib(report.memory_mib.peak_total)}" if report.memory_mib.peak_total is not None else ""
        by_size = sorted(report.memory_mib.by_process.items(), key=lambda pair: -pair[1])
        parts += _section("Memory (PSS)", Text(total + peak), _flow((name, wording.mib(mib)) for name, mib in by_size))
    if report.lag:
        parts += _section("Lag in records", _flow((name, wording.count(records)) for name, records in report.lag.items()))
    if report.steps:
        took = wording.seconds(sum(report.steps.values()))
        parts += _section(
            "Steps",
            Text(f"{took} in all"),
            _flow((name, wording.seconds(value)) for name, value in report.steps.items()),
        )
    if report.links:
        parts += _section("Links", _links(report.links))
    return Group(*parts)


def _verdict(report: Report) -> RenderableType:
    style = "green" if report.is_green else "red"
    body = Text(wording.headline(report), style=f"bold {style}")
    for proof in report.verify.stores:
        for problem in proof.problems[:3]:
            body.append(f"\n{wording.visible(proof.store, 40)}: {wording.visible(problem)}", style=style)
    body.append(f"\n{wording.what_ran(report)}", style="default not bold")
    return Panel(
        body,
        title=Text(f"Tidemark report, {utc_text(report.made_at)}"),
        title_align="left",
        border_style=style,
        box=box.ROUNDED,
        padding=(0, 1),
    )


def _proof(report: Report) -> RenderableType:
    rows = [
        (
            _cell(proof.store),
            Text("equal", style="green") if proof.ok else Text("differs", style="bold red"),
            wording.count(proof.records),
            wording.count(sum(proof.rows.values())),
            wording.count(proof.quarantined),
            wording.count(proof.lag_records),
        )
        for proof in report.verify.stores
    ]
    return _table(("store", "result", "log records", "rows", "quarantined", "behind"), rows, n_left=2)


def _rows_line(report: Report) -> Text:
    found = report.accounting
    if found is None:
        return Text("rows were not counted", style="dim")
    sign = "=" if found.is_balanced else "≠"
    said = (
        f"{found.read:,} rows read{_beside(found)} {sign} {found.recorded:,} recorded + {found.held:,} held + {found.refused:,} refused"
        f" + {found.duplicates:,} duplicates + {found.quarantined:,} quarantined"
    )
    return Text(said, style="default" if found.is_balanced else "bold red")


def _beside(found: Accounting) -> str:
    again = f" + {found.read_again:,} sent before an interruption" if found.read_again else ""
    return again + (f" + {found.elsewhere:,} sent by others" if found.elsewhere else "")


def _stages(report: Report) -> RenderableType:
    if not report.stages:
        return Text("no stage was measured", style="dim")
    rows = [
        (
            _cell(stage.name),
            wording.count(stage.events),
            wording.seconds(stage.seconds),
            Text(wording.rate(stage.events_per_s), style="bold"),
            wording.rate(stage.baseline_per_s),
            wording.ratio(stage.ratio),
        )
        for stage in report.stages
    ]
    return _table(("stage", "events", "time", "events/s", "bare tool/s", "ratio"), rows)


def _latency(report: Report) -> RenderableType:
    latency = report.latency_ms
    if latency is None:
        return Text("not measured", style="dim")
    rows = [("model", *(wording.milliseconds(value) for value in (latency.p50, latency.p95, latency.p99)))]
    if latency.echo is not None:
        rows.append(("echo", *(wording.milliseconds(value) for value in (latency.echo.p50, latency.echo.p95, latency.echo.p99))))
    return _table(("endpoint", "p50", "p95", "p99"), rows)


def _detection(report: Report) -> list[RenderableType]:
    judged = wording.maturities(report)
    if not judged:
        found = report.detection.transactions if report.detection is not None else None
        if found is None:
            return _section("Detection", Text("nothing was judged: there were no labels", style="dim"))
        said = f"{found.n:,} transactions judged, {found.n_positive:,} illicit: AUROC {wording.figure(found.auroc)}"
        return _section("Detection", Text(f"{said}, average precision {wording.figure(found.average_precision)}"))
    rows = [
        (
            wording.maturity_name(name),
            wording.count(found.n),
            wording.count(found.n_positive),
            Text(wording.figure(found.auroc), style="bold"),
            wording.figure(found.features_only_auroc),
            wording.figure(found.forest_auroc),
            wording.interval(found.paired_difference),
            Text(wording.forest_verdict(found), style=_VERDICT_STYLES[wording.forest_verdict(found)]),
        )
        for name, found in judged
    ]
    columns = ("judged at", "wallets", "illicit", "AUROC", "features", "forest", "model − forest, 95 %", "forest is")
    fresh = report.fresh_embedding_share
    extra = [Text(f"{wording.share(fresh)} of scores have an embedding as of the transaction.", style="dim")] if fresh is not None else []
    sentences = [Text(wording.on_the_forest(report)), Text(wording.on_the_embeddings(report))]
    return _section(f"Detection ({wording.kind_of_data(report)})", _table(columns, rows), *sentences, *extra)


def _alerts(report: Report) -> RenderableType:
    if not report.alerts:
        return Text("no alert was raised", style="dim")
    table = _empty(("score", "wallet and why", "turned out"), n_left=0)
    for column, justify in zip(table.columns, ("right", "left", "left"), strict=True):
        column.justify = justify  # type: ignore[assignment]
    table.columns[1].ratio = 1
    for alert in wording.top_alerts(report)[:TERMINAL_ALERTS]:
        why = Text(wording.visible(alert.wallet_id, 120))
        why.append(f"\n{wording.visible(alert.reason, 60)}: {wording.visible(alert.explanation, 200)}", style="dim")
        table.add_row(Text(wording.figure(alert.score), style="bold"), why, Text(alert.label, style=_LABEL_STYLES[alert.label]))
    return table


def _links(links: Mapping[str, str]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, target in links.items():
        table.add_row(Text(wording.visible(name, 40), style="dim"), Text(wording.visible(target, 2000), style="cyan"))
    return table


def _flow(pairs: Iterable[tuple[str, str]]) -> Text:
    """Names and figures one after the other, as many as fit a line; a pair is never broken."""
    line = Text()
    for i, (name, value) in enumerate(pairs):
        line.append("   " if i else "")
        line.append(wording.visible(name, 40).replace(" ", "\u00a0") + "\u00a0", style="dim")
        line.append(value.replace(" ", "\u00a0"))
    return line


def _section(title: str, *parts: RenderableType) -> list[RenderableType]:
    return [Text(title, style="bold"), *(Padding(part, (0, 0, 0, 2)) for part in parts), Text()]


def _cell(value: str) -> Text:
    return Text(wording.visible(value, 80))


def _empty(columns: Sequence[str], n_left: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", show_edge=False, pad_edge=False, padding=(0, 1))
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < n_left else "right", overflow="fold", no_wrap=i >= n_left)
    return table


def _table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], n_left: int = 1) -> Table:
    table = _empty(columns, n_left)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table
