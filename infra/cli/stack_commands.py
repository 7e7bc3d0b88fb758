"""Commands for the local stack and its workers: demo, up, down, status, doctor, run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli import exits, output
from infra.cli.app import PROOF, START, command
from infra.cli.context import Context, chosen

if TYPE_CHECKING:
    from infra.stack.state import PartStatus
    from infra.status import StackReport, WorkerReport

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]
_STATE_COLOURS = {"ready": "green", "finished": "green", "yours": "cyan", "starting": "yellow", "waiting": "yellow"}


class Size(StrEnum):
    """How much of the data the demo uses."""

    small = "small"
    full = "full"


class Span(StrEnum):
    """Which wallets are judged."""

    test = "test"
    validation = "validation"


@command(
    "demo",
    panel=START,
    examples=[
        "tidemark demo",
        "tidemark demo --size small",
        "tidemark demo --data transfers.csv.gz --mapping ethereum --labels labels.csv",
    ],
)
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="File of transactions; by default the labelled Ethereum file, else the simulator's stream."),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="File of labels; without labels the demo ends after verification.")] = None,
    mapping: Annotated[str | None, typer.Option(help="Mapping of the file: a shipped name or a YAML file.")] = None,
    size: Annotated[Size | None, typer.Option(help="small: 5,000 rows around the cut; full: the whole file.")] = None,
    span: Annotated[Span | None, typer.Option(help="Span of wallets that is judged.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of training and of the simulator.")] = 7,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove this demo's state first.")] = False,
) -> int:
    """Run the main job: ingest, project, verify, train, deploy, score, alert, report. Resumes where it was interrupted."""
    from infra.demo import DemoOptions, run_demo
    from infra.settings import load_settings

    given: dict[str, Any] = {
        "data": data,
        "labels": labels,
        "mapping": mapping,
        "size": size and size.value,
        "span": span and span.value,
    }
    given["stack"] = chosen.stack
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    for name in ("data", "labels"):
        path = getattr(settings, name)
        if path is not None and not path.is_file():
            raise typer.BadParameter(f"{path} is no file", param_hint=f"--{name}")
    if fresh:
        _remove_demo(settings)
    return run_demo(settings, DemoOptions(seed=seed), output.console)


def _remove_demo(settings: Any) -> None:
    import shutil

    from infra.demo_data import files_of, stack_name
    from infra.stack import Stack

    name = stack_name(settings, files_of(settings, settings.state_dir.parent))
    stack = Stack.of(settings.model_copy(update={"stack": name}))
    if stack.state.folder.is_dir():
        stack.down(progress=_tell_stopping)
        shutil.rmtree(stack.state.folder)
        output.say(f"Removed {output.safe(stack.state.folder)}.")


@command(
    "up",
    panel=START,
    examples=[
        "tidemark up",
        "tidemark up --workers",
        "tidemark up kafka registry",
        "TIDEMARK_NEO4J__URI=bolt://graph.example:7687 tidemark up",
    ],
)
def up(
    parts: Annotated[list[str] | None, typer.Argument(help="Servers to start; by default all that the settings do not give.")] = None,
    workers: Annotated[bool, typer.Option("--workers", help="Keep the workers running too.")] = False,
) -> int:
    """Start the local servers, wait until each answers by its protocol, and make topics and contracts where they are missing."""
    from infra.log_setup import prepare_log, start_workers

    context = Context()
    stack = context.stack
    addresses = stack.up(parts or None, progress=tell)
    if not parts or {"kafka", "registry", "s3"} <= set(parts):
        created = prepare_log(context.composition)
        if created:
            output.say(f"[dim]  {len(created)} topics made[/]")
    if workers:
        running = start_workers(stack, context.composition)
        output.say(f"[dim]  workers: {', '.join(running)}[/]")
    output.result(f"[green]The stack {output.safe(context.given.stack)} is up[/] in {output.safe(stack.state.folder)}.")
    if "neo4j" in stack.local_parts() and (not parts or "neo4j" in parts):
        output.result(f"Neo4j Browser: {output.safe(addresses.neo4j_browser)} (`tidemark investigate --login` shows the login)")
    return exits.OK


@command("down", panel=START, examples=["tidemark down", "tidemark --stack demo-small down", "tidemark down --all"])
def down(all_: Annotated[bool, typer.Option("--all", help="Every stack below the state folder.")] = False) -> int:
    """Stop the local servers and workers; their state stays."""
    from infra.stack import down_all

    context = Context()
    if all_:
        stopped = down_all(context.given.state_dir, progress=_tell_stopping)
        output.result(f"Stopped: {output.safe(', '.join(stopped))}." if stopped else "Nothing runs.")
        return exits.OK
    ran = context.stack.down(progress=_tell_stopping)
    folder = output.safe(context.stack.state.folder)
    output.result(f"Stopped {output.safe(context.given.stack)}; its state stays in {folder}." if ran else "Nothing runs.")
    return exits.OK


@command(
    "status",
    panel=START,
    examples=["tidemark status", "tidemark status --json", "tidemark status > /dev/null && echo all caught up"],
)
def status(json: Json = False) -> int:
    """Show every server and worker: state, position, lag behind the log's head, rate, quarantine, last error."""
    from infra.status import stack_report

    context = Context()
    report = stack_report(context.stack, context.settings)
    if json:
        output.print_json(report.as_json())
    else:
        show_status(report)
    if not report.is_ready:
        return exits.DOWN
    return exits.OK if report.is_caught_up else exits.NOT_READY


