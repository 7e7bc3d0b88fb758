"""Commands about the model: train, deploy, score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli import exits, output
from infra.cli.app import MODEL, command
from infra.cli.batch_scoring import BatchSource, BatchTarget, score_batch
from infra.cli.context import Context
from infra.cli.stack_commands import Json
from infra.cli.times import EARLIEST

if TYPE_CHECKING:
    from infra.composition import Composition

SHOWN = (
    "tx_id", "tx_seq", "score", "source_wallet_id", "source_score", "source_k", "target_wallet_id", "target_score", "target_k",
    "features_only_score", "source_embedding_seq", "target_embedding_seq", "model_version",
)  # fmt: skip


@command("train", panel=MODEL, examples=["tidemark train", "tidemark train --seed 3 --json"])
def train(seed: Annotated[int, typer.Option(help="Seed of the network and of the head.")] = 7, json: Json = False) -> int:
    """Train the graph network on what the log holds and the labels known now; the package goes to S3, its events to the log."""
    from infra.training import train_model

    composition = Context().need("kafka", "registry", "s3")
    told: set[str] = set()
    with output.errors.status("reading the log") as waiting:

        def progress(stage: str, share: float) -> None:
            waiting.update(f"{output.safe(stage)} {share:.0%}")
            if stage not in told:
                told.add(stage)
                if not output.errors.is_terminal:
                    output.say(f"training: {output.safe(stage)}")

        result = train_model(composition, seed=seed, progress=progress)
    if json:
        output.print_json(result.as_json())
        return exits.OK
    output.result(
        f"[green]Trained {output.safe(result.model_version)}[/] in {output.duration(result.seconds)},"
        f" on {output.count(result.trained_to_seq)} transactions"
    )
    output.print_fields({"package": result.package_uri, "sha256": result.package_sha256, "embeddings": output.count(result.embeddings)})
    output.result("Serve it with `tidemark deploy`.")
    return exits.OK


@command("deploy", panel=MODEL, examples=["tidemark deploy", "tidemark deploy --model-version m-3f2a91c07b5e"])
def deploy(
    model_version: Annotated[str | None, typer.Option(help="Model to serve; by default the one trained last.")] = None,
    json: Json = False,
) -> int:
    """Serve a trained model through SageMaker's own calls; scores are contiguous from the first deployment on."""
    from infra.deployment import deploy_model

    context = Context()
    composition = context.need("kafka", "registry", "s3", "aws")
    with output.errors.status("deploying"):
        result = deploy_model(composition, context.stack, model_version)
    if json:
        output.print_json(result.as_json())
        return exits.OK
    output.result(
        f"[green]{output.safe(result.model_version)} serves[/] as {output.safe(result.endpoint)} at {output.safe(result.url)},"
        f" from transaction {result.from_seq} on"
    )
    if composition.settings.aws.is_itself:
        output.result(
            "Make scorer, alerts and notifier with infra/aws/workers.yaml and HasModel=true; where the scorer runs, start it again."
        )
        return exits.OK
    running = context.stack.status()
    missing = [name for name in ("scorer", "alerts") if name not in running]
    if missing:
        output.result(f"Not running here: {', '.join(missing)}. Start them with `tidemark up --workers`.")
    elif result.model_version:
        output.result("A scorer that runs already keeps its model until it is restarted.")
    return exits.OK


@command(
    "retrain",
    panel=MODEL,
    examples=["tidemark retrain", "tidemark retrain --gate-only --json", "tidemark retrain --share 0.3 --tolerance 0.005"],
)
def retrain(
    share: Annotated[float, typer.Option(min=0.05, max=0.5, help="Of the transactions, the last, that models are judged on.")] = 0.2,
    tolerance: Annotated[float, typer.Option(min=0.0, max=1.0, help="How much AUROC the new one may lack beside what serves.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of the network and of the head.")] = 7,
    gate_only: Annotated[bool, typer.Option("--gate-only", help="Judge, and change nothing.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the verdict as JSON into this file; the exit status is then 0 whatever it says.")
    ] = None,
    json: Json = False,
) -> int:
    """Judge a challenger on the last part of history beside what serves; where it holds, train on everything and deploy. Exit status 6
    where the gate held it back."""
    import json as json_

    from infra.report.files import put
    from infra.retraining import retrain as work

    context = Context()
    composition = context.need("kafka", "registry", "s3", *(() if gate_only else ("aws",)))
    with output.errors.status("reading the log") as waiting:
        result = work(
            composition, context.stack, share=share, tolerance=tolerance, seed=seed, gate_only=gate_only,
            progress=lambda stage, done: waiting.update(f"{output.safe(stage)} {done:.0%}"),
        )  # fmt: skip
    gate = result.gate
    held_back = exits.HELD_BACK
    if out is not None:
        put(out, (json_.dumps(result.as_json()) + "\n").encode())
        held_back = exits.OK
    if json:
        output.print_json(result.as_json())
        return exits.OK if gate.has_passed else held_back
    output.result(
        f"Judged on seq {output.count(gate.cut_seq)} up to {output.count(gate.end_seq)}:"
        f" {output.count(gate.judged)} {gate.labels_are_of}, {output.count(gate.fraud)} of them fraud"
    )
    models = [("challenger", gate.challenger), *([("serves now", gate.champion)] if gate.champion is not None else [])]
    rows = [(who, one.model_version, f"{one.auroc:.4f}", f"{one.average_precision:.4f}", one.trained_to_seq) for who, one in models]
    output.print_table("", ("", "model", "AUROC", "average precision", "trained up to"), rows, right=("AUROC", "average precision"))
    if gate.champion_knew:
        output.result("[yellow]What serves was trained on part of what it is judged on here: the comparison favours it.[/]")
    if not gate.has_passed:
        output.result(f"[yellow]Held back[/]: it lacks more than {gate.tolerance} of AUROC. Nothing was changed.")
        return held_back
    if result.model_version is not None:
        output.result(f"[green]{output.safe(result.model_version)} serves[/], trained on all of it, from transaction {result.from_seq} on.")
    else:
        output.result("[green]It would pass.[/] Nothing was changed.")
    return exits.OK


