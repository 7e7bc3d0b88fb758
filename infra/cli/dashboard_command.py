"""The command that writes the dashboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import CASES, command
from infra.cli.context import Context
from infra.cli.progress import Track
from infra.cli.stack_commands import Json


@command(
    "dashboard",
    panel=CASES,
    examples=["tidemark dashboard", "tidemark dashboard --days 7 --out fraud.html --no-open", "tidemark dashboard --whole --json"],
)
def dashboard(
    out: Annotated[Path | None, typer.Option(help="File for the page; by default report/dashboard.html in the stack's folder.")] = None,
    days: Annotated[int, typer.Option(min=1, help="Days up to the newest transaction.")] = 30,
    whole: Annotated[bool, typer.Option("--whole", help="The whole history instead of the last days.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Bring the warehouse's materialised views to the facts first.")] = False,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Show it in a browser, where this is a terminal on a desktop that has one.")
    ] = True,
    json: Json = False,
) -> int:
    """Write one HTML page from the warehouse: volume, fraud, value at risk, cases, lag, errors; it needs no network and no server."""
    from infra.dashboards import gather, write
    from infra.dashboards.browser import show

    context = Context()
    composition = context.need("postgres")
    with Track("dashboard") as track:
        if refresh:
            track.say("refreshing the materialised views")
            composition.warehouse().refresh()
        track.say("reading the warehouse and the log")
        page = gather(context.stack, composition, None if whole else days)
        if json and out is None:
            output.print_json(page.as_json())
            return exits.OK
        track.say("drawing")
        file = write(page, out or context.stack.state.folder / "report" / "dashboard.html")
    if json:
        output.print_json(page.as_json())
        return exits.OK
    output.result(f"Dashboard: {output.safe(file.absolute())}")
    if open_ and sys.stdout.isatty():
        show(file)
    return exits.OK
