"""Commands about card alerts: the function that makes them, and what it found."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import MODEL, group
from infra.cli.app import command as declare
from infra.cli.context import Context
from infra.cli.interruption import told_to_end
from infra.cli.stack_commands import Json

cards = group("cards", "Alerts on card payments by a Lambda function on the scores.", MODEL)
Threshold = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Score from which a payment is an alert; by default the setting's.")
]


@declare("up", of=cards, examples=["tidemark cards up", "tidemark cards up --threshold 0.3"])
def cards_up(threshold: Threshold = None) -> int:
    """Make both tables of alerts where they are missing, and start the function beside the other workers."""
    from infra.lambdas.card_alerts import CARD_ALERTS
    from infra.lambdas.cards_function import NEEDS, prepare, start

    context = Context()
    composition = context.need(*NEEDS)
    prepare(composition)
    start(context.stack, threshold)
    chosen = threshold if threshold is not None else composition.settings.card_alerts.threshold
    output.result(f"The function {CARD_ALERTS} is coming up: alerts from score {chosen:g} on. Look with `tidemark cards alerts`.")
    return exits.OK


@declare("down", of=cards, examples=["tidemark cards down"])
def cards_down() -> int:
    """Stop the function; the next start goes on with the first score that this one has not done."""
    from infra.lambdas.card_alerts import CARD_ALERTS

    Context().stack.stop_worker(CARD_ALERTS)
    output.result(f"{CARD_ALERTS} is stopped.")
    return exits.OK


@declare("serve", of=cards, examples=["tidemark cards serve", "tidemark cards serve --threshold 0.3 --batch-size 1000"])
def cards_serve(
    threshold: Threshold = None,
    batch_size: Annotated[int, typer.Option(min=1, max=10_000, help="Scores of a call at most.")] = 500,
) -> int:
    """Run the function in the foreground until Ctrl-C, its calls fed from the scores in Kafka as Lambda feeds them."""
    from infra import logs
    from infra.composition import Composition
    from infra.lambdas.cards_function import NEEDS, serve, with_threshold
    from infra.lambdas.kafka_source import KafkaSourceOptions

    context = Context()
    logs.configure(context.given.log_level, is_json=not output.errors.is_terminal)
    stop = told_to_end()
    context.need(*NEEDS)
    composition = Composition(with_threshold(context.settings, threshold))
    done = serve(composition, stop, KafkaSourceOptions(batch_size=batch_size))
    output.say(f"Stopped: {output.count(done.records)} scores in {output.count(done.batches)} calls.")
    return exits.OK


@declare("alerts", of=cards, examples=["tidemark cards alerts", "tidemark cards alerts --limit 100 --json"])
def cards_alerts(
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    json: Json = False,
) -> int:
    """Show the newest alerts, and whether the table and DynamoDB hold the same."""
    from dataclasses import asdict

    from infra.lambdas.cards_function import held, latest

    composition = Context().need("postgres", "aws")
    found, rows = held(composition), latest(composition, limit)
    if json:
        output.print_json({**found.as_json(), "alerts": [asdict(row) for row in rows]})
    else:
        columns = ("seq", "score", "threshold", "scored at", "model", "transaction")
        lines = [
            (row.tx_seq, f"{row.score:.6f}", f"{row.threshold:g}", f"{row.scored_at:%Y-%m-%d %H:%M:%S}", row.model_version, row.tx_id)
            for row in rows
        ]
        output.print_table("", columns, lines, right=columns[:3])
        same = (
            "the same" if found.are_same else "[red]not the same[/]: what the function is just writing, or a table that was changed by hand"
        )
        output.result(f"The table holds {output.count(found.table)}, DynamoDB {output.count(found.dynamodb)}: {same}.")
    return exits.OK if found.are_same else exits.FAILED
