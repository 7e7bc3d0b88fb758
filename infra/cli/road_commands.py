"""Commands that walk a whole road: crypto, cards, shop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import START, group
from infra.cli.app import command as declare
from infra.cli.context import Context
from infra.cli.progress import Track
from infra.cli.stack_commands import Json, tell

if TYPE_CHECKING:
    from infra.lambdas.cards_road import CardsReport

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


@declare("shop", of=road, examples=["tidemark road shop", "tidemark road shop --sessions 5000 --frauds 20 --seed 3 --json"])
def shop(
    sessions: Annotated[int, typer.Option(min=10, help="Honest visits.")] = 600,
    frauds: Annotated[int, typer.Option(min=0, help="Planted frauds of each of the four kinds.")] = 4,
    rate: Annotated[float, typer.Option(min=1.0, help="Records a second into the stream.")] = 400.0,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same visits on one day; by default others each time.")] = None,
    json: Json = False,
) -> int:
    """Visits and payments of a shop by Kinesis: steps and payments to Kafka, the policy's rules over both roads, sales and funnel."""
    import time

    from infra.lambdas.shop_road import run

    context = Context()
    stack = context.stack
    stack.up(progress=tell)
    with Track("records into Kinesis", "records") as track:
        chosen = seed if seed is not None else int(time.time())
        found = run(stack, context.composition, sessions, frauds, rate, chosen, lambda text: output.say(f"[dim]  {text}[/]"), track.update)
    if json:
        output.print_json(found.as_json())
        return exits.OK
    output.result(
        f"[green]{found.caught} of {found.planted} planted frauds[/] alerted on within the stream,"
        f" and {found.honest_alerted} honest customers."
    )
    output.print_fields({name: value for name, value in found.as_json().items() if not isinstance(value, dict)})
    output.print_table("\nRules", ("rule", "alerts"), sorted(found.by_rule.items()), right=("alerts",))
    output.print_table("\nFunnel of all visits in the warehouse", ("step", "visits"), list(found.funnel.items()), right=("visits",))
    output.result("Look on: `tidemark alerts list`, `tidemark policy show`, `tidemark status`, `tidemark verify`.")
    return exits.OK


@declare(
    "cards",
    of=road,
    examples=[
        "tidemark road cards",
        "tidemark road cards --count 284807 --frauds 492",
        "tidemark road cards --data creditcard.csv --threshold 0.3 --json",
    ],
)
def cards(
    count: Annotated[int, typer.Option(min=1_000, help="Simulated payments.")] = 30_000,
    frauds: Annotated[int, typer.Option(min=20, help="Frauds among them.")] = 120,
    data: Annotated[
        Path | None, typer.Option(help="Kaggle's creditcard.csv, or a file with its columns, instead.", exists=True, dir_okay=False)
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Score from which a payment is an alert; by default the model's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same payments and the same model.")] = 7,
    json: Json = False,
) -> int:
    """Card payments (V1..V28) by Kafka and COPY to the warehouse, scored live, alerts by Lambda in DynamoDB and a table; reports both."""
    from infra.lambdas.cards_function import NEEDS
    from infra.lambdas.cards_road import CardsOptions, run

    context = Context()
    stack = context.stack
    local = stack.local_parts()
    stack.up([part for part in NEEDS if part in local], progress=tell)
    found = run(
        stack,
        context.composition,
        CardsOptions(count, frauds, seed, data, threshold),
        lambda text: output.say(f"[dim]  {output.safe(text)}[/]"),
    )
    if json:
        output.print_json(found.as_json())
    else:
        _show(found)
    return exits.OK if found.alerts["are_same"] else exits.FAILED


def _show(found: CardsReport) -> None:
    kind = "simulated: figures say nothing of the real file" if found.is_simulated else "real rows"
    output.result(f"[green]{output.count(found.payments)} card payments[/] ({kind}), {output.safe(found.data)}")
    if found.was_walked:
        output.result("Walked before with these payments: nothing was sent or trained, figures are the log's.")
    output.print_table(
        "", ("part", "payments", "frauds", "share"),
        [
            (name, output.count(part["payments"]), output.count(part["frauds"]), f"{part['frauds'] / max(1, part['payments']):.3%}")
            for name, part in (("learned from", found.train), ("judged", found.judged))
        ],
        right=("payments", "frauds", "share"),
    )  # fmt: skip
    output.result(f"Imbalance: {output.safe(found.imbalance)}.")
    rows: list[tuple[object, ...]] = []
    for name in ("average_precision", "auroc"):
        rows.append((name.replace("_", " "), _figure(found.figures[name]), _figure(found.without_graph[name]), ""))
    for ours, plain in zip(found.figures["at_budget"], found.without_graph["at_budget"], strict=True):
        what = f"alerts on {ours['share']:.1%} ({ours['alerts']})"
        rows.append((f"recall, {what}", _figure(ours["recall"]), _figure(plain["recall"]), _figure(ours["most_recall"])))
        rows.append((f"precision, {what}", _figure(ours["precision"]), _figure(plain["precision"]), ""))
    columns = ("figure", "score", "without any graph", "most possible")
    output.print_table("", columns, rows, right=columns[1:])
    output.result(f"Graph: {output.safe(found.graph)}.")
    alerts, view = found.alerts, found.warehouse
    same = "[green]the same[/]" if alerts["are_same"] else "[red]DIFFERENT[/]"
    since = "each by the threshold of its time" if found.was_walked else f"from score {found.threshold:g} on"
    output.result(
        f"Alerts, {since}: {output.count(alerts['of_these_payments'])} of these payments,"
        f" {output.count(alerts['frauds_among_them'])} of them frauds. The table holds {output.count(alerts['table'])} in all,"
        f" DynamoDB {output.count(alerts['dynamodb'])}: {same}."
    )
    output.result(
        f"warehouse.fraud_detection: {output.count(view['payments'])} payments, {output.count(view['with_class'])} with a class,"
        f" {output.count(view['frauds'])} frauds."
    )
    output.result("Look on: `tidemark cards alerts`, `tidemark status`, `tidemark quarantine list`, `tidemark verify warehouse`.")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
