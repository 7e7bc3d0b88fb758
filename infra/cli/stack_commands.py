"""Commands for the local stack and its workers: up, down, run, status, doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import command
from infra.cli.context import Context
from infra.stack.state import PartStatus

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def tell(name: str, status: PartStatus) -> None:
    """A server's change of state, a line each."""
    if status.state in ("ready", "stopping", "stopped", "waiting"):
        detail = f": {output.safe(status.detail)}" if status.detail and not status.is_ready else ""
        output.say(f"[dim]  {output.safe(name)} {status.state}{detail}[/]")


@command("up", examples=["tidemark up", "tidemark up kafka registry", "TIDEMARK_NEO4J__URI=bolt://graph:7687 tidemark up"])
def up(parts: Annotated[list[str] | None, typer.Argument(help="Servers to start; by default all that the settings do not give.")] = None) -> int:
    """Start the local servers and wait until each answers by its protocol."""
    context = Context()
    stack = context.stack
    addresses = stack.up(parts or None, progress=tell)
    output.result(f"[green]The stack {output.safe(context.given.stack)} is up[/] in {output.safe(stack.state.folder)}")
    if "neo4j" in stack.local_parts() and (not parts or "neo4j" in parts):
        output.result(f"Neo4j Browser: {output.safe(addresses.neo4j_browser)} (`tidemark investigate --login` shows the login)")
    return exits.OK


@command("down", examples=["tidemark down", "tidemark --stack demo-small down", "tidemark down --all"])
def down(all_: Annotated[bool, typer.Option("--all", help="Every stack below the state folder.")] = False) -> int:
    """Stop the local servers and workers; their state stays."""
    from infra.stack import down_all

    context = Context()
    if all_:
        stopped = down_all(context.given.state_dir, progress=tell)
        output.result(f"Stopped: {output.safe(', '.join(stopped))}." if stopped else "Nothing runs.")
        return exits.OK
    ran = context.stack.down(progress=tell)
    output.result(f"Stopped {output.safe(context.given.stack)}; its state stays in {output.safe(context.stack.state.folder)}." if ran else "Nothing runs.")
    return exits.OK


@command("run", examples=["tidemark run command-handler", "tidemark run warehouse"])
def run(name: Annotated[str, typer.Argument(help="Worker to run until it is told to stop.")]) -> int:
    """Run one worker in this process until Ctrl-C or SIGTERM: what the stack, systemd or a container starts."""
    from infra.cli.context import chosen
    from infra.composition import WORKERS
    from infra.logs import configure
    from infra.worker import run_worker

    if name not in WORKERS:
        raise typer.BadParameter(f"expected one of {', '.join(WORKERS)}, found {name!r}", param_hint="NAME")
    context = Context()
    configure("debug" if chosen.is_debug else context.given.log_level)
    return run_worker(context.settings, name)


@command("status", examples=["tidemark status", "tidemark status --json"])
def status(json: Json = False) -> int:
    """Show every server and worker: state, position, head of the log, lag, rate, quarantine, last error."""
    from infra.status import stack_report

    context = Context()
    report = stack_report(context.stack, context.settings)
    if json:
        output.print_json(report.as_json())
        return report.exit_status()
    show_status(report)
    return report.exit_status()
