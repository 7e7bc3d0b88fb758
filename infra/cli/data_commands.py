"""Commands that bring data in: ingest, simulate, wait."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli import exits, output
from infra.cli.app import DATA, command
from infra.cli.context import Context
from infra.cli.progress import Track
from infra.cli.stack_commands import Json

if TYPE_CHECKING:
    from infra.ingest import IngestProgress
    from infra.sources.mapping import LabelMapping, TransactionMapping

STREAM = "-"
STREAM_ROWS = 1_000  # rows of a stream that a dry run looks at


class Target(StrEnum):
    """Where a simulated stream goes."""

    kafka = "kafka"
    kinesis = "kinesis"
    file = "file"


@command(
    "ingest",
    panel=DATA,
    examples=[
        "tidemark ingest transactions.csv.gz",
        "tidemark ingest transfers.csv --mapping ethereum --labels labels.csv",
        "tidemark ingest payments.jsonl --mapping payment_json --dry-run",
        "tidemark ingest unknown.csv --suggest > unknown.yaml",
        "tail -f new.jsonl | tidemark ingest - --mapping payment_json",
        "tidemark ingest --void transfers-20260301T090000 --dry-run",
        "tidemark ingest --void transfers-20260301T090000 --reason 'amounts in the wrong unit'",
    ],
)
def ingest(
    file: Annotated[str | None, typer.Argument(help="CSV, CSV.gz, Parquet or JSON lines; `-` reads standard input until it ends.")] = None,
    mapping: Annotated[
        str | None,
        typer.Option(help="A shipped mapping's name or a YAML file; by default the one that fits the header."),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="File of wallet labels to ingest after it.")] = None,
    known_at: Annotated[datetime | None, typer.Option(help="When the labels became known (UTC); by default now.")] = None,
    ingest_id: Annotated[str | None, typer.Option(help="Name of this run in each transaction's origin.")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what the first rows would become and count what would be refused; send nothing."),
    ] = False,
    rows: Annotated[int, typer.Option(min=1, help="Accepted rows that a dry run shows.")] = 5,
    suggest: Annotated[bool, typer.Option("--suggest", help="Draft a mapping from the header; send nothing.")] = False,
    void: Annotated[
        str | None, typer.Option(help="Take back every transaction of the run with this ingest id, instead of reading a file.")
    ] = None,
    reason: Annotated[str, typer.Option(help="With --void: why, in a few words; it is kept for ever.")] = "wrong_mapping",
    json: Json = False,
) -> int:
    """Send a file's rows as commands, in its order. Sending it again records nothing twice."""
    from infra.ingest import ingest_file, mapping_for

    if void is not None:
        if file is not None:
            raise typer.BadParameter("takes back a run that was ingested: name no file", param_hint="--void")
        return _void_run(void, reason, dry_run, json)
    if file is None:
        raise typer.BadParameter("name the file to read, `-` for standard input, or --void a run", param_hint="FILE")
    if file != STREAM and not Path(file).is_file():
        raise typer.BadParameter(f"{file} is no file", param_hint="FILE")
    if labels is not None and not labels.is_file():
        raise typer.BadParameter(f"{labels} is no file", param_hint="--labels")
    if suggest:
        return _suggest(file)
    context = Context()
    if dry_run:
        return _dry_run(context, file, mapping_for(file, mapping), rows, json)
    composition = context.need("kafka", "registry")
    at = known_at.replace(tzinfo=UTC) if known_at is not None and known_at.tzinfo is None else known_at
    with Track(f"ingest {file}", "rows") as track:

        def progress(report: IngestProgress) -> None:
            estimate = report.source.rows_estimate
            track.update(report.source.rows_read, estimate)

        result = ingest_file(
            composition,
            file,
            mapping,
            labels=None if labels is None else str(labels),
            ingest_id=ingest_id,
            known_at=at,
            progress=progress,
        )
    if json:
        output.print_json(result.as_json())
    else:
        rate = f", {output.count(result.rows_read / result.seconds)} rows/s" if result.seconds else ""
        output.result(
            f"[green]{output.count(result.commands)} transactions sent[/] of {output.count(result.rows_read)} rows{rate};"
            f" run {output.safe(result.ingest_id)}"
        )
        if result.label_commands:
            output.result(f"{output.count(result.label_commands)} labels sent")
        output.result(f"Token: {output.safe(result.token)} (`tidemark wait`)")
        for reason, number in result.refused.items():
            output.result(f"[yellow]{output.count(number)} rows refused: {output.safe(reason)}[/] (`tidemark quarantine list`)")
        if "command-handler" not in context.stack.status():
            output.result(
                "No command handler runs here: the commands wait until `tidemark run command-handler` (or `tidemark up --workers`)."
            )
    if result.cut_short is not None:
        output.fail(result.cut_short)
        return exits.FAILED
    return exits.OK


