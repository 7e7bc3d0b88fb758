"""Commands for the local stack and its workers: demo, up, down, status, doctor, run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from domain.errors import InvalidValue
from infra.cli import exits, output
from infra.cli.app import PROOF, START, command
from infra.cli.context import Context, chosen

if TYPE_CHECKING:
    from infra.stack.state import PartStatus

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]


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
    from infra.stack.part import SERVERS

    context = Context()
    stack = context.stack
    yours = set(SERVERS) - set(stack.local_parts())
    # Yours run already: naming them asks for the log to be made there.
    addresses = stack.up([part for part in parts if part not in yours] if parts else None, progress=tell)
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
    from infra.stack import Stack, down_all

    context = Context()
    if all_:
        stopped = down_all(context.given.state_dir, progress=_tell_stopping)
        output.result(f"Stopped: {output.safe(', '.join(stopped))}." if stopped else "Nothing runs.")
        return exits.OK
    stack = Stack.of(context.given)  # whoever's state it is: to stop it changes nothing that lasts
    ran = stack.down(progress=_tell_stopping)
    folder = output.safe(stack.state.folder)
    output.result(f"Stopped {output.safe(context.given.stack)}; its state stays in {folder}." if ran else "Nothing runs.")
    return exits.OK


@command(
    "status",
    panel=START,
    examples=[
        "tidemark status",
        "tidemark status --once --partitions",
        "tidemark status --json",
        "tidemark status > /dev/null && echo all caught up",
    ],
)
def status(
    once: Annotated[bool, typer.Option("--once", help="Look once; where the output is no terminal, that is the default.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds from one look of the live view to the next.")] = 2.0,
    partitions: Annotated[
        bool, typer.Option("--partitions", help="List every partition, not only those that are behind or have quarantine.")
    ] = False,
    json: Json = False,
) -> int:
    """Show every server and worker: position, lag behind the log's head, rate, time left, generation, quarantine, last error."""
    import sys

    from infra.cli.status_view import live, show_status
    from infra.status import StatusReader

    context = Context()
    if sys.stdout.isatty() and not once and not json:
        report = live(context, every, partitions)
    else:
        report = StatusReader(context.stack).report(context.settings)
        if json:
            output.print_json(report.as_json())
        else:
            show_status(report, partitions)
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


Worker = Annotated[
    str,
    typer.Argument(help="command-handler, archive, curated, warehouse, graph, scorer, alerts, rules, notifier, or a projection of yours."),
]


@command("run", panel=START, examples=["tidemark run command-handler", "tidemark run warehouse", "tidemark run warehouse --instance 2"])
def run(
    name: Worker,
    instance: Annotated[
        int,
        typer.Option(help="Which process of this worker it is; each that runs at the same time needs a number of its own, on any machine."),
    ] = 1,
) -> int:
    """Run one worker in this process until Ctrl-C or SIGTERM: what the stack, systemd or a container starts."""
    from infra.composition import WORKERS
    from infra.logs import configure
    from infra.worker import leave_out_unused, run_worker

    _demand_worker(name, instance, "--instance")
    if name in WORKERS:  # an installed projection may want anything
        leave_out_unused()
    context = Context()
    configure("debug" if chosen.is_debug else context.given.log_level)
    return run_worker(context.settings, name, instance)


@command("scale", panel=START, examples=["tidemark scale warehouse 3", "tidemark scale command-handler 2", "tidemark scale warehouse 1"])
def scale(
    name: Worker, count: Annotated[int, typer.Argument(min=0, help="How many processes of it this stack is to keep; 0 stops the worker.")]
) -> int:
    """Keep several processes of a worker: they share its partitions, or stand by (command-handler, scorer, alerts)."""
    from infra.instances import STANDING_BY
    from infra.log_setup import scale_worker

    _demand_worker(name, max(1, count), "COUNT")
    context = Context()
    context.need("kafka", "registry")
    started, stopped = scale_worker(context.stack, name, count)
    for words, processes in (("Started", started), ("Stopped", stopped)):
        if processes:
            output.result(f"{words} {output.safe(', '.join(processes))}.")
    what = "one works, the others stand by" if name in STANDING_BY else "they share its partitions"
    output.result(f"{output.safe(name)} has {count} process{'es' if count != 1 else ''} in this stack{f': {what}' if count > 1 else ''}.")
    return exits.OK


def _demand_worker(name: str, instance: int, hint: str) -> None:
    from infra.composition import WORKERS
    from infra.instances import demand_instance
    from infra.read_models import added

    known = (*WORKERS, *added())
    if name not in known:
        raise typer.BadParameter(f"expected one of {', '.join(known)}, found {name!r}", param_hint="NAME")
    try:
        demand_instance(name, instance)
    except InvalidValue as error:
        raise typer.BadParameter(str(error), param_hint=hint) from error


@command(
    "bench",
    panel=PROOF,
    examples=[
        "tidemark bench",
        "tidemark bench --events 200000 --json",
        "tidemark bench --history --events 10000000",
        "tidemark bench --queries --events 10000000",
        "tidemark bench --replay --events 200000",
        "tidemark bench --spark --events 1000000",
    ],
)
def bench(
    events: Annotated[int, typer.Option(min=10_000, help="Simulated events of the full schema.")] = 2_000_000,
    history: Annotated[
        bool, typer.Option("--history", help="Measure instead what an event costs as the history grows, rebuilds and restarts.")
    ] = False,
    queries: Annotated[bool, typer.Option("--queries", help="Measure instead the analysts' queries on so many facts.")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Measure instead how fast history is replayed.")] = False,
    spark: Annotated[
        bool, typer.Option("--spark", help="Measure instead engine and Spark side by side; installs Spark where missing.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="File for the figures; by default bench.json in the state folder.")] = None,
    json: Json = False,
) -> int:
    """Measure each stage beside a bare tool that does the same work in the same run: medians, ranges and ratios (up to 30 min)."""
    from infra.bench import history as growing
    from infra.bench import queries as asked
    from infra.bench import replays as replayed
    from infra.bench import run as stages
    from infra.bench import sparks
    from infra.bench.history_chart import history_chart

    chosen = [name for name, is_given in (("history", history), ("queries", queries), ("replay", replay), ("spark", spark)) if is_given]
    if len(chosen) > 1:
        raise typer.BadParameter("give one of them", param_hint=", ".join(f"--{name}" for name in chosen))
    context = Context()
    file = out or context.given.state_dir / f"bench{''.join(f'-{name}' for name in chosen)}.json"
    saved = [file]
    if spark:
        figures = sparks.SparkBench(context.given, events, output.errors).run()
    elif replay:
        figures = replayed.ReplayBench(context.given, events, output.errors).run()
    elif queries:
        figures = asked.QueryBench(context.given, events, output.errors).run()
    elif history:
        figures = growing.HistoryBench(context.given, events, output.errors).run()
        saved.append(file.with_suffix(".png"))
    else:
        figures = stages.Bench(context.given, events, output.errors).run()
    stages.write(figures, file)
    if history:
        saved[1].write_bytes(history_chart(figures))
    if json:
        output.print_json(figures)
    else:
        shown = (
            sparks.table if spark else replayed.table if replay else asked.table if queries else growing.table if history else stages.table
        )
        output.console.print(shown(figures))
        output.result(f"Saved in {' and '.join(output.safe(one) for one in saved)}")
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