@command("doctor", panel=START, examples=["tidemark doctor", "tidemark doctor --json"])
def doctor(json: Json = False) -> int:
    """Check each server by its protocol and by the rights needed there, and say what to do."""
    from infra.doctor import examine

    context = Context()
    findings = []
    for found in examine(context.composition):
        findings.append(found)
        if not json:
            mark = "[green]well  [/]" if found.is_ok else "[red]unwell[/]"
            advice = f"; {found.advice}" if found.advice else ""
            output.result(f"{mark}  [bold]{found.server.ljust(8)}[/]  {output.safe(found.message + advice)}")
    if json:
        output.print_json({"ok": all(found.is_ok for found in findings), "findings": [found.as_json() for found in findings]})
    return exits.OK if all(found.is_ok for found in findings) else exits.DOWN


@command("run", panel=START, examples=["tidemark run command-handler", "tidemark run warehouse"])
def run(
    name: Annotated[str, typer.Argument(help="command-handler, archive, curated, warehouse, graph, scorer, alerts or notifier.")],
) -> int:
    """Run one worker in this process until Ctrl-C or SIGTERM: what the stack, systemd or a container starts."""
    from infra.composition import WORKERS
    from infra.logs import configure
    from infra.worker import run_worker

    if name not in WORKERS:
        raise typer.BadParameter(f"expected one of {', '.join(WORKERS)}, found {name!r}", param_hint="NAME")
    context = Context()
    configure("debug" if chosen.is_debug else context.given.log_level)
    return run_worker(context.settings, name)


@command("bench", panel=PROOF, examples=["tidemark bench", "tidemark bench --events 200000 --json"])
def bench(
    events: Annotated[int, typer.Option(min=10_000, help="Simulated events of the full schema.")] = 2_000_000,
    out: Annotated[Path | None, typer.Option(help="File for the figures; by default bench.json in the state folder.")] = None,
    json: Json = False,
) -> int:
    """Measure each stage beside a bare tool that does the same work in the same run: medians, ranges and ratios (up to 30 min)."""
    from infra.bench.run import Bench, table, write

    context = Context()
    figures = Bench(context.given, events, output.errors).run()
    file = out or context.given.state_dir / "bench.json"
    write(figures, file)
    if json:
        output.print_json(figures)
    else:
        output.console.print(table(figures))
        output.result(f"Saved in {output.safe(file)}")
    return exits.OK


def tell(name: str, status: PartStatus) -> None:
    """A server's change of state, a line each."""
    if status.state in ("ready", "stopped"):
        output.say(f"[dim]  {output.safe(name)} {status.state}[/]")
    elif status.detail and status.restarts:
        output.say(f"[yellow]  {output.safe(name)} {status.state}: {output.safe(status.detail)}[/]")


def _tell_stopping(name: str, status: PartStatus) -> None:
    if status.state == "stopping":
        output.say(f"[dim]  {output.safe(name)} stopping[/]")


def show_status(report: StackReport) -> None:
    """Servers and workers as two tables, and one sentence that sums up."""
    output.result(f"Stack [bold]{output.safe(report.stack)}[/] in {output.safe(report.folder)}")
    if not report.is_up and any(server.state == "stopped" for server in report.servers):
        output.result("[red]It is not running: start it with `tidemark up`.[/]")
        return
    columns = ("server", "state", "pid", "restarts", "address")
    rows = [(s.name, s.state, s.pid or "", s.restarts or "", s.address) for s in report.servers]
    output.print_table("", columns, rows, right=("pid", "restarts"), colours=_STATE_COLOURS)
    for server in report.servers:
        if not server.is_ready and server.detail:
            output.result(f"[yellow]{output.safe(server.name)}: {output.safe(server.detail)}[/]")
    if not report.workers:
        output.result("No worker has run here yet.")
        return
    shown = ("worker", "state", "pid", "restarts", "position", "head", "lag", "records/s", "quarantine", "")
    output.print_table("", shown, [_row(worker) for worker in report.workers], right=shown[2:9], colours=_STATE_COLOURS)
    for worker in report.workers:
        for text in filter(None, (worker.problem, None if worker.is_running else worker.last_error)):
            output.result(f"[red]{output.safe(worker.name)}: {output.safe(text)}[/]")
    if report.is_ready and report.is_caught_up:
        output.result("[green]Every server answers; every worker was at the head of the log, read after its position.[/]")


def _row(worker: WorkerReport) -> tuple[object, ...]:
    where = ("", "", "")
    note = ""
    if worker.position is not None and worker.head is not None and worker.lag is not None:
        reached = sum(worker.position.get(tp, 0) for tp in worker.head)
        where = (output.count(reached), output.count(sum(worker.head.values())), output.count(worker.lag))
        note = "caught up" if worker.is_caught_up else "behind"
        if worker.lag and worker.records_per_s > 0:
            note += f", about {output.duration(worker.lag / worker.records_per_s)} left"
    rate = output.count(worker.records_per_s) if worker.records_per_s else ""
    return (
        worker.name,
        worker.state,
        worker.pid or "",
        worker.restarts or "",
        *where,
        rate,
        worker.quarantined or "",
        note,
    )
