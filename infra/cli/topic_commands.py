"""Commands for the log's topics: list, grow."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import START, command, group
from infra.cli.context import Context
from infra.cli.stack_commands import Json

topics = group("topics", "Look at the log's topics, and give them more partitions.", START)


@command("list", of=topics, examples=["tidemark topics list", "tidemark topics list --json"])
def list_topics(json: Json = False) -> int:
    """List the topics: partitions that Kafka has, partitions that the log knows, and whether there may be more."""
    from infra.topic_growth import sizes

    found = sizes(Context().need("kafka", "registry"))
    if json:
        output.print_json([size.as_json() for size in found])
        return exits.OK
    rows = [(size.topic, size.found, size.known, "yes" if size.may_grow else "no") for size in found]
    output.print_table("", ("topic", "partitions", "known", "may grow"), rows, right=("partitions", "known"))
    for size in found:
        if size.found > size.known:
            output.say(f"[yellow]{output.safe(size.topic)} was grown by somebody else: its readers stop at the new partitions.[/]")
    return exits.OK


@command(
    "grow",
    of=topics,
    examples=["tidemark topics grow transaction-events --partitions 12", "tidemark topics grow score-events --partitions 12 --dry-run"],
)
def grow_topic(
    topic: Annotated[str, typer.Argument(help="transaction-events, score-events, rescore-events or embedding-events.")],
    partitions: Annotated[int, typer.Option(help="How many it is to have; none can be taken away again.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, change nothing.")] = False,
    json: Json = False,
) -> int:
    """Give a topic more partitions while everything runs: workers meet them within seconds. Then `tidemark scale` shares them out."""
    from infra.topic_growth import grow

    before = grow(Context().need("kafka", "registry"), topic, partitions, is_dry=dry_run)
    if json:
        output.print_json({**before.as_json(), "partitions": partitions, "replaced": before.found, "is_dry_run": dry_run})
        return exits.OK
    name = output.safe(topic)
    if (before.found, before.known) == (partitions, partitions):
        output.result(f"{name} has {partitions} partitions already.")
    elif before.found == partitions:
        output.result(
            f"{name}: the log {'would take' if dry_run else 'takes'} in the {partitions - before.known} partitions that it did not know."
        )
    else:
        output.result(
            f"{name} {'would have' if dry_run else 'has'} {partitions} partitions, it had {before.found}. They cannot be taken away again."
        )
    return exits.OK
