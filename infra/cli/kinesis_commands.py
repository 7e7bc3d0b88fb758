"""Commands for the road from Kinesis: up, down, serve, status, scale, letters; and for functions: build, invoke."""

from __future__ import annotations

import json as json_
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import DATA, command, group
from infra.cli.context import Context
from infra.cli.interruption import told_to_end
from infra.cli.stack_commands import Json

kinesis = group("kinesis", "Bring transactions in by a Kinesis stream and a Lambda function.", DATA)
functions = group("lambda", "Build the Lambda functions, and call one as Lambda does.", DATA)
_NEEDS = ("kafka", "registry", "s3", "aws")


class OfStream(StrEnum):
    """Which function reads the stream."""

    ingestion = "kinesis-ingestion"
    rules = "fraud-rules"


class Queue(StrEnum):
    """Which queue is meant."""

    refused = "refused"
    failures = "failures"


@command("up", of=kinesis, examples=["tidemark kinesis up", "tidemark kinesis up --shards 4", "tidemark kinesis up --rules"])
def kinesis_up(
    shards: Annotated[int, typer.Option(min=1, help="Shards of a stream that is made now; an existing one keeps its own.")] = 2,
    rules: Annotated[bool, typer.Option("--rules", help="Start the function fraud-rules too: the policy's rules over the stream.")] = False,
    json: Json = False,
) -> int:
    """Make stream, landing and queues where they are missing, and start the ingestion function beside the other workers."""
    from infra.lambdas.kinesis_ingestion import INGESTION
    from infra.lambdas.kinesis_road import prepare, start, state

    context = Context()
    clients = context.need(*_NEEDS).clients
    prepare(clients, shards)
    start(context.stack, rules)
    found = state(clients)
    if json:
        output.print_json(found.as_json())
    else:
        output.result(
            f"[green]{output.safe(found.stream)}[/] with {found.shards} shards; the function {INGESTION} is coming up."
            " Send with `tidemark simulate --to kinesis`, look with `tidemark kinesis status`."
        )
    return exits.OK


@command("down", of=kinesis, examples=["tidemark kinesis down"])
def kinesis_down() -> int:
    """Stop the functions; the stream keeps what comes in, and the next start goes on where this one ended."""
    from infra.lambdas.kinesis_road import stop

    stopped = stop(Context().stack)
    output.result(f"{' and '.join(stopped)} {'is' if len(stopped) == 1 else 'are'} stopped." if stopped else "None of the functions runs.")
    return exits.OK


@command("serve", of=kinesis, examples=["tidemark kinesis serve", "tidemark kinesis serve fraud-rules --batch-size 1000"])
def kinesis_serve(
    name: Annotated[OfStream, typer.Argument(help="The function.")] = OfStream.ingestion,
    batch_size: Annotated[int, typer.Option(min=1, max=10_000, help="Records of a call at most.")] = 500,
) -> int:
    """Run a function in the foreground until Ctrl-C, its calls fed from the stream as Lambda feeds them."""
    from infra import logs
    from infra.lambdas.event_source import EventSourceOptions
    from infra.lambdas.functions import function
    from infra.lambdas.serving import serve

    context = Context()
    logs.configure(context.given.log_level, is_json=not output.errors.is_terminal)
    stop = told_to_end()
    done = serve(function(name.value), context.need(*_NEEDS).clients, stop, EventSourceOptions(batch_size=batch_size))
    output.say(f"Stopped: {output.count(done.records)} records in {output.count(done.batches)} calls.")
    return exits.OK


@command("status", of=kinesis, examples=["tidemark kinesis status", "tidemark kinesis status --json"])
def kinesis_status(json: Json = False) -> int:
    """Show the stream's shards and what waits in both queues."""
    from infra.lambdas.kinesis_road import state

    found = state(Context().need("aws").clients)
    if json:
        output.print_json(found.as_json())
    else:
        output.print_fields(found.as_json())
    return exits.OK


