"""Commands about the model: train, deploy, score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli import exits, output
from infra.cli.app import MODEL, command
from infra.cli.context import Context
from infra.cli.stack_commands import Json

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
    running = context.stack.status()
    missing = [name for name in ("scorer", "alerts") if name not in running]
    if missing:
        output.result(f"Not running here: {', '.join(missing)}. Start them with `tidemark up --workers`.")
    elif result.model_version:
        output.result("A scorer that runs already keeps its model until it is restarted.")
    return exits.OK


@command(
    "score",
    panel=MODEL,
    examples=["tidemark score ethereum:0x8f2c…:0", "tidemark score --wallet ethereum:0x1234… --limit 50"],
)
def score(
    tx_id: Annotated[str | None, typer.Argument(help="Transaction.")] = None,
    wallet: Annotated[str | None, typer.Option(help="Every score in which this wallet took part, newest last.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The last so many.")] = 20,
    json: Json = False,
) -> int:
    """Show the score that was recorded of a transaction, or a wallet's scores as its transactions came."""
    if (tx_id is None) == (wallet is None):
        raise typer.BadParameter("give a transaction or --wallet", param_hint="TX_ID")
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