def _void_run(ingest_id: str, reason: str, is_dry: bool, is_json: bool) -> int:
    from infra.cli.case_commands import user
    from infra.take_back import void_run

    context = Context()
    composition = context.need("kafka", "registry")
    with Track(f"void {ingest_id}", "records") as track:
        result = void_run(composition, ingest_id, reason=reason, actor=user(), is_dry=is_dry, progress=track.update)
    if is_json:
        output.print_json(result.as_json())
        return exits.OK
    verb = "would be taken back; nothing was sent" if is_dry else "taken back"
    output.result(
        f"[green]{output.count(result.sent)} transactions {verb}[/] of {output.count(result.recorded)} of run"
        f" {output.safe(ingest_id)}; {output.count(result.void_before)} were void already"
    )
    if not is_dry:
        output.result(f"Token: {output.safe(result.token)} (`tidemark wait`)")
        output.result("Ingest the corrected rows now: where their payload differs they are recorded as the next revision.")
    return exits.OK


@command(
    "void",
    panel=DATA,
    examples=[
        "tidemark void ethereum:0xab12:0 --reason reorganisation",
        "tidemark void card:7f31:0 --reason chargeback --replaced-by card:7f31:1",
    ],
)
def void_transaction(
    tx_id: Annotated[str, typer.Argument(help="The transaction's tx_id.")],
    reason: Annotated[str, typer.Option(help="Why, in a few words; it is kept for ever.")],
    replaced_by: Annotated[str | None, typer.Option(help="The tx_id that stands in its place, where it is another one.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who decides; by default the user of this machine.")] = None,
    json: Json = False,
) -> int:
    """Take one transaction back (chargeback, reorganisation); a whole run: `tidemark ingest --void`."""
    from domain.commands import VoidTransaction
    from infra.cli.case_commands import user
    from infra.command_sender import send

    composition = Context().need("kafka", "registry")
    now = datetime.now(UTC)
    answer = send(composition, tx_id, VoidTransaction(tx_id, None, reason, replaced_by, actor or user(), now))
    if json:
        output.print_json({"tx_id": tx_id, **answer.as_json()})
    else:
        output.result(f"[green]{output.safe(tx_id)} is void[/]: read models mark it and no longer count it")
    return exits.OK


def _suggest(file: str) -> int:
    from infra.sources.shipped import header_of
    from infra.sources.suggestion import suggest

    if file == STREAM:
        raise typer.BadParameter("a stream has no header to look at", param_hint="FILE")
    name = Path(file).name.split(".")[0].lower().replace(" ", "_")[:40] or "my_source"
    print(suggest(header_of(file), name), end="")
    return exits.OK


def _dry_run(context: Context, file: str, mapping: TransactionMapping | LabelMapping, rows: int, is_json: bool) -> int:
    from infra.pseudonym_key import pseudonym_key
    from infra.sources.labels import read_labels
    from infra.sources.mapping import LabelMapping
    from infra.sources.reading import dry_run
    from schema_registry.catalog import SchemaCatalog

    key = pseudonym_key(context.given.stack_dir) if mapping.needs_key else None
    shown: list[dict[str, Any]]
    if isinstance(mapping, LabelMapping):
        found = read_labels(file, mapping, datetime.now(UTC), None, key)
        shown = [{"wallet_id": label.wallet_id, "label": label.label} for label in found.commands[:rows]]
        read, accepted, refusals = found.rows_read, len(found.commands), _counted(row.reason for row in found.rejected)
        examples = found.rejected[:5]
    else:
        looked = dry_run(
            file,
            mapping,
            catalog=SchemaCatalog.numbered(),
            key=key,
            rows=rows,
            count_rows=STREAM_ROWS if file == STREAM else None,
        )
        shown, read, refusals, examples = looked.accepted, looked.rows_read, looked.refusals, looked.examples
        accepted = read - sum(refusals.values())
    if is_json:
        first = [{"row": row.row, "reason": row.reason, "message": row.message} for row in examples]
        output.print_json(
            {
                "mapping": mapping.title,
                "rows_read": read,
                "accepted": accepted,
                "refused": refusals,
                "first": shown,
                "first_refused": first,
            }
        )
        return exits.OK
    output.result(
        f"Mapping [bold]{output.safe(mapping.title)}[/]: {output.count(accepted)} of {output.count(read)} rows would be sent."
        " Nothing was sent."
    )
    for number, row in enumerate(shown, 1):
        output.result(f"\n[bold]{number}[/]")
        output.print_fields(row)
    if refusals:
        output.result("")
        output.print_table("Would be refused", ("reason", "rows"), list(refusals.items()), right=("rows",))
        for rejected in examples:
            output.result(f"[yellow]row {rejected.row}: {output.safe(rejected.message)}[/]")
    return exits.OK


