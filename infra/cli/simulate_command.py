"""The command that makes streams to try with: to Kafka, to Kinesis, or to a file."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import DATA, command
from infra.cli.context import Context
from infra.cli.progress import Track
from infra.cli.stack_commands import Json

_TRANSFERS, _TRANSFER_FRAUD = 60_000, 0.08  # of a simulated stream


class Target(StrEnum):
    """Where a simulated stream goes."""

    kafka = "kafka"
    kinesis = "kinesis"
    file = "file"


class Shape(StrEnum):
    """What a simulated stream is like."""

    transfers = "transfers"
    cards = "cards"
    shop = "shop"


@command(
    "simulate",
    panel=DATA,
    examples=[
        "tidemark simulate --to file --out stream.parquet",
        "tidemark simulate --to kafka --count 100000 --rate 200",
        "tidemark simulate --to kinesis --count 10000 --rate 500",
        "tidemark simulate --to file --out s.csv.gz --fraud-share 0.02 --seed 3 --truth truth.csv",
        "tidemark simulate --to file --out samples/ --count 10000",
        "tidemark simulate --shape cards --out creditcard.csv",
        "tidemark simulate --shape shop --out sample_events.csv",
    ],
)
def simulate(
    to: Annotated[Target, typer.Option(help="kafka sends commands, kinesis sends JSON, file writes --out.")] = Target.file,
    shape: Annotated[
        Shape,
        typer.Option(
            help="transfers of wallets; for a file alone: cards, rows like Kaggle's creditcard.csv, and shop, visits with their payments."
        ),
    ] = Shape.transfers,
    count: Annotated[
        int | None,
        typer.Option(min=100, help="Transactions; by default 60,000, of cards 284,807; of a shop visits, 2,000.", show_default=False),
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Transactions a second; by default as fast as they are taken.")] = None,
    fraud_share: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.4,
            help="Share of the transactions that belong to illicit schemes; by default 0.08, of cards 492 in 284,807.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed and options give the same stream, bit by bit.")] = 7,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write: .parquet, .csv, .csv.gz, .jsonl or .jsonl.gz; a folder gets sample_transactions.csv and fraud_labels.csv."
        ),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="File for the labels; the schemes go beside it as .schemes.jsonl.")] = None,
    json: Json = False,
) -> int:
    """Make a stream of transactions with planted schemes and benign look-alikes; the truth goes to files of its own."""
    from infra.lambdas.kinesis_road import KinesisWriter
    from infra.read_your_write import token_now
    from infra.simulator.delivery import LABELS_CSV, TRANSACTIONS_CSV, as_json_records, commands, write_stream, write_truth
    from infra.simulator.generator import SimulatorOptions
    from infra.simulator.generator import simulate as draw
    from schema_registry.contracts import COMMANDS

    if to is Target.file and out is None:
        raise typer.BadParameter("name the file to write", param_hint="--out")
    if shape is Shape.cards:
        if to is not Target.file or out is None or truth is not None or rate is not None:
            raise typer.BadParameter(
                "cards go to a file, at once and with their class: --to file --out creditcard.csv", param_hint="--shape"
            )
        return _cards(count, fraud_share, seed, out, json)
    if shape is Shape.shop:
        if to is not Target.file or out is None or fraud_share is not None or rate is not None:
            raise typer.BadParameter("a shop goes to a file, at once: --to file --out sample_events.csv", param_hint="--shape")
        return _shop(count, seed, out, truth, json)
    if to is Target.file and out is not None and (out.is_dir() or not out.suffix):
        truth, out = truth or out / LABELS_CSV, out / TRANSACTIONS_CSV
    context = Context()
    needs = {Target.kafka: ("kafka", "registry"), Target.kinesis: ("aws",), Target.file: ()}[to]
    composition = context.need(*needs) if needs else None
    goes_to = {Target.kafka: COMMANDS, Target.kinesis: context.given.kinesis.stream, Target.file: str(out)}[to]
    started = time.monotonic()
    with output.errors.status("drawing the stream"):
        share = _TRANSFER_FRAUD if fraud_share is None else fraud_share
        simulation = draw(SimulatorOptions(seed=seed, count=count or _TRANSFERS, fraud_share=share))
    total = simulation.table.num_rows
    token = None
    if composition is None and out is not None:
        labels = truth or out.with_name(out.name.split(".")[0] + ".labels.csv")
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_stream(simulation, out)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--out") from None
    else:
        assert composition is not None
        labels = truth or context.given.stack_dir / "simulated" / f"simulated-{seed}.labels.csv"
        with Track("simulate", "transactions") as track:
            if to is Target.kafka:
                for chunk in commands(simulation, composition.clients.catalog, rate=rate):
                    composition.producer.send(COMMANDS, chunk.keys, chunk.values)
                    track.update(chunk.first_row + len(chunk.values), total)
                composition.producer.flush()
                token = str(token_now(composition))
            else:
                writer = KinesisWriter(composition.clients.aws("kinesis"), goes_to)
                for part in as_json_records(simulation, rate=rate):
                    writer.put(part.items)
                    track.update(part.first_row + len(part.items), total)
    labels.parent.mkdir(parents=True, exist_ok=True)
    schemes = labels.with_name(labels.name.removesuffix(".csv").removesuffix(".labels") + ".schemes.jsonl")
    write_truth(simulation, labels, schemes)
    found = {
        "to": to.value, "transactions": total, "seed": seed, "out": goes_to, "labels": str(labels),
        "schemes": str(schemes), "planted_schemes": len(simulation.schemes), "seconds": round(time.monotonic() - started, 2),
        "token": token,
    }  # fmt: skip
    if json:
        output.print_json(found)
    else:
        output.result(
            f"[green]{output.count(total)} transactions[/] to {output.safe(found['out'])}, {len(simulation.schemes)} schemes planted"
        )
        output.result(f"Truth: {output.safe(labels)} and {output.safe(schemes)}")
        if token is not None:
            output.result(f"Token: {output.safe(token)} (`tidemark wait`)")
    return exits.OK


def _shop(count: int | None, seed: int, out: Path, truth: Path | None, is_json: bool) -> int:
    from infra.simulator.storefront import ShopOptions, simulate_shop, write_events, write_fraud

    shop = simulate_shop(ShopOptions(seed=seed, sessions=count or ShopOptions().sessions))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_events(shop, out)
    labels = truth or out.with_name(out.name.split(".")[0] + ".labels.csv")
    labels.parent.mkdir(parents=True, exist_ok=True)
    write_fraud(shop, labels)
    payments = sum(record.tx_id is not None for record in shop.records)
    found = {
        "shape": Shape.shop.value, "steps": len(shop.records) - payments, "payments": payments, "frauds": len(shop.truth), "seed": seed,
        "out": str(out), "labels": str(labels),
    }  # fmt: skip
    if is_json:
        output.print_json(found)
    else:
        output.result(f"[green]{output.count(len(shop.records))} steps and payments[/] to {output.safe(out)}")
        output.result(f"{len(shop.truth)} planted frauds by paying wallet: {output.safe(labels)}")
    return exits.OK


def _cards(count: int | None, fraud_share: float | None, seed: int, out: Path, is_json: bool) -> int:
    from infra.simulator.cards import CARD_FRAUDS, CARD_ROWS, CardOptions, write_card_payments

    rows = count or CARD_ROWS
    frauds = round(rows * (CARD_FRAUDS / CARD_ROWS if fraud_share is None else fraud_share))
    if out.exists():  # the real file has this name too
        raise typer.BadParameter(f"{out} is there already: name another file, or remove it", param_hint="--out")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_card_payments(CardOptions(rows, frauds, seed), out)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from None
    if is_json:
        output.print_json({"shape": Shape.cards.value, "transactions": rows, "frauds": frauds, "seed": seed, "out": str(out)})
    else:
        output.result(f"[green]{output.count(rows)} card payments[/] to {output.safe(out)}, {output.count(frauds)} of them frauds")
        output.result(f"Bring them in with `tidemark ingest {output.safe(out)}`.")
    return exits.OK
