"""Commands that bring data in: ingest, wait."""

from __future__ import annotations

import time
from datetime import UTC, datetime
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
    from infra.sources.mapping import AnyMapping

STREAM = "-"
STREAM_ROWS = 1_000  # rows of a stream that a dry run looks at


@command(
    "ingest",
    panel=DATA,
    examples=[
        "tidemark ingest transactions.csv.gz",
        "tidemark ingest transfers.csv --mapping ethereum --labels labels.csv",
        "tidemark ingest payments.jsonl --mapping payment_json --dry-run",
        "tidemark ingest wallets.csv --known-at 2026-03-01",
        "tidemark ingest prices.csv --mapping tidemark_prices",
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
    known_at: Annotated[datetime | None, typer.Option(help="When labels or descriptions became known (UTC); by default now.")] = None,
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
        sent = f"{output.count(result.prices)} prices appended" if result.prices else f"{output.count(result.commands)} transactions sent"
        output.result(f"[green]{sent}[/] of {output.count(result.rows_read)} rows{rate}; run {output.safe(result.ingest_id)}")
        if result.label_commands:
            output.result(f"{output.count(result.label_commands)} labels sent")
        if result.description_commands:
            output.result(f"{output.count(result.description_commands)} descriptions sent")
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


def _dry_run(context: Context, file: str, mapping: AnyMapping, rows: int, is_json: bool) -> int:
    from infra.pseudonym_key import pseudonym_key
    from infra.sources.descriptions import read_descriptions
    from infra.sources.labels import read_labels
    from infra.sources.mapping import DescriptionMapping, LabelMapping, PriceMapping
    from infra.sources.prices import read_prices
    from infra.sources.reading import dry_run
    from schema_registry.catalog import SchemaCatalog

    key = pseudonym_key(context.given.stack_dir) if mapping.needs_key else None
    shown: list[dict[str, Any]]
    if isinstance(mapping, LabelMapping):
        found = read_labels(file, mapping, datetime.now(UTC), None, key)
        shown = [{"wallet_id": label.wallet_id, "label": label.label} for label in found.commands[:rows]]
        read, accepted, refusals = found.rows_read, len(found.commands), _counted(row.reason for row in found.rejected)
        examples = found.rejected[:5]
    elif isinstance(mapping, DescriptionMapping):
        said = read_descriptions(file, mapping, datetime.now(UTC), key)
        names = ("wallet_id", "kind", "name", "country", "known_at")
        shown = [{name: getattr(row, name) for name in names} for row in said.commands[:rows]]
        read, accepted, refusals = said.rows_read, len(said.commands), _counted(row.reason for row in said.rejected)
        examples = said.rejected[:5]
    elif isinstance(mapping, PriceMapping):
        chunks = list(read_prices(file, mapping))
        events, unfit = [event for chunk in chunks for event in chunk.events], [row for chunk in chunks for row in chunk.rejected]
        shown = [{name: getattr(row, name) for name in ("asset", "quote_asset", "price", "priced_at")} for row in events[:rows]]
        read, accepted, refusals = len(events) + len(unfit), len(events), _counted(row.reason for row in unfit)
        examples = unfit[:5]
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