def _counted(reasons: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for reason in reasons:
        found[reason] = found.get(reason, 0) + 1
    return found


@command(
    "simulate",
    panel=DATA,
    examples=[
        "tidemark simulate --to file --out stream.parquet",
        "tidemark simulate --to kafka --count 100000 --rate 200",
        "tidemark simulate --to kinesis --count 10000 --rate 500",
        "tidemark simulate --to file --out s.csv.gz --fraud-share 0.02 --seed 3 --truth truth.csv",
    ],
)
def simulate(
    to: Annotated[Target, typer.Option(help="kafka sends commands, kinesis sends JSON, file writes --out.")] = Target.file,
    count: Annotated[int, typer.Option(min=100, help="Transactions.")] = 60_000,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Transactions a second; by default as fast as they are taken.")] = None,
    fraud_share: Annotated[float, typer.Option(min=0.0, max=0.4, help="Share of the transactions that belong to illicit schemes.")] = 0.08,
    seed: Annotated[int, typer.Option(help="The same seed and options give the same stream, bit by bit.")] = 7,
    out: Annotated[Path | None, typer.Option(help="File to write: .parquet, .csv, .csv.gz, .jsonl or .jsonl.gz.")] = None,
    truth: Annotated[Path | None, typer.Option(help="File for the labels; the schemes go beside it as .schemes.jsonl.")] = None,
    json: Json = False,
) -> int:
    """Make a stream of transactions with planted schemes and benign look-alikes; the truth goes to files of its own."""
    from infra.lambdas.kinesis_road import KinesisWriter
    from infra.read_your_write import token_now
    from infra.simulator.delivery import as_json_records, commands, write_stream, write_truth
    from infra.simulator.generator import SimulatorOptions
    from infra.simulator.generator import simulate as draw
    from schema_registry.contracts import COMMANDS

    if to is Target.file and out is None:
        raise typer.BadParameter("name the file to write", param_hint="--out")
    context = Context()
    needs = {Target.kafka: ("kafka", "registry"), Target.kinesis: ("aws",), Target.file: ()}[to]
    composition = context.need(*needs) if needs else None
    goes_to = {Target.kafka: COMMANDS, Target.kinesis: context.given.kinesis.stream, Target.file: str(out)}[to]
    started = time.monotonic()
    with output.errors.status("drawing the stream"):
        simulation = draw(SimulatorOptions(seed=seed, count=count, fraud_share=fraud_share))
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


@command(
    "wait",
    panel=DATA,
    examples=[
        "tidemark wait commands:0:12345@5L6g3nShT-eMCtK--X86sw --for warehouse",
        "tidemark wait commands:0:12345@5L6g3nShT-eMCtK--X86sw --for graph --for alerts --timeout 120 --json",
        'tidemark wait "$(tidemark ingest a.csv --json | jq -r .token)" --for warehouse && psql …',
    ],
)
def wait(
    token: Annotated[str, typer.Argument(help="What `tidemark ingest` printed.")],
    for_: Annotated[
        list[str],
        typer.Option(
            "--for",
            help="Who must include it: a read model (archive, curated, warehouse, graph, an installed one), scorer or alerts; repeatable.",
        ),
    ],
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait at most, for all of them.")] = 30.0,
    json: Json = False,
) -> int:
    """Wait until a store includes what was ingested: exit status 0 once it does, 5 when it does not in time, 2 for a bad token."""
    from domain.errors import InvalidValue
    from infra.read_models import names, read_model
    from infra.read_your_write import NotIncludedYet, WriteToken, readers_to_wait_for, wait_for

    try:
        wanted = WriteToken.parse(token)
    except InvalidValue as error:
        raise typer.BadParameter(str(error), param_hint="TOKEN") from None
    readers = readers_to_wait_for()
    if unknown := [name for name in for_ if name not in readers]:
        raise typer.BadParameter(f"expected {', '.join(readers)}, found {', '.join(unknown)}", param_hint="--for")
    needs = (server for name in for_ if name in names() for server in read_model(name).needs)
    composition = Context().need("kafka", "registry", *needs)
    started = time.monotonic()
    found: list[dict[str, Any]] = []
    status = exits.OK
    for name in dict.fromkeys(for_):
        left = max(0.0, timeout - (time.monotonic() - started))
        try:
            included = wait_for(wanted, name, left, composition=composition)
        except NotIncludedYet as error:
            status = exits.NOT_READY
            found.append({"projection": name, "included": False, "message": str(error)})
            if not json:
                output.fail(error)
            continue
        found.append(included.as_json())
        if not json:
            output.result(f"[green]included[/]  [bold]{name}[/] after {included.seconds:.2f} s")
    if json:
        output.print_json({"included": status == exits.OK, "token": str(wanted), "readers": found})
    return status
