"""query: ask the warehouse one of the questions that analysts ask, as a table, JSON or CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli import exits, output
from infra.cli.app import CASES, command
from infra.cli.context import Context
from infra.cli.stack_commands import Json

if TYPE_CHECKING:
    from projections.warehouse.queries import Answer, Query


@command(
    "query",
    panel=CASES,
    examples=[
        "tidemark query --list",
        "tidemark query fan-in --param hours=24 --param at_least=5",
        "tidemark query wallet-history --param wallet_id=ethereum:0x8f2c… --json",
        "tidemark query trading-volume --param quote=EUR --plot volume.png",
        "tidemark query structuring --param bound=10000 --param asset=EUR --csv > structuring.csv",
    ],
)
def query(
    name: Annotated[str | None, typer.Argument(help="Question to ask; --list shows them.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="Value of a parameter, as name=value; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = 100,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV on standard output, nothing else; safe to open in a spreadsheet.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the answer into this file too (.png or .svg), where the question has a plot.")
    ] = None,
    sql: Annotated[bool, typer.Option("--sql", help="Print the query's SQL, for tools of your own.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the questions and what they take.")] = False,
    json: Json = False,
) -> int:
    """Ask the warehouse what fraud analysts ask: a named query with bound values, of the live generation."""
    from projections.warehouse.queries import query_of

    if list_:
        return _list(json)
    if name is None:
        raise typer.BadParameter("give a question, or --list", param_hint="NAME")
    if csv and json:
        raise typer.BadParameter("give one of them", param_hint="--csv, --json")
    asked = query_of(name)
    if sql:
        print(asked.select)
        return exits.OK
    most = limit
    if plot is not None:
        from infra.dashboards.query_plots import MOST_ROWS, plot_of, write_plot

        most = max(limit, MOST_ROWS)  # a plot of the first hundred rows would show a part as the whole
    answer = ask(Context(), asked, dict(_pair(text) for text in param or ()), most + 1)
    if plot is not None and answer.rows:
        write_plot(plot_of(name, answer), plot)
        output.say(f"Drawn: {output.safe(plot.absolute())}")
        if len(answer.rows) > MOST_ROWS:
            output.say(f"[yellow]Drawn are the first {output.count(MOST_ROWS)} rows alone: ask for fewer days.[/]")
    is_cut = len(answer.rows) > limit
    del answer.rows[limit:]
    if json:
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        output.print_json({"query": name, "parameters": dict(answer.bound), "rows": rows, "is_cut": is_cut})
    elif csv:
        output.print_csv(answer.columns, answer.rows)
    else:
        output.result(f"[bold]{output.safe(asked.question)}[/]")
        output.result(f"[dim]{output.safe(', '.join(f'{key}={value}' for key, value in answer.bound.items()))}[/]")
        if answer.rows:
            output.print_table("", answer.columns, answer.rows, right=_numbers(answer))
        else:
            output.result("Nothing found.")
    if is_cut:
        output.say(f"[yellow]The first {output.count(limit)} of more; --limit gives more.[/]")
    return exits.OK


def ask(context: Context, asked: Query, given: dict[str, str], limit: int) -> Answer:
    """Ask the warehouse in use, and say that it is being asked."""
    from projections.warehouse.queries import PostgresAnalyst, RedshiftAnalyst

    composition = context.need("postgres")
    database = composition.redshift
    analyst = PostgresAnalyst(composition.warehouse_dsn) if database is None else RedshiftAnalyst(database)
    with output.errors.status("asking"):
        return analyst.ask(asked, given, limit)


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"expected name=value, found {text!r}", param_hint="--param")
    return name.replace("-", "_"), value


def _numbers(answer: Answer) -> list[str]:
    return [name for name, value in zip(answer.columns, answer.rows[0], strict=True) if not isinstance(value, (str, bool, type(None)))]


def _list(is_json: bool) -> int:
    from projections.warehouse.queries import queries

    if is_json:
        found: list[dict[str, Any]] = [
            {
                "name": q.name,
                "question": q.question,
                "takes": {key: {"doc": p.doc, "default": p.default} for key, p in q.parameters.items()},
            }
            for q in queries().values()
        ]
        output.print_json(found)
        return exits.OK
    rows = [(q.name, q.question, ", ".join(q.parameters)) for q in queries().values()]
    output.print_table("", ("query", "answers", "takes"), rows)
    return exits.OK