@command("scale", of=kinesis, examples=["tidemark kinesis scale 4", "tidemark kinesis scale 1 --json"])
def kinesis_scale(
    shards: Annotated[int, typer.Argument(min=1, help="Open shards wanted; AWS takes at most twice and at least half of what is there.")],
    json: Json = False,
) -> int:
    """Split or merge shards while everything runs; old ones are read to their end before their children."""
    from infra.lambdas.kinesis_road import scale

    found = scale(Context().need("aws").clients, shards)
    if json:
        output.print_json(found.as_json())
    else:
        output.result(f"{output.safe(found.stream)} has {found.shards} open shards, {found.finished_shards} are closed.")
    return exits.OK


@command(
    "letters",
    of=kinesis,
    examples=["tidemark kinesis letters", "tidemark kinesis letters --take --json", "tidemark kinesis letters --queue failures"],
)
def kinesis_letters(
    queue: Annotated[Queue, typer.Option(help="refused: records that are no transactions; failures: batches passed over.")] = Queue.refused,
    take: Annotated[bool, typer.Option("--take", help="Remove the shown ones from the queue; quarantine keeps refused records.")] = False,
    json: Json = False,
) -> int:
    """Show up to ten dead letters; payloads are left out here (`tidemark quarantine show` has them)."""
    from infra.lambdas.kinesis_road import letters

    clients = Context().need("aws").clients
    names = clients.settings.kinesis
    found = letters(clients, names.dead_letters if queue is Queue.refused else names.failures, take)
    shown = [{key: value for key, value in letter.items() if key != "payload_base64"} for letter in found]
    if json:
        output.print_json(shown)
        return exits.OK
    if not shown:
        output.result("No letters.")
    for number, letter in enumerate(shown, 1):
        output.result(f"\n[bold]{number}[/]")
        output.print_fields(letter)
    return exits.OK


@command("build", of=functions, examples=["tidemark lambda build", "tidemark lambda build kinesis-ingestion --out dist"])
def build_functions(
    names: Annotated[list[str] | None, typer.Argument(help="Functions; all by default.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Folder for the zips.")] = Path("build/lambda"),
    json: Json = False,
) -> int:
    """Build deployable zips: our modules that a function needs, and its requirements as locked. The same code gives the same bytes."""
    from infra.lambdas.functions import FUNCTIONS, function
    from infra.lambdas.package import build, unfit

    built = []
    for name in names or sorted(FUNCTIONS):
        chosen = function(name)
        with output.errors.status(f"building {name}"):
            path = build(chosen, out)
        built.append({"name": name, "zip": str(path), "bytes": path.stat().st_size, "handler": chosen.handler})
    if (problem := unfit()) is not None:
        output.say(f"[yellow]For a try here only: {problem}.[/]")
    if json:
        output.print_json(built)
    else:
        output.print_table("", ("function", "zip", "bytes", "handler"), [tuple(row.values()) for row in built], right=("bytes",))
    return exits.OK


@command(
    "invoke",
    of=functions,
    examples=["tidemark lambda invoke kinesis-ingestion event.json", "tidemark lambda invoke kinesis-ingestion event.json --calls 5"],
)
def invoke_function(
    name: Annotated[str, typer.Argument(help="The function.")],
    event: Annotated[Path, typer.Argument(help="File with the event as JSON.", exists=True, dir_okay=False)],
    calls: Annotated[int, typer.Option(min=1, help="Call it so often: the first is cold, the others are warm.")] = 1,
    json: Json = False,
) -> int:
    """Call a function with an event under AWS's own runtime client; prints its answer, and cold and warm times."""
    from dataclasses import asdict

    from infra.lambdas.functions import function
    from infra.lambdas.serving import hosted

    chosen = function(name)
    context = Context()
    context.need(*_NEEDS)
    try:
        given = json_.loads(event.read_text("utf-8"))
    except ValueError as error:
        raise typer.BadParameter(f"{event} is not JSON: {error}", param_hint="EVENT") from None
    with hosted(chosen, context.settings) as host:
        found = [host.invoke(given) for _ in range(calls)]
    if json:
        output.print_json([asdict(call) for call in found])
        return exits.OK
    output.print_json(found[-1].answer)
    rows = [("cold" if x.init_ms is not None else "warm", x.init_ms or "–", x.duration_ms, x.memory_mb) for x in found]
    output.print_table("", ("call", "init ms", "duration ms", "memory MB"), rows, right=("init ms", "duration ms", "memory MB"))
    return exits.OK
