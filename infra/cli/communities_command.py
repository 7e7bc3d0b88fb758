"""The command that finds communities of wallets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import CASES, command
from infra.cli.context import Context
from infra.cli.progress import Track
from infra.cli.stack_commands import Json


@command(
    "communities",
    panel=CASES,
    examples=[
        "tidemark communities",
        "tidemark communities --days 7 --plot communities.png",
        "tidemark communities --at 2026-03-01 --json",
    ],
)
def find_communities(
    days: Annotated[int, typer.Option(min=1, help="How far back.")] = 30,
    at: Annotated[str | None, typer.Option(help="Time (UTC) up to which is looked; by default the end of the facts.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Communities shown.")] = 20,
    plot: Annotated[Path | None, typer.Option(help="Draw them into this file too (.png or .svg).")] = None,
    json: Json = False,
) -> int:
    """Find groups of wallets that deal with each other more than with anybody else (Louvain): how closed each is, and how many of it are
    alerted."""
    from infra.cli.query_command import ask
    from infra.communities import communities
    from infra.communities import plot as drawn
    from infra.dashboards.query_plots import write_plot
    from projections.warehouse.queries import MAX_ROWS, query_of

    given = {"days": str(days)} | ({"at": at} if at is not None else {})
    with Track("communities") as track:
        track.say("reading who paid whom")
        answer = ask(Context(), query_of("links"), given, MAX_ROWS + 1)
        is_cut = len(answer.rows) > MAX_ROWS
        track.say("looking for communities")
        found = communities(answer.rows[:MAX_ROWS])
        if plot is not None and found:
            write_plot(drawn(found), plot)
    if json:
        bound = {key: str(value) for key, value in answer.bound.items()}
        output.print_json({"parameters": bound, "is_cut": is_cut, "communities": [one.as_json() for one in found[:limit]]})
    elif not found:
        output.result("No three wallets dealt with each other in that time.")
    else:
        columns = ("number", "wallets", "inside", "outside", "closedness", "density", "alerted", "lift")
        rows = [(*(getattr(one, name) for name in columns), one.members[0]) for one in found[:limit]]
        output.print_table("", (*columns, "busiest wallet"), rows, right=columns)
    if plot is not None and found:
        output.say(f"Drawn: {output.safe(plot.absolute())}")
    if is_cut:
        output.say(f"[yellow]Only the {output.count(MAX_ROWS)} busiest links were looked at; fewer --days give the whole picture.[/]")
    return exits.OK
