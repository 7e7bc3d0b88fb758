"""Commands that walk a whole road: crypto."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import START, group
from infra.cli.app import command as declare
from infra.cli.context import Context
from infra.cli.progress import Track
from infra.cli.stack_commands import Json, tell

road = group("road", "Walk one of the known pipelines from end to end, and see what came of it.", START)


@declare("crypto", of=road, examples=["tidemark road crypto", "tidemark road crypto --count 20000 --rate 1000 --seed 3 --json"])
def crypto(
    count: Annotated[int, typer.Option(min=100, help="Transactions.")] = 6_000,
    rate: Annotated[float, typer.Option(min=1.0, help="Records a second into the stream.")] = 200.0,
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed gives the same transactions, recorded once; by default others each time."),
    ] = None,
    json: Json = False,
) -> int:
    """Crypto transactions by Kinesis and Lambda to Kafka, S3, warehouse and graph: starts what is missing, sends, measures, reports."""
    import time

    from infra.lambdas.crypto_road import run

    context = Context()
    stack = context.stack
    stack.up(progress=tell)
    with Track("records into Kinesis", "records") as track:
        chosen = seed if seed is not None else int(time.time())
        found = run(stack, context.composition, count, rate, chosen, lambda text: output.say(f"[dim]  {text}[/]"), track.update)
    if json:
        output.print_json(found.as_json())
        return exits.OK
    output.result(f"[green]{output.count(found.events)} events[/] of {output.count(found.transactions)} transactions sent.")
    output.print_fields(found.as_json())
    output.result("Look on: `tidemark status`, `tidemark kinesis letters`, `tidemark quarantine list`, `tidemark verify`.")
    return exits.OK