@command(
    "score",
    panel=MODEL,
    examples=[
        "tidemark score ethereum:0x8f2c…:0",
        "tidemark score --wallet ethereum:0x1234… --limit 50",
        "tidemark score --from warehouse",
        "tidemark score --from s3 --model m-3f2a91c07b5e --since 2026-11-01 --until 2026-11-02T12:00 --json",
    ],
)
def score(
    tx_id: Annotated[str | None, typer.Argument(help="Transaction.")] = None,
    wallet: Annotated[str | None, typer.Option(help="Every score in which this wallet took part, newest last.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The last so many.")] = 20,
    from_: Annotated[
        BatchSource | None,
        typer.Option("--from", help="Score a batch of what is there: the warehouse's facts, or the raw archive in S3."),
    ] = None,
    since: Annotated[
        str, typer.Option(help="Batch: from this transaction on: a seq, the time (UTC) when it was appended, or `earliest`.")
    ] = EARLIEST,
    until: Annotated[
        str | None, typer.Option(help="Batch: up to this seq or time, which is left out; by default all that is there.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Batch: model version to score with; by default the one deployed.")] = None,
    to: Annotated[
        BatchTarget, typer.Option(help="Batch: results to S3, or to S3 and from there into the warehouse.")
    ] = BatchTarget.warehouse,
    json: Json = False,
) -> int:
    """Show the recorded score of a transaction, or a wallet's; with --from, score a batch beside the live endpoint.

    A batch is scored here, by the package's own code: neither the endpoint nor Kafka's transactions are used. Run again, it goes on.
    """
    if sum(given is not None for given in (tx_id, wallet, from_)) != 1:
        raise typer.BadParameter("give a transaction, --wallet or --from", param_hint="TX_ID")
    if from_ is not None:
        return score_batch(from_, since, until, model, to, is_json=json)
    if since != EARLIEST or until is not None or model is not None:
        raise typer.BadParameter("goes with --from", param_hint="--since, --until or --model")
    composition = Context().need("kafka", "registry")
    rows = recorded_scores(composition, tx_id, wallet)[-limit:]
    if json:
        output.print_json(rows)
    elif tx_id is not None and rows:
        output.print_fields({name: value for name, value in rows[-1].items() if value is not None})
    elif rows:
        columns = ("seq", "score", "its part", "k", "wallet's score", "transaction")
        output.print_table("", columns, [_line(row, wallet or "") for row in rows], right=columns[:2])
    if not rows:
        output.fail(f"no score was recorded of {tx_id or wallet}: is it recorded, and has the scorer reached it (`tidemark status`)?")
        return exits.FAILED
    return exits.OK


def recorded_scores(composition: Composition, tx_id: str | None, wallet: str | None) -> list[dict[str, Any]]:
    """`TransactionScored` of a transaction or a wallet, in order of seq, read from the log.

    Raises:
        LogError: the log cannot be read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from projections.decoding import decode
    from schema_registry.column_codec import ColumnCodec
    from schema_registry.contracts import SCORE_EVENTS

    codec = ColumnCodec(composition.clients.catalog, {"TransactionScored": SHOWN})
    found: list[pa.Table] = []
    for batch in composition.log.read([SCORE_EVENTS], {}):
        table = decode(codec, [batch])[0].tables.get("TransactionScored")
        if table is None:
            continue
        if tx_id is not None:
            wanted = pc.equal(table["tx_id"], tx_id)
        else:
            sides = [pc.fill_null(pc.equal(table[name], wallet), False) for name in ("source_wallet_id", "target_wallet_id")]
            wanted = pc.or_(*sides)
        found.append(table.filter(wanted).select(list(SHOWN)))
    rows: list[dict[str, Any]] = pa.concat_tables(found).sort_by("tx_seq").to_pylist() if found else []
    return rows


def _line(row: dict[str, Any], wallet: str) -> tuple[object, ...]:
    side = "source" if row["source_wallet_id"] == wallet else "target"
    own = row[f"{side}_score"]
    return (
        row["tx_seq"],
        f"{row['score']:.6f}",
        side,
        row[f"{side}_k"],
        "" if own is None else f"{own:.6f}",
        row["tx_id"],
    )
