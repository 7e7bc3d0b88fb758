"""How `tidemark status` looks: servers, workers, the partitions that want attention, and one sentence that sums up.

On a terminal it is drawn again and again until Ctrl-C.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from domain.errors import TidemarkError
from infra.cli import output
from infra.cli.context import Context, up_of
from infra.status import StackReport, StatusReader, WorkerReport

PARTITIONS_SHOWN = 15  # of those that want attention: more would push the workers off the screen
_STATE_COLOURS = {
    "ready": "green", "finished": "green", "yours": "cyan", "starting": "yellow", "waiting": "yellow",
    "caught up": "green", "behind": "yellow",
}  # fmt: skip
_WORKER_COLUMNS = (
    "worker", "state", "pid", "restarts", "generation", "position", "head", "lag", "lag s", "records/s", "quarantine", "",
)  # fmt: skip
_PARTITION_COLUMNS = ("worker", "topic", "partition", "position", "head", "lag", "lag s", "quarantine", "")


def show_status(report: StackReport, is_whole: bool = False) -> None:
    """Print a report.

    Args:
        is_whole: every partition, not only those that are behind or have quarantine.
    """
    output.print_whole(rendered(report, is_whole))


def live(
    context: Context,
    every_s: float,
    is_whole: bool = False,
    *,
    reader: StatusReader | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> StackReport:
    """Draw the status again and again until Ctrl-C, then leave the last one on the screen and return it.

    A server that does not answer is said on the screen, and the next look may find it again.
    """
    reader = reader or StatusReader(context.stack)
    report = reader.report(context.settings)
    try:
        with Live(rendered(report, is_whole), console=output.console, screen=True, auto_refresh=False) as view:
            while True:
                view.update(_page(report, is_whole), refresh=True)
                sleep(every_s)
                try:
                    report = reader.report(context.settings)
                except TidemarkError as error:
                    view.update(Group(_page(report, is_whole), Text(output.plain(error), style="red")), refresh=True)
                    sleep(every_s)
    except KeyboardInterrupt:
        show_status(report, is_whole)
        return report


def _page(report: StackReport, is_whole: bool) -> RenderableType:
    return Group(rendered(report, is_whole), Text(f"{datetime.now(UTC):%H:%M:%S} UTC; Ctrl-C ends", style="dim"))


def rendered(report: StackReport, is_whole: bool = False) -> RenderableType:
    """A report as something to print."""
    parts: list[RenderableType] = [Text.from_markup(f"Stack [bold]{output.safe(report.stack)}[/] in {output.safe(report.folder)}")]

    def say(text: str) -> None:
        parts.append(Text.from_markup(text))

    if not report.is_up and any(server.state == "stopped" for server in report.servers):
        say(f"[red]It is not running: start it with {up_of(report.stack)}.[/]")
        return Group(*parts)
    columns = ("server", "state", "pid", "restarts", "address")
    rows = [(s.name, s.state, s.pid or "", s.restarts or "", s.address) for s in report.servers]
    parts.append(output.table("", columns, rows, right=("pid", "restarts"), colours=_STATE_COLOURS))
    for server in report.servers:
        if not server.is_ready and server.detail:
            say(f"[yellow]{output.safe(server.name)}: {output.safe(server.detail)}[/]")
    if not report.workers:
        say("No worker has run here yet.")
        return Group(*parts)
    workers = [_row(worker) for worker in report.workers]
    parts.append(output.table("", _WORKER_COLUMNS, workers, right=_WORKER_COLUMNS[2:11], colours=_STATE_COLOURS))
    parts += _partitions(report.workers, is_whole)
    for worker in report.workers:
        for text in filter(None, (worker.problem, None if worker.is_running else worker.last_error)):
            say(f"[red]{output.safe(worker.name)}: {output.safe(text)}[/]")
    if report.is_ready and report.is_caught_up:
        say("[green]Every server answers; every worker was at the head of the log, read after its position.[/]")
    return Group(*parts)


def _row(worker: WorkerReport) -> tuple[object, ...]:
    where = ("", "", "")
    note = ""
    if worker.position is not None and worker.head is not None and worker.lag is not None:
        reached = sum(worker.position.get(tp, 0) for tp in worker.head)
        where = (output.count(reached), output.count(sum(worker.head.values())), output.count(worker.lag))
        note = "caught up" if worker.is_caught_up else "behind"
        if worker.eta_s is not None:
            note += f", about {output.duration(worker.eta_s)} left"
    return (
        worker.name,
        worker.state,
        worker.pid or "",
        worker.restarts or "",
        worker.generation or "",
        *where,
        _seconds(worker.lag_s),
        output.count(worker.records_per_s) if worker.records_per_s else "",
        worker.quarantined or "",
        note,
    )


def _partitions(workers: list[WorkerReport], is_whole: bool) -> list[RenderableType]:
    wanted = [(worker.name, part) for worker in workers for part in worker.partitions if is_whole or part.lag or part.quarantined]
    if not wanted:
        return []
    shown = wanted if is_whole else sorted(wanted, key=lambda item: -item[1].lag)[:PARTITIONS_SHOWN]
    rows = [
        (
            name,
            part.topic,
            part.partition,
            output.count(part.position),
            output.count(part.head),
            output.count(part.lag),
            _seconds(part.lag_s),
            part.quarantined or "",
            "behind" if part.lag else "caught up",
        )
        for name, part in shown
    ]
    found: list[RenderableType] = [output.table("", _PARTITION_COLUMNS, rows, right=_PARTITION_COLUMNS[2:8], colours=_STATE_COLOURS)]
    if len(wanted) > len(shown):
        found.append(Text(f"{len(wanted) - len(shown)} more partitions are behind or have quarantine: --partitions", style="dim"))
    return found


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"
